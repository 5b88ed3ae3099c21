"""`python -m luthier`."""

import sys

from luthier.cli import main

if __name__ == "__main__":
    sys.exit(main())
