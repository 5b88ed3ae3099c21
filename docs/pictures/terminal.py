"""A picture of what a command prints: python docs/pictures/terminal.py OUT.svg luthier data check FILE ...

The command runs with colours on; its stdout becomes an SVG of 110 columns.
"""

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

out, words = Path(sys.argv[1]), sys.argv[2:]
done = subprocess.run(
    words, stdout=subprocess.PIPE, env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": "110"}, check=False
)
console = Console(record=True, width=110, file=io.StringIO(), force_terminal=True)
console.print(Text(f"$ {shlex.join(words)}", style="bold"))
console.print(Text.from_ansi(done.stdout.decode()))
out.write_text(console.export_svg(title="luthier"), encoding="utf-8")
