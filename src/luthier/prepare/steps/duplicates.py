"""Rows that repeat others: of the same data set (deduplication), or of another (leakage)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from luthier.errors import UsageError
from luthier.prepare import exact, shingles
from luthier.prepare import leakage as leaks
from luthier.prepare import near as nearly
from luthier.types import Example, Message

SHORT = 60
"""Characters up to which an answer is compared as a label: equal or another."""
_NOT_REVIEWED = frozenset(["", "0", "0.0", "false", "no", "none", "null", "nan", "否", "未审核"])


@dataclass
class Texts:
    """What rows say, side by side.

    sources: "train.json:17" · inputs: what stands before the answer, without the system prompt · answers:
    what is learnt, and the worse answer of a pair · guards: 16 bytes that copies must share, of the system
    prompt, a short answer, the better one of a pair, the verdict and the tools · reviewed: whether a person
    has looked at the row.
    """

    sources: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    guards: list[bytes] = field(default_factory=list)
    reviewed: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, example: Example, reviewed: object = None) -> None:
        """Take in a row. reviewed: the value of the column that says so, true unless it is empty or "no"."""
        answers = ["\n\n".join(map(_said, branch)) for branch in example.branches]
        answer = "\n\n".join(answers) or example.answer or ""
        systems = [turn.content for turn in example.trunk if turn.role == "system"]
        label = exact.normalise(answers[0] if len(answers) > 1 else answer if len(answer) <= SHORT else "")
        self.sources.append(example.source)
        self.inputs.append("\n\n".join(_said(turn) for turn in example.trunk if turn.role != "system"))
        self.answers.append(answer)
        self.guards.append(exact.key(repr((systems, label, example.verdict, example.tools))))
        self.reviewed.append(str(reviewed or "").strip().lower() not in _NOT_REVIEWED)

    def without(self, sources: Container[str]) -> Texts:
        """The rows that `sources` does not name."""
        kept = [i for i, source in enumerate(self.sources) if source not in sources]
        return Texts(
            [self.sources[i] for i in kept],
            [self.inputs[i] for i in kept],
            [self.answers[i] for i in kept],
            [self.guards[i] for i in kept],
            [self.reviewed[i] for i in kept],
        )


def _said(turn: Message) -> str:
    calls = "\n".join(f"{call.name}({call.arguments})" for call in turn.tool_calls)
    return f"{turn.content}\n{calls}" if calls else turn.content


def deduplication(
    rows: Texts,
    read: Callable[[str], Texts],
    near: bool = True,
    threshold: float = nearly.THRESHOLD,
    reviewed: str = "",
) -> dict[str, str]:
    """Drops rows that say the same as another: equal but for case, width and blanks, or nearly so.

    near=False: equal rows only. threshold: the Jaccard similarity of character 5-grams from which
    long texts are near-duplicates. reviewed: a column that says that a person has looked at the row.

    Pitfall: a threshold that removes what is useful, or keeps what is redundant. So a candidate is verified
    exactly, and one number, name or negation that differs makes two rows different whatever their
    similarity, as does another system prompt, verdict or short answer: the same question with two labels is
    a contradiction for a person to settle, not a copy. Copies are compared with the row that is kept, never
    in a chain; that row is the reviewed one, then the longest, then the first. The ledger names it.
    """
    long = [answer if len(answer) > SHORT else "" for answer in rows.answers]  # guards hold the others
    columns = [column for column in (rows.inputs, long) if any(column)] or [rows.answers]
    kinds = [guard.hex() for guard in rows.guards]
    found = nearly.alike(columns, kinds, threshold if near else None, rows.reviewed)
    return {
        copy.row.source: f"copy of {cluster.keeper.source}"
        if copy.exact
        else f"near-copy of {cluster.keeper.source} (similarity {copy.similarity:.2f})"
        for cluster in nearly.stars(found, rows.sources)
        for copy in cluster.copies
    }


def leakage(
    rows: Texts,
    read: Callable[[str], Texts],
    not_in: str = "",
    threshold: float = nearly.THRESHOLD,
) -> dict[str, str]:
    """Drops rows whose question is, or nearly is, in another data set: not_in=FILE or DATASET.

    Pitfall: a test set that training has seen measures memory. Answers are left out of the comparison,
    since a question that is answered otherwise gives the test away all the same. Rows without a question of
    their own (documents, or "Write a poem." a hundred times with another poem each) are compared whole. The
    training set should lose the rows: dropping them from the test set changes what its score means.
    """
    if not not_in:
        raise UsageError("leakage: with which data set is it compared? -> --not-in FILE")
    other = read(not_in)
    common = _common(rows) | _common(other)
    found = leaks.leaks(_asked(other, common), _asked(rows, common), other.sources, rows.sources, threshold)
    return {
        one.evaluation.source: f"in {one.train.source} (similarity {one.similarity:.2f})" for one in found
    }


def _common(rows: Texts) -> set[bytes]:
    """Keys of questions that more rows have than any question of its own would, answered differently."""
    counts = Counter(map(exact.key, rows.inputs))
    limit = max(shingles.COMMON_ROWS, shingles.COMMON_SHARE * len(rows))
    answers: dict[bytes, set[str]] = {key: set() for key, count in counts.items() if count > limit}
    for question, answer in zip(rows.inputs, rows.answers, strict=True) if answers else ():
        if (key := exact.key(question)) in answers and len(answers[key]) < 2:
            answers[key].add(answer)
    return {key for key, different in answers.items() if len(different) > 1}


def _asked(rows: Texts, common: Container[bytes] = ()) -> list[str]:
    """The questions; the whole row where that is none of its own."""
    pairs = zip(rows.inputs, rows.answers, strict=True)
    if not common:
        return [question or answer for question, answer in pairs]
    return [f"{q}\n\n{a}" if q and exact.key(q) in common else q or a for q, a in pairs]
