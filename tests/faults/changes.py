from collections.abc import Iterator
from faults.bench import Bench, Trial
import tasks


def changes(bench: Bench, count: int) -> Iterator[Trial]:
    folder = bench.folder()
    settings = tasks.make(folder)
    for k in range(count):
        done = bench.luthier(["train", *tasks.words({**settings, "output_dir": str(folder / f"run{k}")})])
        print(done.code, done.seconds, done.err[-300:])
        yield Trial(f"x {k}", "" if done.code == 0 else done.err)
