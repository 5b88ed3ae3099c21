"""A language model as judge of free text: which of two answers is better, or how good one is.

Both answers are compared blind and in both orders, because judges favour a position; a win counts only where
both orders agree (Zheng et al., 2023, arXiv 2306.05685). How often they agree is told beside the win rate, so
that nobody trusts a judge that tosses coins. Where only one system was asked, its answers are graded 1 to 5.

Rows are sent to a server of the user's choosing, which may fail in any way: then rows have no verdict, notes
say why, and the evaluation goes on. Every verdict is kept as it comes and not asked for again.
"""

from __future__ import annotations

import json
import queue
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from luthier.errors import UsageError
from luthier.evaluate import judgement, verdicts
from luthier.evaluate.answers import Progress
from luthier.evaluate.judgement import Judged
from luthier.evaluate.notes import Note, note
from luthier.evaluate.slices import HAN, script
from luthier.evaluate.verdicts import Language, Texts, Verdict
from luthier.infer import endpoint
from luthier.infer.endpoint import Endpoint, Failed
from luthier.infer.questions import Say
from luthier.redact import redact
from luthier.runs import atomic, hashing

if TYPE_CHECKING:
    from luthier.evaluate.plan import Request
    from luthier.evaluate.results import Detail, Heard

FILE = "judge.jsonl"
THREADS = 4
MOST_FAILURES = 5  # questions in a row without an answer, each after its tries, and the judge is given up
_EXCERPT = 500  # characters of a reply without verdict that are kept

First = Literal["before", "after"]


@dataclass(frozen=True)
class Question:
    """row: place in the set · first: whose answer is A (or is graded)."""

    row: int
    source: str
    first: First
    texts: Texts
    language: Language

    @property
    def messages(self) -> list[dict[str, str]]:
        return verdicts.messages(self.texts, self.language)

    def fingerprint(self, model: str) -> str:
        """Of all that decides the verdict."""
        return hashing.sha256_json([model, self.messages])[:32]


@dataclass
class Judge:
    """Who judges, and how many rows of which kinds of tasks. gone: why it was given up, "" if it was not."""

    endpoint: Endpoint
    rows: int
    kinds: Sequence[str]
    seed: int
    say: Say
    gone: str = ""
    _failures: int = field(default=0, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def told(self, folder: Path) -> Detail:
        """What is told of a set: `judge`, with all verdicts kept in the folder."""
        return lambda heard: self._details(heard, folder / FILE)

    def _details(self, heard: Heard, path: Path) -> dict[str, Any]:
        kind = heard.one.task.kind
        if kind not in self.kinds and "all" not in self.kinds:
            return {"notes": [note("judge_not_asked", kind=kind)]}
        rows = _sample(len(heard.one.rows), self.rows, f"{self.seed} {heard.one.name}")
        questions = _questions(heard, rows)
        found = Judged(self.endpoint.model, rows, len(heard.written) == 2)
        self._ask(heard.one.name, questions, _Kept(path), found)
        details = judgement.details(found, heard)
        details["server"] = self.endpoint.server
        details["notes"] = [*self._notes(questions), *details["notes"]]
        return {"judge": details}

    def _notes(self, questions: Sequence[Question]) -> list[Note]:
        shortened = len({one.row for one in questions if one.texts.shortened})
        return [
            *([note("judge_given_up", why=self.gone)] if self.gone else []),
            *([note("judge_shortened", rows=shortened, most=verdicts.LONGEST)] if shortened else []),
            *(
                [note("judge_settings", names=", ".join(sorted(left)))]
                if (left := self.endpoint.left_out)
                else []
            ),
        ]

    def _ask(self, name: str, questions: Sequence[Question], kept: _Kept, found: Judged) -> None:
        """Fill `found` with verdicts, first with those that are kept."""
        todo = []
        for one in questions:
            known = kept.verdict(one.fingerprint(self.endpoint.model))
            if known is None:
                todo.append(one)
            else:
                found.add(one.row, one.first, known)
        if len(todo) < len(questions):
            self.say(f"{name}: {len(questions) - len(todo)} of {len(questions)} verdicts are there already")
        if todo and not self.gone:
            self.say(f"{name}: {len(todo)} questions to the judge")
        progress = Progress(f"{name}: judge", len(todo), self.say)
        for one, reply in self._replies(todo):
            progress.advance(1)
            if isinstance(reply, Failed):
                found.failed(one.row, str(reply))
                continue
            verdict = verdicts.read(reply, one.texts.form)
            kept.add(name, one, self.endpoint.model, verdict, reply)
            found.add(one.row, one.first, verdict)

    def _replies(self, questions: Sequence[Question]) -> Iterator[tuple[Question, str | Failed]]:
        """Each question with its reply, as they come, until the judge is given up.

        Daemons, not a pool: whoever presses Ctrl-C does not wait for a server that does not answer.
        """
        todo: queue.SimpleQueue[Question] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[Question, str | BaseException]] = queue.SimpleQueue()
        for one in questions:
            todo.put(one)
        for _ in range(min(THREADS, len(questions))):
            threading.Thread(target=self._work, args=(todo, done), daemon=True).start()
        for _ in questions:
            one, reply = done.get()
            if isinstance(reply, BaseException) and not isinstance(reply, Failed):
                raise reply
            yield one, reply

    def _work(self, todo: queue.SimpleQueue[Question], done: queue.SimpleQueue[Any]) -> None:
        while True:
            try:
                one = todo.get_nowait()
            except queue.Empty:
                return
            reply: str | BaseException
            try:
                reply = Failed(self.gone) if self.gone else self.endpoint.chat(one.messages)
            except BaseException as error:  # the main thread raises what is no failure of the server
                reply = error
            with self._lock:
                self._watch(reply)
            done.put((one, reply))

    def _watch(self, reply: str | BaseException) -> None:
        if not isinstance(reply, Failed):
            self._failures = 0
        elif not self.gone:
            self._failures += 1
            if reply.lasting or self._failures >= MOST_FAILURES:
                self.gone = str(reply)
                self.say(f"the judge is given up: {self.gone}")


def judge(request: Request, seed: int, say: Say) -> Judge | None:
    """The judge that a request names, None where it names none; says once what will be sent where.

    Raises UsageError for an address that is none and for a judge without a model.
    """
    if request.judge is None:
        if request.judge_model is not None:
            raise UsageError("--judge_model: of which server? -> --judge http://localhost:11434/v1, too")
        return None
    if not request.judge_model:
        raise UsageError("--judge: needs the name of a model of that server -> --judge_model NAME")
    name, key = endpoint.key()
    server = Endpoint(request.judge, request.judge_model, key)
    say(
        f"judge: questions, reference answers and answers of up to {request.judge_rows} rows of each data set"
        f" are sent to {server.server} (model {request.judge_model})"
        + (f", with the key of ${name}" if key else ", without a key")
        + ("" if server.private else ", over a connection that others can read")
    )
    return Judge(server, request.judge_rows, request.judge_kinds, seed, say)


def _sample(n: int, most: int, seed: str) -> list[int]:
    """The places of the rows that are judged, in order; the same for the same seed."""
    return sorted(random.Random(seed).sample(range(n), min(n, most)))


def _questions(heard: Heard, rows: Sequence[int]) -> list[Question]:
    """What the judge is asked: nothing where both answers are the same, else each row in both orders."""
    asked = []
    for i in rows:
        answers = {side: said.answers[i] for side, said in heard.written.items()}
        if len(answers) == 2 and len({text.strip() for text in answers.values()}) == 1:
            continue
        question, reference = heard.one.rows[i].question, heard.one.references[i]
        language: Language = "zh" if script(question + reference) == HAN else "en"
        for first in answers:
            second = next((text for side, text in answers.items() if side != first), None)
            texts = Texts(question, reference, answers[first], second)
            asked.append(Question(i, heard.one.questions[i].source, first, texts, language))  # type: ignore[arg-type]
    return asked


class _Kept:
    """The verdicts in one file, by fingerprint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._verdicts: dict[str, Verdict] = {}
        text = path.read_text("utf-8", "replace") if path.is_file() else ""
        for line in text.splitlines():
            self._take(line)
        if text and not text.endswith("\n"):  # it was killed while it wrote the last line
            atomic.write_text(path, "".join(line + "\n" for line in text.splitlines()[:-1]))

    def verdict(self, fingerprint: str) -> Verdict | None:
        return self._verdicts.get(fingerprint)

    def add(self, task: str, one: Question, model: str, verdict: Verdict | None, reply: str) -> None:
        """Keep it, on the disk too; a reply without a verdict is there to be read, and is asked for again."""
        said: Mapping[str, Any] = (
            {"value": verdict.value, "reason": redact(verdict.reason)}
            if verdict
            else {"value": None, "reply": redact(reply[-_EXCERPT:])}
        )
        record = {"task": task, "fingerprint": one.fingerprint(model), "row": one.row, "source": one.source}
        line = json.dumps({**record, "first": one.first, "model": model, **said}, ensure_ascii=False) + "\n"
        with atomic.explained(self.path), open(self.path, "ab") as file:
            file.write(line.encode("utf-8", "backslashreplace"))

    def _take(self, line: str) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            return
        if isinstance(record, dict) and isinstance(record.get("value"), str):
            self._verdicts[str(record.get("fingerprint"))] = Verdict(
                record["value"], str(record.get("reason", ""))
            )
