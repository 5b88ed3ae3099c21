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
    texts = [f"{a}\n\n{b}" if a else b for a, b in zip(rows.inputs, rows.answers, strict=True)]

    def rank(i: int) -> tuple[bool, int, int]:
        return not rows.reviewed[i], -len(texts[i]), i

    same: dict[tuple[bytes, bytes], list[int]] = {}
    for i, text in enumerate(texts):
        same.setdefault((exact.key(text), rows.guards[i]), []).append(i)
    gone: dict[str, str] = {}
    for group in same.values():
        keeper, *copies = sorted(group, key=rank)
        gone |= {rows.sources[i]: f"copy of {rows.sources[keeper]}" for i in copies}
    return gone | (_near_copies(rows.without(gone), threshold) if near else {})


def _near_copies(rows: Texts, threshold: float) -> dict[str, str]:
    """Rows whose question is nearly another's, and whose answer is so too.

    Questions and answers are compared apart: a long answer that many questions share would hide that they
    differ. Where the guards hold the answer, they have compared it already.
    """
    gone: dict[str, str] = {}
    asked = _asked(rows)
    for cluster in nearly.clusters(asked, reviewed=rows.reviewed, threshold=threshold):
        alike: dict[bytes, list[int]] = {}
        for ref in (cluster.keeper, *(copy.row for copy in cluster.copies)):
            alike.setdefault(rows.guards[ref.index], []).append(ref.index)
        for group in alike.values():
            answered = [rows.answers[i] for i in group]
            reviewed = [rows.reviewed[i] for i in group]
            for inner in nearly.clusters(answered, reviewed=reviewed, threshold=threshold):
                keeper = group[inner.keeper.index]
                for copy in inner.copies:
                    i = group[copy.row.index]
                    value = _similarity(asked[i], asked[keeper], threshold)
                    if value:
                        gone[rows.sources[i]] = (
                            f"near-copy of {rows.sources[keeper]} (similarity {value:.2f})"
                        )
    return gone


def _similarity(one: str, other: str, threshold: float) -> float:
    """Of two texts; 0.0 when they are no near-duplicates. Two copies need not be alike: each is like the row
    in their middle."""
    if exact.key(one) == exact.key(other):
        return 1.0
    return max((pair.similarity for pair in nearly.pairs([one, other], threshold)), default=0.0)


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
