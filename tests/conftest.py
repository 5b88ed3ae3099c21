"""Every test runs offline, on one thread (two contended threads are far slower), and finds `tiny`."""

import os
import sys
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parent),
    str(Path(__file__).parent / "reference"),
    str(Path(__file__).parent / "invariants"),
]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
