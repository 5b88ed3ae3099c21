"""A server that talks as OpenAI-compatible ones do, on this machine, for tests of whoever asks it.

with judges.serve(lambda request: judges.reply('{"better": "A"}')) as server:
    server.url, server.requests
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """What came: the parsed body, headers and path, and how many requests came before it."""

    body: dict[str, Any]
    headers: Mapping[str, str]
    path: str
    index: int

    @property
    def asked(self) -> str:
        """The words of the user's turn."""
        return str(self.body["messages"][-1]["content"])


@dataclass(frozen=True)
class Response:
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Server:
    url: str
    requests: list[Request]


def reply(text: str) -> Response:
    """A chat completion with this text."""
    message = {"role": "assistant", "content": text}
    return Response(json.dumps({"choices": [{"index": 0, "message": message}]}).encode())


def status(code: int, body: str = "", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(body.encode(), code, {"Retry-After": "0", **named})


@contextmanager
def serve(answer: Callable[[Request], Response]) -> Iterator[Server]:
    """Answer POST requests on a free port until the block ends."""
    heard: list[Request] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                request = Request(body, dict(self.headers), self.path, len(heard))
                heard.append(request)
            response = answer(request)
            try:
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(response.body)
            except OSError:
                self.close_connection = True  # whoever asked has gone

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}/v1", heard)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
