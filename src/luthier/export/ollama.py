"""Ollama, where it is installed: import the file, then ask it what the file was proved on.

`ollama create` is run as a program of its own; prompts go to the server's HTTP API on this machine
(https://docs.ollama.com/api). Without Ollama here, the commands to run elsewhere are told.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import ExportError, UsageError
from luthier.streams import say

if TYPE_CHECKING:
    from luthier.export.cases import Case

PORT = 11434
ASKED = 16
"""Prompts that Ollama answers, evenly from all that the file was proved on."""
LEAST = 0.75
"""Of the answers that llama.cpp gave as trained, the share that Ollama must give, too. It computes with other
settings (flash attention, float16 keys and values), so a few may part; under a wrong template most do."""
_NAME = re.compile(r"(?!-)[\w.-]+(/[\w.-]+){0,2}(:[\w.-]+)?")
_WAIT = 600.0  # seconds for one answer, which includes loading the model
_LARGEST = 1 << 24  # bytes of a reply
_THOUGHT = re.compile(r"</?think>|\s+")


@dataclass(frozen=True)
class Served:
    """What a Modelfile is for.

    modelfile: its path · asked: prompts · answers: the trained model's, as text, of `tokens` tokens at most ·
    share: of them that llama.cpp gave with this file · thinking: enable_thinking, if it is said.
    """

    modelfile: Path
    asked: Sequence[Case]
    answers: Sequence[str]
    tokens: int
    share: float
    thinking: bool | None = None


def check(name: str) -> None:
    """Raise UsageError for what Ollama would not take as a model's name."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"--create {name}: is no name for Ollama -> letters, digits, . _ - and one :tag")


def commands(modelfile: Path, name: str) -> list[str]:
    """What to run by hand."""
    return [
        f"ollama create {shlex.quote(name)} -f {shlex.quote(str(modelfile))}",
        f"ollama run {shlex.quote(name)}",
    ]


def create(name: str, served: Served) -> dict[str, Any]:
    """Import and ask; what came of it, for parity.json: "ok", "created" (whether Ollama has the model now) or
    "why" not, "problems", and how many of the answers "asked" for are the "same"."""
    program, address = shutil.which("ollama"), server(os.environ.get("OLLAMA_HOST", ""))
    found = {"name": name, "created": False, "ok": True, "problems": list[str]()}
    if program is None:
        return {**found, "why": "ollama is not installed here"}
    if address is None:
        return {**found, "why": "OLLAMA_HOST is another machine, which is left to you"}
    try:
        _create(program, name, served.modelfile)
        found["created"] = True
        return {**found, **_compared(name, served, address)}
    except ExportError as error:
        return {**found, "ok": False, "problems": [str(error)]}


def _create(program: str, name: str, modelfile: Path) -> None:
    say(f"ollama create {name}")
    done = subprocess.run(
        [program, "create", name, "-f", modelfile.name],
        cwd=modelfile.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        told = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ExportError(
            f"ollama create {name} failed: {told[-1] if told else f'exit status {done.returncode}'}"
            " (is `ollama serve` running?)"
        )


def server(host: str) -> tuple[str, int] | None:
    """Address and port that OLLAMA_HOST means, None where that is another machine. Raises UsageError."""
    found = re.fullmatch(r"(?:http://)?(\[[^\]]*\]|[^:/\[]*)(?::(\d+))?/?", host.strip())
    if found is None:
        raise UsageError(f"OLLAMA_HOST: {host} is no address -> 127.0.0.1:{PORT}")
    name, port = found[1].strip("[]"), int(found[2] or PORT)
    if name in ("", "localhost", "0.0.0.0", "::"):
        return "127.0.0.1", port
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(name).is_loopback:
            return name, port
    return None


def _compared(name: str, served: Served, address: tuple[str, int]) -> dict[str, Any]:
    """Answers of Ollama beside those of the trained model."""
    plain = [i for i, case in enumerate(served.asked) if not case.tools and not _calls(case)]
    chosen = plain[:: max(1, -(-len(plain) // ASKED))]
    differing = []
    for i in chosen:
        found = _answer(name, served.asked[i], served, address)
        if _words(found) != _words(served.answers[i]):
            differing.append(
                {"source": served.asked[i].source, "trained": served.answers[i], "served": found}
            )
    same = len(chosen) - len(differing)
    needed = LEAST * served.share * len(chosen)
    problems = []
    if same < needed:
        problems.append(
            f"Ollama gives {same} of {len(chosen)} answers as trained, {needed:.0f} were expected:"
            f" `ollama show --template {name}` tells what it writes around a prompt"
        )
    told = _post("/api/show", {"model": name}, address)
    return {
        "asked": len(chosen),
        "same": same,
        "template": str(told.get("template") or ""),
        "differing": differing,
        "problems": problems,
        "ok": not problems,
    }


def _calls(case: Case) -> bool:
    return any(message.tool_calls or message.role == "tool" for message in case.messages)


def _words(text: str) -> str:
    """Without blanks, and without the marks of thinking, which Ollama takes out of the text."""
    return _THOUGHT.sub("", text)


def _answer(name: str, case: Case, served: Served, address: tuple[str, int]) -> str:
    """Greedy, with what was thought before it."""
    body: dict[str, Any] = {
        "model": name,
        "messages": [{"role": message.role, "content": message.content} for message in case.messages],
        "stream": False,
        "options": {"temperature": 0, "top_k": 1, "repeat_penalty": 1, "num_predict": served.tokens},
    }
    if served.thinking is False:
        body["think"] = False
    message = _post("/api/chat", body, address).get("message") or {}
    return f"{message.get('thinking') or ''}{message.get('content') or ''}"


def _post(place: str, body: Mapping[str, Any], address: tuple[str, int]) -> dict[str, Any]:
    connection = http.client.HTTPConnection(*address, timeout=_WAIT)
    with contextlib.closing(connection):
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", place, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            told = json.loads(response.read(_LARGEST))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ExportError(
                f"Ollama at {address[0]}:{address[1]} does not answer {place} ({error}) -> ollama serve"
            ) from error
    if not isinstance(told, dict) or response.status != 200:
        said = told.get("error") if isinstance(told, dict) else told
        raise ExportError(f"Ollama at {address[0]}:{address[1]}, {place}: {response.status} {said}")
    return told
