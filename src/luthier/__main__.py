"""`python -m luthier`."""

import sys

if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        # `python -m` puts the working directory first, where a stranger's folder may hold a json.py.
        del sys.path[0]
    from luthier.cli import main

    sys.exit(main())
