"""What stands in single texts: damage, remains of pages, control tokens, gaps, private things, loops.

The texts are read a second time, in processes of their own while the other checks work: each reads the whole
file and looks at its share of the rows, which costs less than handing texts around.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context

from luthier.data.ledger import Ledger
from luthier.data.spec import DatasetSpec
from luthier.prepare import pii, text
from luthier.prepare.checks import Data
from luthier.prepare.opened import Opened
from luthier.prepare.report import Finding, Severity, some
from luthier.prepare.span import Span
from luthier.prepare.steps import placeholders
from luthier.prepare.steps import texts as texts_of
from luthier.types import Example

FEW = 3000
"""Rows up to which one process is faster than starting others."""
SAMPLES, NAMED = 5, 20
CHUNK = 256


@dataclass(frozen=True, slots=True)
class Look:
    """A check of texts. kinds: of the spans that count · step: the cleaning step
    that mends it."""

    find: Callable[[str], list[Span]]
    severity: Severity
    what: str
    step: str = ""
    instead: str = ""
    kinds: frozenset[str] = frozenset()


def _of(*kinds: str) -> frozenset[str]:
    return frozenset(kinds)


LOOKS: dict[str, Look] = {
    "encoding": Look(
        text.encoding,
        "warning",
        "with text that was decoded wrongly (mojibake)",
        "encoding_repair",
        kinds=_of("mojibake"),
    ),
    "lost_characters": Look(
        text.encoding,
        "warning",
        "with characters that were lost when the text was decoded (U+FFFD) and cannot be restored",
        instead="take the text from where it came from",
        kinds=_of("lost"),
    ),
    "control_characters": Look(
        text.encoding,
        "warning",
        "with control characters",
        "unicode_normalization",
        kinds=_of("control_character"),
    ),
    "html": Look(text.markup, "warning", "with remains of HTML", "html_removal"),
    "control_tokens": Look(
        text.special_tokens,
        "warning",
        "with control tokens of chat models as text, which end a turn where nobody meant it",
        instead="write them otherwise",
    ),
    "placeholders": Look(
        text.placeholders,
        "warning",
        "with placeholders that were never filled in, which a model learns to say",
        "placeholder_filling",
    ),
    "secrets": Look(
        pii.find,
        "error",
        "with keys, tokens or passwords",
        "pii_anonymization",
        kinds=_of("secret"),
    ),
    "personal_data": Look(
        pii.find,
        "warning",
        "with personal data",
        "pii_anonymization",
        kinds=frozenset(pii.KINDS) - {"secret"},
    ),
    "repetition": Look(
        text.loops,
        "warning",
        "with the same words again and again",
        "quality_filter",
    ),
}


@dataclass
class Hits:
    """Rows (by position among the good ones) that a check found something in; kinds count rows, too, and
    names the placeholders."""

    rows: list[int] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[int, str, str]] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)

    def add(self, row: int, role: str, spans: Sequence[Span]) -> None:
        if not self.rows or self.rows[-1] != row:
            self.rows.append(row)
        self.kinds.update({span.kind for span in spans})
        if len(self.samples) < SAMPLES:
            pieces = dict.fromkeys(span.shown for span in spans)
            self.samples.append((row, role, ", ".join(list(pieces)[:4])))


def scan(examples: Iterable[tuple[int, Example]], extra: Sequence[str] = ()) -> dict[str, Hits]:
    """What the checks of LOOKS find in numbered examples. extra: control tokens of the model at hand."""
    hits: dict[str, Hits] = {}
    clean: set[str] = set()  # system prompts and instructions that repeat: looked at once
    for i, example in examples:
        for where, role, said in texts_of(example):
            if said in clean or (where == "answer" and example.branches):  # the last turn once more
                continue
            found = _found(said, extra)
            if not found and role == "system":
                clean.add(said)
            for name, spans in found.items():
                one = hits.setdefault(name, Hits())
                one.add(i, role, spans)
                if name == "placeholders":
                    one.names.update(placeholders.name(span, said) for span in spans)
    return hits


def _found(said: str, extra: Sequence[str]) -> dict[str, list[Span]]:
    """check -> its spans in one text. Checks that share a function share its result."""
    spans: dict[Callable[[str], list[Span]], list[Span]] = {}
    found = {}
    for name, look in LOOKS.items():
        if look.find not in spans:
            tokens = name == "control_tokens"
            spans[look.find] = text.special_tokens(said, extra) if tokens else look.find(said)
        mine = [span for span in spans[look.find] if not look.kinds or span.kind in look.kinds]
        if mine:
            found[name] = mine
    return found


def _share(
    spec: DatasetSpec, stage: str, limit: int, extra: Sequence[str], part: int, parts: int
) -> dict[str, Hits]:
    """The hits in every `parts`-th chunk of the first `limit` rows of a data set."""
    rows = Opened(spec, stage, Ledger(spec.name)).rows(limit)
    good = enumerate(meant for _, meant in rows if isinstance(meant, Example))
    return scan(((i, one) for i, one in good if i // CHUNK % parts == part), extra)


def _quiet() -> None:
    """Ctrl-C is for the process that waits for this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def started(data: Data, workers: int | None = None) -> Iterator[Callable[[], dict[str, Hits]]]:
    """Looks at the texts in the background; what is yielded waits for the hits.

    workers: processes; one less than there are cores, at most 4, unless given. 0: no process, but this one.
    """
    extra = control_tokens(data)
    spec, stage, limit = data.table.spec, data.table.stage, data.table.rows
    count = min(4, max(1, (os.cpu_count() or 1) - 1)) if workers is None else workers
    if len(data.table) <= FEW or count == 0:
        yield lambda: _share(spec, stage, limit, extra, 0, 1)
        return
    others = set(active_children())
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_quiet)
    try:
        parts = [pool.submit(_share, spec, stage, limit, extra, k, count) for k in range(count)]
        yield lambda: _joined(parts)
    except BaseException:  # who presses Ctrl-C does not wait until they have read the whole file
        for worker in set(active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


Started = Callable[[Data], AbstractContextManager[Callable[[], dict[str, Hits]]]]


def _joined(parts: Sequence[Future[dict[str, Hits]]]) -> dict[str, Hits]:
    joined: dict[str, Hits] = {}
    for part in parts:
        for name, hits in part.result().items():
            one = joined.setdefault(name, Hits())
            one.rows += hits.rows
            one.kinds += hits.kinds
            one.samples += hits.samples
            one.names += hits.names
    for one in joined.values():
        one.rows.sort()
        one.samples.sort()
    return joined


def control_tokens(data: Data) -> tuple[str, ...]:
    """The special tokens of the model at hand that could not stand in a text by chance."""
    if data.renderer is None:
        return ()
    return tuple(token for token in data.renderer.tokenizer.all_special_tokens if len(token) > 1)


def texts(data: Data) -> Iterator[Finding]:
    """One finding for each row of LOOKS that found anything."""
    with started(data, 0) as wait:
        yield from findings(data, wait())


def findings(data: Data, hits: dict[str, Hits]) -> Iterator[Finding]:
    """What `hits` mean."""
    sources = data.table.sources
    for name, look in LOOKS.items():
        if name not in hits:
            continue
        one = hits[name]
        rows = [sources[i] for i in one.rows]
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in one.kinds.most_common())
        more = f"; the command has the {NAMED} most frequent of {len(one.names):,}" * (len(one.names) > NAMED)
        yield Finding(
            name,
            look.severity,
            f"{some(len(one.rows))} {look.what} ({kinds}{more})",
            rows=rows,
            fix=data.or_leave_out(look.instead, rows)
            if look.instead
            else f"luthier data clean {data.file} --steps {look.step}{_values(name, one)}",
            samples=[f"{sources[i]} {role}: {shown}" for i, role, shown in one.samples[:SAMPLES]],
            figures={"kinds": dict(one.kinds)},
        )


def _values(name: str, hits: Hits) -> str:
    """For placeholders, the option with the names that are to be filled in, the most frequent first."""
    if name != "placeholders":
        return ""
    names = sorted(hits.names, key=lambda one: (-hits.names[one], one))
    return " " + shlex.quote(placeholders.option(names[:NAMED]))
