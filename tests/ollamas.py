"""A program that stands for Ollama: `ollama create` on the PATH, and a server with what is asked of its API.

    with ollamas.running(folder) as there:      # there.environment: PATH and OLLAMA_HOST
        ...
        there.models["tuned:v1"]                # the commands of its Modelfile, as Ollama's parser reads them

It opens the GGUF file with llama.cpp, and renders the TEMPLATE where there is one, else the file's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from luthier.export import derived, gotemplate
from luthier.infer.engine import Generation
from luthier.infer.llama_cpp import LlamaCpp
from luthier.types import Message

COMMANDS = ("from", "license", "template", "system", "adapter", "parameter", "message", "requires")
PROGRAM = """# ollama create NAME -f FILE
import json, os, sys, urllib.error, urllib.request
_, verb, name, flag, file = sys.argv
assert (verb, flag) == ("create", "-f")
body = {"model": name, "folder": os.getcwd(), "file": file}
try:
    urllib.request.urlopen(f"http://{os.environ['OLLAMA_HOST']}/api/create", json.dumps(body).encode()).read()
except urllib.error.HTTPError as error:
    sys.exit(f"Error: {error.read().decode()}")
except urllib.error.URLError:
    sys.exit("Error: could not connect to ollama server, run 'ollama serve' to start it")
print("success")
"""


def commands(text: str) -> list[tuple[str, str]]:
    """A Modelfile as Ollama's parser/parser.go reads it: (command, or the parameter's name; value)."""
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
        elif text[at] == "#":
            at = text.find("\n", at) % (len(text) + 1)
        else:
            name, at = _word(text, at)
            assert name.lower() in COMMANDS, f"command must be one of {COMMANDS}, not {name}"
            if name.lower() == "parameter":
                name, at = _word(text, at)
            value, at = _value(text, at)
            found.append((name.lower(), value))
    assert any(name == "from" for name, _ in found), "no FROM line"
    return found


def _word(text: str, at: int) -> tuple[str, int]:
    end = at
    while text[end] not in " \t":
        end += 1
    return text[at:end], end + 1


def _value(text: str, at: int) -> tuple[str, int]:
    """Up to the first line end at which what was read so far is no open quotation."""
    read = ""
    for end in range(at, len(text)):
        character = text[end]
        if character in "\r\n":
            whole = _unquoted(read.strip())
            if whole is not None:
                return whole, end
            read += character
        elif character == "\t" or character.isprintable():
            read += character
    whole = _unquoted(read.strip())
    assert whole is not None, "unexpected EOF"
    return whole, len(text)


def _unquoted(text: str) -> str | None:
    for quotes in ('"""', '"'):
        if text.startswith(quotes):
            closed = len(text) >= 2 * len(quotes) and text.endswith(quotes)
            return text[len(quotes) : -len(quotes)] if closed else None
    return text


@dataclass
class Ollama:
    """What the server knows. models: name -> commands · asked: bodies of /api/chat · library: a template that
    takes the place of every model's own, as after a bad import."""

    environment: dict[str, str]
    models: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    library: str | None = None
    opened: dict[Path, LlamaCpp] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        folder = Path(body["folder"])
        read = commands((folder / body["file"]).read_text("utf-8"))
        self.models[body["model"]] = [
            (name, str(folder / value) if name in ("from", "adapter") else value) for name, value in read
        ]
        return {"status": "success"}

    def show(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"template": self._template(dict(self.models[body["model"]]))}

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        told = dict(self.models[body["model"]])
        messages = [Message(one["role"], one["content"]) for one in body["messages"]]
        if messages[0].role != "system" and told.get("system"):
            messages.insert(0, Message("system", told["system"]))
        served = self._open(Path(told["from"]), told.get("adapter"))
        template = self._template(told)
        if template:
            prompt = gotemplate.render(template, derived.values(messages))
        else:
            prompt = served.apply_template(messages)
        ends = [value for name, value in self.models[body["model"]] if name == "stop"]
        options = Generation(
            max_new_tokens=body["options"]["num_predict"],
            stop_ids=frozenset(served.tokenize(end)[0] for end in ends),
        )
        assert body["options"]["temperature"] == 0 and body["stream"] is False
        ids = served.generate([served.tokenize(prompt, begin=True)], options)[0]
        return {"message": {"role": "assistant", "content": served.detokenize(ids)}, "done": True}

    def _template(self, told: dict[str, str]) -> str:
        return self.library if self.library is not None else told.get("template", "")

    def _open(self, file: Path, lora: str | None) -> LlamaCpp:
        with self.lock:
            if file not in self.opened:
                self.opened[file] = LlamaCpp(file, slots=1, threads=1, lora=lora)
            return self.opened[file]


def program(folder: Path) -> Path:
    """An executable named ollama in `folder`."""
    file = folder / "ollama"
    file.write_text(f"#!{sys.executable}\n{PROGRAM}")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Ollama]:
    there = Ollama({})

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kind, status = self.path.removeprefix("/api/"), 200
            try:
                told = getattr(there, kind)(body)
            except (AssertionError, KeyError) as error:
                status, told = 400, {"error": str(error)}
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    program(folder)
    there.environment = {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "OLLAMA_HOST": f"127.0.0.1:{server.server_port}",
    }
    try:
        yield there
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        for served in there.opened.values():
            served.close()
