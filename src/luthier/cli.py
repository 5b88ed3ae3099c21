"""The command line: a verb, its words, and nothing else. No logic and no heavy import lives here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


@dataclass(frozen=True)
class Verb:
    """handler: "module:function" of a function(words) -> exit status · usage: what follows the verb ·
    keys: it takes configuration keys, so that --help lists them."""

    handler: str
    usage: str
    help: str
    keys: bool = False


VERBS: dict[str, Verb] = {
    "train": Verb("luthier.train.run:main", "CONFIG | RUN", "tune a model on your data", True),
    "chat": Verb("luthier.infer.chat:main", "RUN | CONFIG", "talk to a model", True),
    "predict": Verb(
        "luthier.infer.predict:main", "RUN --dataset NAME", "answer a data set and score it", True
    ),
    "eval": Verb(
        "luthier.evaluate.cli:main", "RUN|MODEL --dataset NAME", "did tuning help, and what did it damage?"
    ),
    "export": Verb("luthier.export.cli:main", "RUN export_dir=DIR", "merge, write, prove a model"),
    "check": Verb("luthier.config.cli:main_check", "CONFIG", "say all that is wrong with a configuration"),
    "keys": Verb("luthier.config.cli:main_keys", "[NAME]", "explain configuration keys"),
    "data": Verb("luthier.prepare.cli:main", "VERB FILE|DATASET", "show, check, clean, split, convert"),
    "runs": Verb("luthier.runs.cli:main", "[RUN ...]", "list, compare, reproduce and resume runs"),
    "demo": Verb("luthier.demo.run:main", "[--out DIR]", "the whole path in small, without network or GPU"),
}
PLAIN = {"version": "print the version", "help": "print this text"}
# Verbs of LLaMA-Factory that are not here, and what to do instead.
ELSEWHERE = {
    "api": "`luthier export`, then serve the exported model with any OpenAI-compatible server",
    "webui": "`luthier demo` for a first look, `luthier train CONFIG` for your own data",
    "webchat": "`luthier chat RUN`",
    "env": "`luthier check CONFIG` says what this machine can do; `luthier version` prints the version",
}


# Verbs of `runs` that train, so they are in a room above that of the runs.
TRAINING = {
    "resume": Verb("luthier.train.run:resume", "RUN", "continue a run as it was started", True),
    "reproduce": Verb("luthier.train.again:main", "RUN", "train a run again: does the same come out?"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit status: 0 done, 1 failed, 2 a wrong request, 128 + N stopped by signal N."""
    _open_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    verb = words.pop(0) if words else "help"
    if verb in ("help", "--help", "-h"):
        print(_usage())
        return 0
    if verb in ("version", "--version", "-V", "-v"):
        from luthier import __version__

        print(f"luthier {__version__}")
        return 0
    if verb not in VERBS:
        print(_unknown(verb), file=sys.stderr)
        return 2
    return _guarded(verb, words)


def _open_streams() -> None:
    """Give a process without the three standard streams empty ones: the next file that it opens would take
    their numbers, and get what libraries print. Letters that stdout cannot express are printed as escapes."""
    import contextlib
    import os

    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        with contextlib.suppress(OSError):  # what it leads to was exchanged since Python opened it
            sys.stdout.reconfigure(errors="backslashreplace")


def _guarded(verb: str, words: list[str]) -> int:
    """Run the handler; an error meant for the user is printed without a traceback."""
    from luthier.errors import LuthierError
    from luthier.train import signals

    _show_warnings()
    try:
        with signals.raised():
            status = _dispatch(verb, words)
            sys.stdout.flush()
    except LuthierError as error:
        several = len(getattr(error, "problems", ())) > 1
        text = "\n  ".join(["", *str(error).splitlines()]) if several else f" {error}"
        _say(f"luthier {verb}:{text}")
        return error.exit_code
    except KeyboardInterrupt as stop:
        _say(f"luthier {verb}: {str(stop) or 'interrupted'}")
        return int(getattr(stop, "exit_code", 130))
    except BrokenPipeError:
        return _closed_pipe()
    except Exception as error:
        return _fault(verb, error)
    return status


def _fault(verb: str, error: Exception) -> int:
    """An error that nobody foresaw: its traceback, without secrets that other libraries put into messages.

    A disk may fail at any reading or writing: that needs no traceback.
    """
    import traceback

    from luthier.redact import redact
    from luthier.runs import atomic

    if atomic.of_disk(error):
        _say(
            redact(f"luthier {verb}: {error}; the disk is full or fails: look after it, then run this again")
        )
        return 1
    _say(redact(traceback.format_exc()) + f"luthier {verb}: this is a fault of the program; please report it")
    return 1


def _say(text: str) -> None:
    """A line on stderr, where there is still somebody to read it: the exit status says the same."""
    import contextlib

    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _show_warnings() -> None:
    """What the rooms warn of goes to stderr, as notes."""
    import logging

    shown = logging.StreamHandler()  # of this call's stderr
    shown.setFormatter(logging.Formatter("note: %(message)s"))
    shown.setLevel(logging.WARNING)
    logging.getLogger("luthier").handlers = [shown]
    logging.setLogRecordFactory(_without_secrets)


def _without_secrets(*args: object, **keywords: object) -> logging.LogRecord:
    """What any library logs: those of the hubs log addresses with the password of a mirror in them."""
    import logging

    from luthier.redact import redact

    record = logging.LogRecord(*args, **keywords)  # type: ignore[arg-type]
    try:
        record.msg, record.args = redact(record.getMessage()), ()
    except (TypeError, ValueError, KeyError):
        record.msg, record.args = "a message that does not fit its own arguments", ()
    return record


def _dispatch(verb: str, words: list[str]) -> int:
    import importlib

    row = VERBS[verb]
    if verb == "runs" and words and words[0] in TRAINING:
        row, words = TRAINING[words[0]], words[1:]
    if row.keys and ("--help" in words or "-h" in words):
        from luthier.config.cli import main_help

        print(f"usage: luthier {verb} {row.usage} [key=value | --key value ...]\n\n{row.help}")
        return main_help(verb)
    module, function = row.handler.split(":")
    return int(getattr(importlib.import_module(module), function)(words))


def _closed_pipe() -> int:
    """The reader went away (`luthier keys | head`): stop quietly, with the signal's status."""
    from luthier.train.screen import let_go

    let_go(sys.stdout)
    return 141


def _usage() -> str:
    rows = [(f"{name} {verb.usage}", verb.help) for name, verb in VERBS.items()] + list(PLAIN.items())
    width = max(len(left) for left, _ in rows)
    table = "\n".join(f"  {left:<{width}}  {right}" for left, right in rows)
    return (
        "luthier: fine-tune language models on your own data\n\n"
        f"usage: luthier VERB ...\n\n{table}\n\n"
        "A CONFIG is a YAML or JSON file with LLaMA-Factory's keys, a RUN the directory of a training;\n"
        "both take key=value and --key value after them. `luthier VERB --help` lists the keys of a verb."
    )


def _unknown(verb: str) -> str:
    if verb in ELSEWHERE:
        return f"luthier: there is no verb {verb}; use {ELSEWHERE[verb]}"
    import difflib

    known = [*VERBS, *PLAIN]
    near = difflib.get_close_matches(verb, known, n=1, cutoff=0.4)
    hint = f"did you mean `luthier {near[0]}`?" if near else f"one of {', '.join(known)}"
    return f"luthier: there is no verb {verb}; {hint}"
