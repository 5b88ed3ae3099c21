"""One bit turned, anywhere in what a run keeps: found before anything of it is used."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import tasks
from faults import prepared
from faults.bench import Bench, Trial
from luthier.data.store import Damaged, Store
from luthier.errors import RunError
from luthier.runs import Run, log, seal


def flips(bench: Bench, count: int) -> Iterator[Trial]:
    """`count` random bits of every file of a checkpoint, a result, a token store and a log, one at a time.

    Then through the command, a file at a time (of each kind at most half of `count`): training goes on from
    the older whole checkpoint, makes the store again, leaves the log's line out, and ends with the clean
    run's weights; export refuses a result.
    """
    folder = bench.folder()
    half = prepared.half(bench, folder, step=6, lora_dropout=0.1)
    newest = half.run / "checkpoint-6"
    store = next(path for path in (folder / "tokens").iterdir() if path.is_dir())
    result = [half.whole / n for n in (seal.CHECKSUMS, *seal.read(half.whole / seal.CHECKSUMS)["files"])]
    places: list[tuple[str, list[Path], Callable[[Path], bool]]] = [
        ("checkpoint", files(newest), lambda file: bool(seal.verify(file.parent))),
        ("adapter", result, lambda file: raises(RunError, lambda: seal.check(file.parent))),
        ("store", files(store), lambda file: raises(Damaged, lambda: Store.open(file.parent))),
        ("log", [half.whole / log.NAME], _log_is_noticed(half.whole)),
        (
            "marker",
            [half.whole / seal.MARKER],
            lambda file: raises(RunError, lambda: Run(file.parent).marker),
        ),
    ]
    for place, names, noticed in places:
        for file in names:
            yield from _in_file(bench, count, place, file, noticed)
    most = max(1, count // 2)
    yield from _checkpoints_through_the_command(bench, half, newest, most)
    yield from _store_through_the_command(bench, half, store, most)
    yield from _log_through_the_command(bench, half)
    yield from _results_through_the_command(bench, half, some(bench, result, most))


def files(folder: Path) -> list[Path]:
    """The folder's files that have a bit to turn."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.stat().st_size)


def some(bench: Bench, names: list[Path], most: int) -> list[Path]:
    return names if len(names) <= most else bench.random.sample(names, most)


def raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def turn(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def _in_file(
    bench: Bench, count: int, place: str, file: Path, noticed: Callable[[Path], bool]
) -> Iterator[Trial]:
    whole = file.read_bytes()
    if noticed(file):
        yield Trial(f"{place}: {file.name}", "is taken for damaged although it is whole")
    for _ in range(count):
        bit = bench.random.randrange(8 * len(whole))
        turn(file, bit)
        found = noticed(file)
        file.write_bytes(whole)
        yield Trial(f"{place}: bit {bit} of {file.name}", "" if found else "not noticed", {place: 1})


def _log_is_noticed(run: Path) -> Callable[[Path], bool]:
    """Damage is named, or the last line without its end passed over as one that is still being written."""
    records = log.read(run)

    def noticed(file: Path) -> bool:
        found = log.look(run)
        sound = all(record in records for record in found.records)
        return sound and (bool(found.damaged) or (bool(found.rest) and len(found.records) < len(records)))

    return noticed


def _judged(half: prepared.Half, place: Path, done: object, said: str) -> str:
    code, err = getattr(done, "code", None), str(getattr(done, "err", ""))
    if code != 0:
        return f"exit {code}: {err[-500:]}"
    if said not in err:
        return f"{said!r} was not said: {err[-500:]}"
    return half.differs(place)


def _checkpoints_through_the_command(
    bench: Bench, half: prepared.Half, newest: Path, most: int
) -> Iterator[Trial]:
    for file in some(bench, files(newest), most):
        place, words = half.copy(f"flip-{newest.name}-{file.name}")
        broken = place / newest.name / file.name
        turn(broken, bench.random.randrange(8 * broken.stat().st_size))
        done = bench.luthier(["train", *words])
        said = f"{place / newest.name} is damaged and passed over"
        problem = _judged(half, place, done, said)
        if f"continuing from {place / 'checkpoint-4'} (step 4)" not in done.err:
            problem = problem or "did not continue from the older whole checkpoint"
        yield Trial(f"train with a bit of checkpoint-6/{file.name} turned", problem, {"command": 1})


def _store_through_the_command(bench: Bench, half: prepared.Half, store: Path, most: int) -> Iterator[Trial]:
    for file in some(bench, files(store), most):
        place, words = half.copy(f"flip-store-{file.name}")
        turn(file, bench.random.randrange(8 * file.stat().st_size))
        done = bench.luthier(["train", *words])
        problem = _judged(half, place, done, f"note: {store}: the token store is damaged")
        yield Trial(f"train with a bit of the store's {file.name} turned", problem, {"command": 1})


def _log_through_the_command(bench: Bench, half: prepared.Half) -> Iterator[Trial]:
    place, words = half.copy("flip-log")
    file = place / log.NAME
    turn(file, 8 * 40)
    done = bench.luthier(["train", *words])
    problem = _judged(half, place, done, f"{file}:1: damaged and left out")
    if not (place / "trainer_log.damaged-1.jsonl").is_file():
        problem = problem or "the damaged log was not kept"
    steps = [record["current_steps"] for record in log.read(place)]
    if steps != [2, 3, 4, 5, 6, 7, 8]:
        problem = problem or f"the log has the steps {steps}"
    yield Trial("train with a bit of the log turned", problem, {"command": 1})


def _results_through_the_command(bench: Bench, half: prepared.Half, result: list[Path]) -> Iterator[Trial]:
    for file in result:
        place = half.whole.with_name(f"flip-result-{file.name}")
        shutil.copytree(half.whole, place)
        turn(place / file.name, bench.random.randrange(8 * file.stat().st_size))
        out = place.with_name(f"{place.name}-out")
        done = bench.luthier(["export", str(place), *tasks.words({"export_dir": str(out)})])
        problem = "" if done.code == 1 else f"exit {done.code}"
        if f"{place}: not used, because" not in done.err or "Traceback" in done.err:
            problem = problem or f"the message is {done.err[-500:]}"
        if out.exists():
            problem = problem or "something was exported"
        yield Trial(f"export with a bit of {file.name} turned", problem, {"command": 1})
