"""Directories that cannot be written to, and clocks that are wrong."""

from __future__ import annotations

import ctypes
import datetime
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tasks
import tiny
from faults import outcome
from faults.bench import Bench, Done, Trial
from luthier.runs.hashing import sha256_tree

_ROOT_RIGHTS = (1, 2, 3)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
_NEWNS, _PRIVATE, _BIND, _REBIND_READ_ONLY = 0x20000, 16384 | (1 << 18), 4096, 1 | 32 | 4096
_HOMELESS = 54321
"""A user's number that has no entry in /etc/passwd."""
_DAY = 86400


# --- called in the process


def closed(*paths: str) -> None:
    """Take the rights to write from directories, and from root the right not to be asked."""
    for path in paths:
        for folder, _, names in os.walk(path):
            for name in names:
                os.chmod(os.path.join(folder, name), 0o444)
            os.chmod(folder, 0o555)
    _without(_ROOT_RIGHTS)
    _prove(paths)


def read_only(*paths: str) -> None:
    """Mount directories read-only, for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.unshare, _NEWNS)
    _call(libc.mount, b"none", b"/", None, ctypes.c_ulong(_PRIVATE), None)
    for path in paths:
        name = os.fsencode(path)
        _call(libc.mount, name, name, None, ctypes.c_ulong(_BIND), None)
        _call(libc.mount, None, name, None, ctypes.c_ulong(_REBIND_READ_ONLY), None)
    _prove(paths)


def _prove(paths: Sequence[str]) -> None:
    """Nothing can be written there, or the experiment would show nothing."""
    for path in paths:
        try:
            Path(path, "proof").touch()
        except OSError:
            continue
        raise AssertionError(f"{path} can be written to")


def only(*writable: str) -> None:
    """A container with a read-only file system, but for some directories."""
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.unshare, _NEWNS)
    _call(libc.mount, b"none", b"/", None, ctypes.c_ulong(_PRIVATE), None)
    for path in writable:
        name = os.fsencode(path)
        _call(libc.mount, name, name, None, ctypes.c_ulong(_BIND), None)
    tempfile.tempdir = None  # what was found before is found anew
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        mounted = [line.split()[1] for line in mounts]
    for place in {"/", *(m for m in mounted if any(w.startswith(m + "/") for w in writable))}:
        _call(libc.mount, None, place.encode(), None, ctypes.c_ulong(_REBIND_READ_ONLY), None)
    _prove(["/", os.path.dirname(writable[0])])


def stranger() -> None:
    """Become a user whom the system does not know, who may read everything."""
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.prctl, 8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setgid(_HOMELESS)
    os.setuid(_HOMELESS)
    _without((1, 3), keep=1 << 2)


def _without(rights: tuple[int, ...], keep: int = -1) -> None:
    """Give up capabilities; of the others only those of `keep` stay."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; low words, then high words
    _call(libc.capget, header, sets)
    mask = keep & ~sum(1 << right for right in rights) & 0xFFFFFFFF
    sets[1] &= mask
    sets[0], sets[2] = sets[1], 0
    _call(libc.capset, header, sets)


def _call(function: Any, *args: Any) -> None:
    if function(*args):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), function.__name__)


def shift_clock(seconds: float) -> None:
    """Let the clock on the wall be wrong; the one that measures durations never is."""
    now = time.time
    time.time = lambda: now() + seconds
    later = datetime.timedelta(seconds=seconds)

    class Moment(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz) + later

    class Day(datetime.date):
        @classmethod
        def today(cls) -> Any:
            return super().today() + later

    for module in [m for name, m in sys.modules.items() if name.startswith("luthier.")]:
        for name, new in (("datetime", Moment), ("date", Day)):
            if getattr(module, name, None) in (datetime.datetime, datetime.date):
                setattr(module, name, new)


# --- directories


@dataclass(frozen=True)
class Shop:
    """What is trained in every trial, and the run that nobody disturbed. lock: `closed` or `read_only`."""

    bench: Bench
    settings: dict[str, Any]
    clean: Path
    lock: Callable[..., None]

    def place(self) -> tuple[Path, dict[str, Any]]:
        """A fresh folder with model, data and the user's home in it, and the settings to train there."""
        folder = self.bench.folder()
        shutil.copytree(self.settings["model_name_or_path"], folder / "base")
        shutil.copytree(self.settings["dataset_dir"], folder / "data")
        for name in ("home", "tmp"):
            (folder / name).mkdir()
        here = {"model_name_or_path": "base", "dataset_dir": "data", "output_dir": "run"}
        return folder, {**self.settings, **here, "tokenized_path": "tokens"}

    def run(self, folder: Path, words: list[str], locked: list[str], home: bool = True) -> Done:
        """Run it with only the caches of its own home, and some places locked."""
        env: dict[str, str | None] = {"LUTHIER_CACHE": None, "XDG_CACHE_HOME": None, "HF_HOME": None}
        env |= {"HOME": str(folder / "home") if home else None, "TMPDIR": str(folder / "tmp")}
        places = [str(folder / name) for name in locked]
        return self.bench.luthier(words, cwd=folder, env=env, before=self.lock, args=places)

    def equal(self, done: Done, run: Path) -> str:
        return outcome.ended(done, 0) or outcome.differs(run, self.clean)


def _words(settings: Mapping[str, Any], without: str = "") -> list[str]:
    return ["train", *tasks.words({key: value for key, value in settings.items() if key != without})]


def _only_read(shop: Shop, names: list[str], default_cache: bool = False) -> str:
    """What is only read need not be written to; nor does the home directory."""
    folder, settings = shop.place()
    done = shop.run(folder, _words(settings, "tokenized_path" if default_cache else ""), names)
    return shop.equal(done, folder / "run") or (_not_kept(done) if default_cache else "")


def _not_kept(done: Done) -> str:
    return "" if "tokenized_path is their folder" in done.err else "does not say that tokens are not kept"


def _tokens_there(shop: Shop) -> str:
    folder, settings = shop.place()
    done = shop.run(folder, _words({**settings, "output_dir": "first"}), [])
    problem = shop.equal(done, folder / "first")
    return problem or shop.equal(shop.run(folder, _words(settings), ["tokens"]), folder / "run")


def _refused(shop: Shop, name: str, key: str) -> str:
    """What must be written to and cannot: named with what to do, and nothing begun."""
    folder, settings = shop.place()
    (folder / name).mkdir(exist_ok=True)
    asked = {**settings, key: f"{name}/deeper" if name == "parent" else name}
    before = _tree(folder)
    done = shop.run(folder, _words(asked), [name])
    problem = outcome.ended(done, 1)
    named = key in done.err or str(asked[key]) in done.err
    if not problem and not (named and ("another" in done.err or "choose" in done.err)):
        problem = f"does not name {key} and what to do: {done.err[-400:]}"
    return problem or ("" if _tree(folder) == before else "something was written")


def _interrupted(shop: Shop) -> str:
    """A run that was killed, in a directory that has become read-only since: as it was, and usable later."""
    folder, settings = shop.place()
    child = shop.bench.start(_words(settings), cwd=folder)
    for line in child.lines():
        if "checkpoint 4 durable" in line:
            child.send(9)
    child.finish()
    before = sha256_tree(folder / "run")
    done = shop.run(folder, _words(settings), ["run"])
    problem = outcome.ended(done, 1)
    if not problem and sha256_tree(folder / "run") != before:
        problem = "the run has changed"
    for path in (folder / "run", *(folder / "run").rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return problem or shop.equal(shop.run(folder, _words(settings), []), folder / "run")


def _looked_at(shop: Shop, words: list[str], needs: str) -> str:
    """A finished run that is only read: predict, export, show, list."""
    folder, settings = shop.place()
    first = shop.run(folder, _words(settings), [])
    done = shop.run(folder, words, ["run"])
    problem = outcome.ended(first, 0) or outcome.ended(done, 0)
    return problem or ("" if not needs or (folder / needs).is_file() else f"{needs} is missing")


def _export(shop: Shop) -> str:
    folder, _ = shop.place()
    (folder / "out").mkdir()
    done = shop.run(folder, ["export", str(shop.clean), "export_dir=out/merged"], ["out"])
    problem = outcome.ended(done, 1)
    if not problem and str(folder / "out" / "merged") not in done.err:
        problem = f"does not name the place: {done.err[-300:]}"
    return problem or ("" if not any((folder / "out").iterdir()) else "something was written")


def _container(shop: Shop) -> str:
    """Everything is read-only but the run's directory and one for temporary files."""
    folder, settings = shop.place()
    (folder / "run").mkdir()
    done = replace(shop, lock=only).run(folder, _words(settings, "tokenized_path"), ["run", "tmp"])
    return shop.equal(done, folder / "run") or _not_kept(done)


def _stranger(shop: Shop) -> str:
    """A user without a name and a home, as containers have them."""
    folder, settings = shop.place()
    for path in (folder, folder / "tmp"):
        path.chmod(0o777)
    done = replace(shop, lock=stranger).run(folder, _words(settings, "tokenized_path"), [], home=False)
    return shop.equal(done, folder / "run") or _not_kept(done)


def readonly(bench: Bench, count: int) -> Iterator[Trial]:
    """Places that cannot be written to, by mode or by mount: it fails only where writing is needed."""
    folder = bench.folder()
    settings = tasks.make(folder, save_steps=2, output_dir=str(folder / "clean"))
    done = bench.luthier(_words(settings))
    assert done.code == 0, done.err
    shop = Shop(bench, settings, folder / "clean", closed)
    mounts = bench.luthier(["version"], before=read_only, args=[str(folder)]).code == 0
    cases = [(f"{what}, by its mode", partial(case, shop)) for what, case in _CASES.items()]
    if mounts:
        mounted = replace(shop, lock=read_only)
        cases += [(f"{what}, by its mount", partial(case, mounted)) for what, case in _CASES.items()]
        cases.append(("all but the run's directory", partial(_container, shop)))
    if os.getuid() == 0:
        cases.append(("a user without a home", partial(_stranger, shop)))
    for what, case in cases if count > len(_CASES) else bench.random.sample(cases, count):
        yield Trial(what, case())


_CASES: dict[str, Callable[[Shop], str]] = {
    "the model": partial(_only_read, names=["base"]),
    "the data": partial(_only_read, names=["data"]),
    "the home directory": partial(_only_read, names=["home"]),
    "the home directory, which would keep tokens": partial(_only_read, names=["home"], default_cache=True),
    "model, data and home": partial(_only_read, names=["base", "data", "home"], default_cache=True),
    "the directory for temporary files": partial(_only_read, names=["tmp"]),
    "tokens that are there": _tokens_there,
    "tokenized_path": partial(_refused, name="tokens", key="tokenized_path"),
    "what tokenized_path lies in": partial(_refused, name="parent", key="tokenized_path"),
    "output_dir": partial(_refused, name="run", key="output_dir"),
    "what output_dir lies in": partial(_refused, name="parent", key="output_dir"),
    "an interrupted run": _interrupted,
    "a run to predict with": partial(
        _looked_at,
        words=["predict", "run", "--dataset", "intent", "output_dir=answers", "max_new_tokens=2"],
        needs="answers/generated_predictions.jsonl",
    ),
    "a run to export": partial(_looked_at, words=["export", "run", "export_dir=m"], needs="m/export.json"),
    "a run to look at": partial(_looked_at, words=["runs", "show", "run"], needs=""),
    "runs to list": partial(_looked_at, words=["runs", "."], needs=""),
    "what export_dir lies in": _export,
}


def _tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "home" not in path.parts)


# --- clocks

DATED = """{{ '<|im_start|>system\nToday is ' + strftime_now('%d %B %Y') + '<|im_end|>\n' }}"""


def clock(bench: Bench, count: int) -> Iterator[Trial]:
    """Killed, then continued years before or after, with files stamped anyhow: from the highest step."""
    shop = bench.folder()
    plain = tasks.make(shop, save_steps=1)
    (shop / "dated.jinja").write_text(DATED + tiny.CHATML)
    for k in range(count):
        settings = {**plain, "template": str(shop / "dated.jinja")} if k % 2 else plain
        clean = {**settings, "output_dir": str(shop / f"clean-{k % 2}")}
        if k < 2:
            done = bench.luthier(_words(clean))
            assert done.code == 0, done.err
        days = bench.random.choice((-1, 1)) * bench.random.choice((0.5, 1, 40, 4000))
        what = f"{days:+} days{', a template that writes the date' * (k % 2)}"
        yield Trial(what, _shifted(bench, settings, Path(clean["output_dir"]), days * _DAY))


def _shifted(bench: Bench, settings: dict[str, Any], clean: Path, seconds: float) -> str:
    run = bench.folder() / "run"
    words = _words({**settings, "output_dir": str(run)})
    child, step = bench.start(words), bench.random.randint(2, 6)
    for line in child.lines():
        if f"checkpoint {step} durable" in line:
            child.send(9)
    saved = max(outcome.acknowledged(child.finish().err))
    for path in run.rglob("*"):
        moment = time.time() + seconds * bench.random.uniform(-1, 1)
        os.utime(path, (moment, moment))
    done = bench.luthier(words, before=shift_clock, args=[seconds])
    problem = outcome.ended(done, 0) or outcome.differs(run, clean)
    went_on = outcome.continued(done.err)
    if not problem and went_on < saved:
        problem = f"went on from step {went_on}, though {saved} was durable"
    return problem or outcome.left_over(run)
