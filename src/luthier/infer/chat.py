"""`luthier chat`: a conversation with a run or a model, on a terminal, through a pipe, or from Python.

session = chat("saves/my-run")
session.say("你是谁？")
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import LuthierError
from luthier.infer import loading
from luthier.infer.engine import Engine, Generation, TextStream
from luthier.infer.loading import Ready
from luthier.runs import atomic
from luthier.types import Message

if TYPE_CHECKING:
    from luthier.config import Config
    from luthier.data.render import Renderer

WELCOME = (
    "/clear forgets the conversation · /system TEXT · /save FILE · /exit · three quotes open several lines"
)
FENCE = '"""'
LEAVE = {"/exit", "/quit", "exit"}


class Session:
    """A conversation: its history, its system message and how it is decoded.

    What the model wrote is kept as it wrote it, so the next prompt begins with the tokens that the engine
    still holds. system: None leaves it to the template, as in training.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        tokenizer: Any,
        options: Generation,
        system: str | None = None,
        skip_special_tokens: bool = True,
    ) -> None:
        self.history: list[Message] = []
        self.system = system
        self.options = options
        self.about = ""
        self.tools: tuple[Mapping[str, Any], ...] = ()
        self._engine, self._renderer, self._tokenizer = engine, renderer, tokenizer
        self._skip = skip_special_tokens

    @classmethod
    def of(cls, ready: Ready) -> Session:
        """The conversation that a config asks for."""
        config = ready.config
        session = cls(
            ready.engine,
            ready.renderer,
            ready.tokenizer,
            ready.generation(),
            config.system,
            config.skip_special_tokens,
        )
        session.about = ready.about
        return session

    def say(self, text: str) -> str:
        """The whole answer to a message; both become history. Raises ModelError when the context is full."""
        return "".join(self.stream(text))

    def stream(self, text: str) -> Generator[str, None, None]:
        """The answer piece by piece, never splitting a character; a thought that is empty is not shown.

        Closing the iterator stops the answer; what was said so far stays in the history.
        """
        asked = Message("user", text)
        prompt = self._renderer.prompt([*self._opening(), *self.history, asked], self.tools)
        said: list[str] = []
        try:
            yield from _without_empty_thought(self._pieces(prompt, said), self._renderer.template.thought)
        finally:
            if any(said):
                self.history += [asked, Message("assistant", "".join(said))]

    def clear(self) -> None:
        """Forget the conversation; the system message stays."""
        self.history = []

    def save(self, path: str | Path) -> None:
        """Write the conversation as one row of a data set in OpenAI's format. Raises RunError."""
        messages = [{"role": m.role, "content": m.content} for m in (*self._opening(), *self.history)]
        atomic.write_text(
            Path(path), json.dumps([{"messages": messages}], ensure_ascii=False, indent=2) + "\n"
        )

    def _opening(self) -> list[Message]:
        return [Message("system", self.system)] if self.system is not None else []

    def _pieces(self, prompt: list[int], said: list[str]) -> Iterator[str]:
        text = TextStream(self._tokenizer, self._skip, self.options.stop_strings)
        for token in self._engine.stream(prompt, self.options):
            said.append(text.push(token))
            yield said[-1]
            if text.ended:
                return
        said.append(text.close())
        yield said[-1]


def _without_empty_thought(pieces: Iterator[str], thought: tuple[str, str] | None) -> Iterator[str]:
    """Reasoning models that were told, or taught, not to think write an empty thought first: leave it out."""
    if thought is None:
        yield from pieces
        return
    empty, held = "".join("".join(thought).split()), ""
    for piece in pieces:
        held += piece
        if not empty.startswith("".join(held.split())):
            break
    if "".join(held.split()).startswith(empty):
        held = held.partition(thought[1].strip())[2].lstrip()
    yield held
    yield from pieces


def chat(run_or_model: str | Path, **overrides: Any) -> Session:
    """A conversation with a run directory, a model directory, an adapter directory or a model of a hub.

    overrides: any keys of `luthier chat`, such as template="qwen3", temperature=0.2.
    """
    place = str(run_or_model)
    words = [place] if Path(place).exists() else [f"model_name_or_path={place}"]
    for key, value in overrides.items():
        words.append(f"{key}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    return _session(_config(words))


def main(args: Sequence[str]) -> int:
    """`luthier chat RUN`, or LLaMA-Factory's flags. Answers go to stdout, everything else to stderr."""
    config = _config(args)
    _say(*(f"note: {note}" for note in config.notes))
    session = _session(config)
    _say(session.about)
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # input() then has line editing and a history
        _say(WELCOME)
    answer = _answer_as_json if config.format == "json" else _answer
    while (text := _ask(terminal)) is not None:
        if text.strip() in LEAVE:
            break
        try:
            if not _command(session, text):
                answer(session, text.removeprefix("/") if text.startswith("//") else text, terminal)
        except LuthierError as error:
            if not terminal:
                raise
            _say(f"error: {error}")
    return 0


def _config(args: Sequence[str]) -> Config:
    from luthier.config import load as load_config
    from luthier.config import resolve
    from luthier.model import machine

    return resolve(load_config(list(args), "chat"), machine.detect())


def _session(config: Config) -> Session:
    return Session.of(loading.model(config, *loading.text(config, _say)))


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)


# --- what the user types


def _ask(terminal: bool) -> str | None:
    """The next message, perhaps of several lines; None at the end of the input. Ctrl-C drops it."""
    while True:
        try:
            line = _line("\nUser: " if terminal else "")
            if not line.lstrip().startswith(FENCE):
                if line.strip():
                    return line
                continue
            lines = [line.lstrip().removeprefix(FENCE)]
            while not lines[-1].rstrip().endswith(FENCE):
                lines.append(_line("... " if terminal else ""))
            lines[-1] = lines[-1].rstrip().removesuffix(FENCE)
            return "\n".join(lines).strip("\n")
        except EOFError:
            return None
        except UnicodeDecodeError as error:
            _say(f"this is not UTF-8 ({error.reason}): set the terminal's encoding to UTF-8")
        except KeyboardInterrupt:
            if not terminal:
                raise
            _say("", "Ctrl-D or /exit leaves")


def _line(prompt: str) -> str:
    if prompt:
        return input(prompt)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def _command(session: Session, text: str) -> bool:
    """Do what a line that begins with a slash asks for; False for a message ("//" begins one, too)."""
    word, _, rest = text.strip().partition(" ")
    word = "/clear" if text.strip() == "clear" else word
    if word in COMMANDS:
        _say(COMMANDS[word](session, rest.strip()))
        return True
    if word.startswith("/") and word[1:].isalpha():
        _say(f"there is no {word}; {WELCOME}; // begins a message that starts with a slash")
        return True
    return False


def _clear(session: Session, _: str) -> str:
    session.clear()
    return "the conversation is forgotten"


def _system(session: Session, text: str) -> str:
    if not text:
        return (
            f"system message: {session.system if session.system is not None else '(the one of the template)'}"
        )
    session.system = text
    session.clear()
    return "a new system message; the conversation begins again"


def _save(session: Session, name: str) -> str:
    if not name:
        return "/save FILE"
    if Path(name).exists():
        return f"{name} exists already; give another name"
    session.save(name)
    return f"written: {name}"


COMMANDS: dict[str, Callable[[Session, str], str]] = {
    "/clear": _clear,
    "/system": _system,
    "/save": _save,
    "/help": lambda *_: WELCOME,
}


# --- what the model answers


def _answer(session: Session, text: str, terminal: bool) -> None:
    """Print the answer as it is written; Ctrl-C stops the answer, not the program."""
    if terminal:
        print("Assistant: ", end="", flush=True)
    with contextlib.closing(session.stream(text)) as pieces:
        try:
            for piece in pieces:
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            if not terminal:
                raise
            print(" …", end="")
    print(flush=True)


def _answer_as_json(session: Session, text: str, terminal: bool) -> None:
    began = time.perf_counter()
    answer = session.say(text)
    record = {"user": text, "assistant": answer, "seconds": round(time.perf_counter() - began, 3)}
    print(json.dumps(record, ensure_ascii=False), flush=True)
