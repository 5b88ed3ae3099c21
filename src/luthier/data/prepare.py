"""From data sets to corpora: read, understand, render, store once, mix, split. Nothing is lost silently."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from luthier.config import Config
from luthier.data import blocks, formats, mix, registry, sources, store
from luthier.data.ledger import Ledger
from luthier.data.render import CUTOFF, Renderer
from luthier.data.sources.json_rows import CUT
from luthier.data.spec import DatasetSpec
from luthier.errors import DataError, RunError
from luthier.runs import atomic, hashing
from luthier.types import BadRow, Example, Rendered, Row

CHUNK = 2048
REJECTED = "rejected.jsonl"
RECIPE = 2
"""Part of every store's name; raise it whenever the same inputs would give other tokens."""


class Examples(Protocol):
    """What training reads: a corpus, or a stream."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Rendered: ...


@dataclass
class Prepared:
    """Corpora ready for the plan.

    evals: name -> what is evaluated on (read by index) · files: path -> sha256 of every data file read.
    """

    train: Examples | None
    evals: dict[str, Examples]
    ledgers: list[Ledger]
    files: dict[str, str] = field(default_factory=dict)
    rejected: list[BadRow] = field(default_factory=list)


@dataclass(frozen=True)
class Tokenised:
    store: store.Store
    ledger: Ledger
    files: dict[str, str]
    rejected: list[BadRow]


def prepare(config: Config, renderer: Renderer, say: Callable[[str], None]) -> Prepared:
    """Training and evaluation corpora of a configuration.

    Raises DataError when a file cannot be read, when more than `bad_rows_limit` of the rows of a data
    set are bad and `on_bad_rows` is "stop", or when nothing is left to train on.
    """
    if config.preprocessing_num_workers:
        # Read by the tokenizers library when it first makes its threads.
        os.environ.setdefault("RAYON_NUM_THREADS", str(config.preprocessing_num_workers))
    done: dict[str, Tokenised] = {}

    def tokenised(names: Sequence[str]) -> list[Tokenised]:
        new = [name for name in names if name not in done]
        found = registry.specs(new, config.dataset_dir, stage=config.stage, hub=hub_of(config))
        for name, spec in zip(new, found, strict=True):
            done[name] = tokenise(config, spec, renderer, say)
        return [done[name] for name in names]

    train_sets = [] if config.streaming else tokenised(config.dataset or ())
    eval_names = list(config.eval_dataset or ())
    train = mixed(config, train_sets) if train_sets else None
    judged = {name: whole(one) for name, one in zip(eval_names, tokenised(eval_names), strict=True)}
    if not config.eval_on_each_dataset and len(judged) > 1:
        judged = {"all": _joined(list(judged.values()))}
    evals: dict[str, Examples] = {**judged}
    if train is not None and config.val_size > 0:
        kept, held = mix.split(len(train), config.val_size, config.seed)
        train, evals = train.take(kept), {"validation": train.take(held)}
    if train is not None and len(train) == 0:
        raise DataError(
            "nothing is left to train on: every row was dropped or held out; see the ledger above"
        )
    sets = done.values()
    return Prepared(
        train,
        evals,
        [t.ledger for t in sets],
        {path: digest for t in sets for path, digest in t.files.items()},
        [bad for t in sets for bad in t.rejected],
    )


def mixed(config: Config, sets: list[Tokenised]) -> store.Corpus:
    """The training corpus: data sets in the order that `mix_strategy` gives."""
    bare = [t.ledger.dataset for t in sets if len(t.store) == 0]
    if bare:
        raise DataError(
            f"{', '.join(bare)}: no row is left to train on; the account above says why -> mend the rows, "
            "raise cutoff_len, or leave the data set out"
        )
    picks = [
        mix.sample(len(t.store), t.store.index["num_samples"], config.seed, config.max_samples) for t in sets
    ]
    chances = config.interleave_probs or None
    order = mix.order([len(p) for p in picks], config.mix_strategy, chances, config.seed)
    index = order.copy()
    for k, pick in enumerate(picks):
        here = order[:, 0] == k
        index[here, 1] = pick[order[here, 1]]
    return store.Corpus(tuple(t.store for t in sets), index)


def whole(one: Tokenised) -> store.Corpus:
    rows = np.arange(len(one.store), dtype=np.int64)
    return store.Corpus((one.store,), np.stack([np.zeros_like(rows), rows], axis=1))


def _joined(corpora: list[store.Corpus]) -> store.Corpus:
    stores: list[store.Store] = []
    parts: list[npt.NDArray[np.int64]] = []
    for corpus in corpora:
        part = corpus.index.copy()
        part[:, 0] += len(stores)
        stores.extend(corpus.stores)
        parts.append(part)
    return store.Corpus(tuple(stores), np.concatenate(parts))


def hub_of(config: Config) -> dict[str, str | None]:
    """How hubs are reached, for the registry."""
    return {"cache_dir": config.cache_dir}


def examples(
    spec: DatasetSpec, stage: str, limit: int | None = None, ledger: Ledger | None = None
) -> Iterator[Example | BadRow]:
    """Rows of a data set as Examples; what cannot be understood as BadRow, in the order of the file."""
    return (meant for _, meant in understood(spec, stage, limit, ledger or Ledger(spec.name)))


def understood(
    spec: DatasetSpec, stage: str, limit: int | None, ledger: Ledger
) -> Iterator[tuple[Row | BadRow, Example | BadRow]]:
    """Each row as it stands in the file, and what it means."""
    for row in sources.read(spec, ledger.notes, limit=limit):
        if isinstance(row, Row):
            try:
                yield row, formats.to_example(row, spec, stage, ledger.converted)
            except formats.RowProblem as problem:
                yield row, BadRow(row.source, problem.field, problem.reason, row.data)
        else:
            yield row, row


def tokenise(config: Config, spec: DatasetSpec, renderer: Renderer, say: Callable[[str], None]) -> Tokenised:
    """The token store of one data set: found by content hash, or written now."""
    files = {str(path): hashing.cached(path) for path in sources.files(spec)}
    limit = config.max_samples if spec.num_samples is None else None
    reading = {k: v for k, v in spec.as_dict().items() if k not in ("name", "where", "location")}
    recipe = {
        "recipe": RECIPE,
        "store": store.VERSION,
        "files": [(Path(path).name, digest) for path, digest in files.items()],
        "reading": reading,
        "renderer": renderer.fingerprint(),
        "stage": config.stage,
        "limit": limit,
        "packing": config.packing is not False if config.stage == "pt" else None,
    }
    digest = hashing.sha256_json(recipe)[:32]
    base = Path(config.tokenized_path) if config.tokenized_path else cache_directory()
    kept = None if config.overwrite_cache or base is None else _kept(base / digest, say)
    if kept is not None:
        found, rejected = kept, _read_rejected(kept.path / REJECTED)
    else:
        found, rejected = _write(config, spec, renderer, _writable(config, base, say) / digest)
    ledger = Ledger.from_dict(found.index["ledger"])
    for line in ledger.lines():
        say(line)
    judge(config, ledger, rejected, found.path / REJECTED)
    return Tokenised(found, ledger, files, rejected)


def _kept(path: Path, say: Callable[[str], None]) -> store.Store | None:
    """The store at `path`; None when there is none, or a damaged one, which is then made again."""
    if not os.path.isdir(path):  # not Path.is_dir, which raises where it may not look
        return None
    try:
        return store.Store.open(path)
    except (store.Damaged, PermissionError) as damage:
        say(f"note: {damage}; made again from the data")
        return None


def cache_directory() -> Path | None:
    """Where token stores live: LUTHIER_CACHE, or the user's cache folder; None where there is none."""
    given = os.environ.get("LUTHIER_CACHE")
    home = Path(given) if given else hashing.cache_directory()
    return None if home is None else home / "tokens"


def _writable(config: Config, base: Path | None, say: Callable[[str], None]) -> Path:
    """`base`, if it was asked for or can be written to; else a folder that goes when this process ends.

    Raises RunError for a tokenized_path that cannot be written to.
    """
    try:
        if base is None:
            raise FileNotFoundError("this user has no home directory")
        base.mkdir(parents=True, exist_ok=True)
        probe = base / ".writable"  # a name of its own: what fails here is not tried again under another
        probe.touch()
        probe.unlink(missing_ok=True)
        return base
    except OSError as error:
        if config.tokenized_path:
            what = f"tokenized_path: {base} cannot be written to ({error.strerror or error})"
            raise RunError(f"{what}; give another folder, or none: the user's cache is used then") from error
        say(f"note: tokens cannot be kept ({error}), so each run makes them: tokenized_path is their folder")
        return _temporary()


@cache
def _temporary() -> Path:
    try:
        folder = Path(tempfile.mkdtemp(prefix="luthier-tokens-"))
    except OSError as error:
        raise RunError(
            f"there is no place for tokens ({error}): give a folder as tokenized_path, or TMPDIR"
        ) from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _write(
    config: Config, spec: DatasetSpec, renderer: Renderer, path: Path
) -> tuple[store.Store, list[BadRow]]:
    ledger, rejected = Ledger(spec.name, notes=list(spec.notes)), list[BadRow]()
    limit = config.max_samples if spec.num_samples is None else None
    rows = examples(spec, config.stage, limit, ledger)
    counted = renderer.counts.copy()
    made = rendered(rows, renderer, ledger, rejected)
    if config.stage == "pt":
        made = blocks.chop(made, config.cutoff_len, config.packing is not False, ledger)
    # A store that another process has finished meanwhile has the same content, and may be in use already.
    other: atomic.Other = "replaced" if path.exists() else "kept"
    with (
        atomic.directory(path, other=other) as folder,
        store.Writer(folder, renderer.vocabulary) as writer,
    ):
        for one in made:
            writer.add(one)
            ledger.examples += 1
        ledger.trained = writer.trained
        ledger.masked = writer.tokens - writer.trained
        ledger.tokens_in = writer.tokens + ledger.cut
        ledger.notes += [f"{what}: {count}" for what, count in (renderer.counts - counted).items()]
        if ledger.rows_in == 0:
            raise DataError(f"{spec.name}: the data set is empty: no row in it; check the file")
        ledger.check()
        formats.write_rejected(folder / REJECTED, rejected)
        writer.finish({"ledger": ledger.as_dict(), "num_samples": spec.num_samples})
    return store.Store.read(path), rejected


def rendered(
    rows: Iterable[Example | BadRow], renderer: Renderer, ledger: Ledger, rejected: list[BadRow]
) -> Iterator[Rendered]:
    """Render in chunks, keeping the account. One row may give several examples (split) or none (dropped)."""
    for bad, results in _ahead(rows, renderer):
        for parts in results:
            if isinstance(parts, BadRow):
                bad.append(parts)
                continue
            if not any(part.trunk.mask.any() or any(b.mask.any() for b in part.branches) for part in parts):
                bad.append(
                    BadRow(parts[0].source, "", "nothing in it is learnt: the weight of every turn is 0")
                )
                continue
            ledger.rows_in += 1
            ledger.kept += 1
            ledger.split_rows += len(parts) > 1
            for part in parts:
                ledger.cut += part.cut
                ledger.cut_rows += part.cut > 0
                yield part
        for one in bad:
            ledger.drop(one)
        rejected.extend(bad)


def _ahead(
    rows: Iterable[Example | BadRow], renderer: Renderer
) -> Iterator[tuple[list[BadRow], list[list[Rendered] | BadRow]]]:
    """Chunks of rows, rendered one chunk ahead in a thread: the tokenizer works (on all cores, outside
    Python's lock) while the next rows are read and the last ones written."""
    iterator = iter(rows)
    with ThreadPoolExecutor(1, "render") as pool:
        waiting: deque[tuple[list[BadRow], Future[list[list[Rendered] | BadRow]]]] = deque()
        while chunk := list(islice(iterator, CHUNK)):
            bad = [row for row in chunk if isinstance(row, BadRow)]
            good = [row for row in chunk if isinstance(row, Example)]
            waiting.append((bad, pool.submit(renderer.examples, good)))
            if len(waiting) > 1:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def judge(config: Config, ledger: Ledger, rejected: list[BadRow], kept_in: Path | None = None) -> None:
    """Stop before the model is loaded when too many rows are bad, or when a file is only a part of itself.

    Nobody knows how many rows a truncated file has lost. kept_in: the file that holds all rejected rows.
    """
    share = ledger.bad / max(ledger.rows_in, 1)
    cut = any(bad.field == CUT for bad in rejected)
    if not rejected or config.on_bad_rows == "skip" or (share <= config.bad_rows_limit and not cut):
        return
    shown = "\n".join(f"  {b.source}{': ' + b.field if b.field else ''}: {b.reason}" for b in rejected[:20])
    more = f"\n  … and {len(rejected) - 20} more" if len(rejected) > 20 else ""
    more += f"\nAll of them are in {kept_in}." if more and kept_in else ""
    raise DataError(
        f"{ledger.dataset}: {ledger.bad} of {ledger.rows_in} rows are bad ({share:.1%}; "
        f"bad_rows_limit is {config.bad_rows_limit:.0%}):\n{shown}{more}\n"
        f"{'Raise cutoff_len' if all(b.field == CUTOFF for b in rejected) else 'Mend these rows'}, "
        "or train without them: on_bad_rows=skip"
    )


def _read_rejected(path: Path) -> list[BadRow]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    records: list[dict[str, Any]] = [json.loads(line) for line in lines if line]
    return [BadRow(r["source"], r["field"], r["reason"], r.get("data")) for r in records]
