"""Reads bad files within limits: a server that has the loader imported and forks for each file.

    python -m bad_files.reader        each line of standard input is [case, folder]; each line of standard
                                      output is what came of it (see `outcome`), or {"crash": why}

The fork may take 5 s of processor time, 500 MB of address space more than the server has, and half a minute
of the clock (a pipe that nobody writes to takes no time of the processor).
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import openpyxl.utils.escape  # noqa: F401  (imported here once, not in each fork)
import pyarrow.parquet  # noqa: F401

from bad_files.case import Case, shortened
from luthier.data import formats, prepare, registry, sources
from luthier.data.ledger import Ledger
from luthier.errors import LuthierError
from luthier.types import BadRow, Example

SECONDS, ROOM, CLOCK = 5, 500 << 20, 30
NOBODY = 65534


def size() -> int:
    """Bytes of this process's address space."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def confine(case: Case) -> None:
    signal.alarm(CLOCK)
    resource.setrlimit(resource.RLIMIT_AS, (size() + ROOM,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS,) * 2)
    if case.as_nobody and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def outcome(case: Case, folder: Path, name: str) -> dict[str, Any]:
    """What the loader makes of the file: {"kept", "bad", "notes", "refused"}, in the terms of `Case`."""
    found: dict[str, Any] = {"kept": [], "bad": [], "notes": [], "refused": ""}
    ledger, rejected = Ledger(name), list[BadRow]()
    meanwhile = case.meanwhile
    try:
        (spec,) = registry.specs([name], str(folder), stage=case.stage)
        found["notes"] += spec.notes
        for row in prepare.examples(spec, case.stage, ledger=ledger):
            if isinstance(row, BadRow):
                rejected.append(row)
                found["bad"].append([row.source, row.field, row.reason])
            else:
                found["kept"].append(shortened(texts(row)))
            if meanwhile is not None:
                meanwhile, _ = None, meanwhile(folder)
    except LuthierError as error:
        found["refused"] = str(error)
    found["notes"] += [note for note in ledger.notes if note not in found["notes"]]
    found["converted"] = dict(ledger.converted)
    with tempfile.TemporaryDirectory() as scratch:
        written = formats.write_rejected(Path(scratch) / "rejected.jsonl", rejected)
    if written != len(rejected):
        raise AssertionError(f"{written} of {len(rejected)} bad rows were written")
    return found


def texts(example: Example) -> list[Any]:
    """All that an example says, in order."""
    said: list[Any] = []
    for message in (*example.trunk, *(message for branch in example.branches for message in branch)):
        prefix = f"{message.role}: " if message.role in ("system", "tool") else ""
        said += [prefix + message.content] if message.content or not message.tool_calls else []
        said += [f"call: {call.name} {json.dumps(call.arguments)}" for call in message.tool_calls]
    return said if example.verdict is None else [*said, example.verdict]


def forked(case: Case, folder: Path, name: str) -> dict[str, Any]:
    """The outcome in a process of its own, with what it took."""
    with tempfile.TemporaryFile("w+") as answer:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                confine(case)
                found = outcome(case, folder, name)
                found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
                json.dump(found, answer)
                code = 0
            except BaseException:  # a fault of the loader, whatever it is: the parent reports it
                traceback.print_exc()
                answer.seek(0)
                json.dump({"crash": traceback.format_exc()[-3000:]}, answer)
                code = 0
            finally:
                answer.flush()
                os._exit(code)
        _, status, used = os.wait4(child, 0)
        if status:
            return {"crash": f"ended with status {os.waitstatus_to_exitcode(status)}: killed by a limit"}
        answer.seek(0)
        found = json.load(answer)
    found["seconds"] = used.ru_utime + used.ru_stime
    return dict(found)


def main() -> None:
    from bad_files.corpus import CASES

    for target in (*sources.READERS.values(), *formats.FORMATS.values()):
        importlib.import_module(target.partition(":")[0])
    for line in sys.stdin:
        case, folder, name = json.loads(line)
        print(json.dumps(forked(CASES[case], Path(folder), name)), flush=True)


if __name__ == "__main__":
    main()
