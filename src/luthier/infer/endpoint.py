"""A chat model behind an OpenAI-compatible server (POST …/chat/completions): the one door to it.

The server is of the user's choosing and not trusted: it may be down, slow, talk HTML, send gigabytes or point
elsewhere. Each of these is a `Failed` that says so in a sentence; nothing of a server's words is shown beyond
a short, legible excerpt, and a redirect is never followed (texts and key go to the named server or nowhere).

Python's own HTTP client does: one request, one answer, no state.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from luthier.errors import LuthierError, UsageError
from luthier.redact import redact
from luthier.streams import legible

KEYS = ("LUTHIER_JUDGE_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the server's key, the first one that is set wins."""
LARGEST = 1 << 20  # bytes of an answer that are read
TRIES = 3
LONGEST_WAIT = 60.0  # seconds, whatever Retry-After asks for
_EXCERPT = 120  # characters of a server's words in a message
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_FOR_ALL = {401, 402, 403, 404, 405}
_OPTIONAL = {"temperature": 0, "max_tokens": 4096}
"""Sent unless the server refuses them by name: newer hosted models know only their own temperature."""
_READ = 1 << 16  # bytes read at a time


class Failed(LuthierError):
    """No answer: why, in a sentence. lasting: every other request would fail in the same way."""

    def __init__(self, why: str, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


class _Again(Exception):
    """A failure that another try may not meet. after: seconds that the server asks for, or None."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


@dataclass
class Endpoint:
    """A model of a server. url: as the user gave it · timeout: seconds for one whole answer · wait: sleeps.

    left_out: optional settings that the server has refused.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    wait: Callable[[float], None] = time.sleep
    left_out: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._address = address(self.url)
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            *(urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()),
            *(urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor()),
            *(() if self._near else (urllib.request.ProxyHandler(),)),
        ):
            self._opener.add_handler(handler)

    @property
    def _near(self) -> bool:
        """Whether the server is on this machine, where no proxy is asked."""
        return (urlsplit(self._address).hostname or "") in ("localhost", "127.0.0.1", "::1")

    @property
    def private(self) -> bool:
        """Whether nobody between here and the server can read what is sent."""
        return self._near or urlsplit(self._address).scheme == "https"

    @property
    def server(self) -> str:
        """Where requests go, without anything of the address that might be secret."""
        return shown(self.url)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text that the model answers to these messages ({"role", "content"}), most likely words first.

        Safe to call from several threads. Raises Failed after the last try.
        """
        for turn in range(TRIES):
            try:
                return self._once(messages)
            except _Again as error:
                if turn == TRIES - 1:
                    raise Failed(str(error)) from error
                backoff = 2.0**turn * random.uniform(0.5, 1.0)
                self.wait(min(LONGEST_WAIT, backoff if error.after is None else error.after))
        raise AssertionError("the last try returns or raises")

    def _once(self, messages: Sequence[Mapping[str, str]]) -> str:
        try:
            return _text(self._answer(messages))
        except (OSError, http.client.HTTPException) as error:
            raise self._of_network(error) from error

    def _answer(self, messages: Sequence[Mapping[str, str]]) -> bytes:
        settings = {name: value for name, value in _OPTIONAL.items() if name not in self.left_out}
        body = {"model": self.model, "messages": list(messages), "stream": False, **settings}
        try:
            return self._post(json.dumps(body).encode("ascii"))
        except urllib.error.HTTPError as error:
            with error:
                words = error.read1(_READ).decode("utf-8", "replace") if error.fp else ""
            refused = {name for name in settings if name in words} if error.code in (400, 422) else set()
            if not refused:
                raise _of_status(error, _excerpt(words)) from error
            self.left_out |= refused
        return self._answer(messages)

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "luthier"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(self._address, data=body, headers=headers, method="POST")
        limit = time.monotonic() + self.timeout
        with self._opener.open(request, timeout=self.timeout) as response:
            return _read(response, limit)

    def _of_network(self, error: BaseException) -> Exception:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLError):
            return Failed(f"{self.server}: no secure connection ({_excerpt(str(reason))})", lasting=True)
        if isinstance(reason, socket.gaierror):
            return Failed(f"{self.server}: there is no server of this name", lasting=True)
        if isinstance(reason, TimeoutError):
            return _Again(f"{self.server}: no answer within {self.timeout:g} seconds")
        return _Again(f"{self.server}: cannot be reached ({_excerpt(str(reason) or type(reason).__name__)})")


def key() -> tuple[str, str]:
    """The environment variable that holds the server's key, and the key; ("", "") where none does."""
    found = ((name, os.environ.get(name, "").strip()) for name in KEYS)
    return next((pair for pair in found if pair[1]), ("", ""))


def address(url: str) -> str:
    """Where chat completions are asked: URL/chat/completions, or the URL itself where it ends like that.

    Raises UsageError for anything that is no plain http or https address.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
        (parts.hostname or "").encode("idna")  # as sockets will do
    except ValueError:
        usable = False
    if not usable or not url.isascii() or any(sign.isspace() for sign in url.strip()):
        raise UsageError(f"{shown(url)}: is no address of a server -> such as http://localhost:11434/v1")
    if parts.username or parts.password:
        raise UsageError(
            f"{shown(url)}: a password in an address is seen by others -> {KEYS[0]} holds the key"
        )
    path = parts.path.rstrip("/")
    path = path if path.endswith("/chat/completions") else f"{path}/chat/completions"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def shown(url: str) -> str:
    """An address for people: without user, password, query and fragment."""
    head, slashes, rest = url.strip().partition("://")
    place = (rest if slashes else head).partition("?")[0].partition("#")[0]
    name, slash, path = place.partition("/")
    return legible(redact((f"{head}://" if slashes else "") + name.rpartition("@")[2] + slash + path))


def _read(response: IO[bytes], limit: float) -> bytes:
    """At most LARGEST bytes, and until `limit` (of time.monotonic): a server may send a byte a minute."""
    found = b""
    while True:
        part = response.read1(_READ)  # type: ignore[attr-defined]
        if not part:
            if response.length:  # type: ignore[attr-defined]
                raise http.client.IncompleteRead(found, response.length)  # type: ignore[attr-defined]
            return found
        found += part
        if len(found) > LARGEST:
            raise Failed(f"the answer is larger than {LARGEST >> 20} MiB and was not read to its end")
        if time.monotonic() > limit:
            raise TimeoutError


def _text(body: bytes) -> str:
    """choices[0].message.content of an answer."""
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Failed(f"the answer is no JSON: {_excerpt(body) or 'it is empty'}") from None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        raise Failed(f"the answer has no choices: {_excerpt(body)}")
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    text = message.get("content") if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise Failed(f"the answer has no text: {_excerpt(body)}")
    return text


def _of_status(error: urllib.error.HTTPError, words: str) -> Exception:
    why = f"HTTP {error.code}" + (f": {words}" if words else "")
    if 300 <= error.code < 400:
        place = shown(error.headers.get("Location", "") or "nowhere")
        return Failed(
            f"HTTP {error.code}: it sends requests on to {place}, which were not sent there"
            " -> give the address that answers by itself",
            lasting=True,
        )
    if error.code in (401, 403):
        return Failed(f"{why} -> set the key of the server in {KEYS[0]}", lasting=True)
    if error.code in _AGAIN:
        asked = error.headers.get("Retry-After", "").strip()
        return _Again(why, float(asked) if asked.isascii() and asked.isdecimal() else None)
    return Failed(why, lasting=error.code in _FOR_ALL)


def _excerpt(words: bytes | str) -> str:
    """The beginning of a server's words on one line, without secrets and control characters."""
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else words
    line = redact(" ".join(text[:_READ].split()))
    return legible(line if len(line) <= _EXCERPT else line[: _EXCERPT - 1] + "…")
