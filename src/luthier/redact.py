"""Secrets: what counts as one, and how texts are freed of them before they are shown or written.

A run directory is copied, shared and published, and so are logs. So a configuration that holds a secret is
refused (`found_in`; programs read HF_TOKEN and its like from the environment themselves), and every text that
leaves the program for people (errors, notes, the log, the command line kept in a manifest) passes through
`redact`. What counts: the value of an environment variable whose name says so (`secret_name`), as it is,
URL-quoted or in base64; the password of a URL, anywhere; and what has the shape of a known kind of token.
Values of fewer than 6 characters are too common to look for.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote, unquote

MASK = "…"
_NAME = re.compile(
    r"secret|passw|passphrase|credential|api_?key|access_?key|private_?key|authorization|webhook|cookie|jwt"
    r"|^token(_|$)|(^|_)(token|key|auth|pwd|pat|dsn)$",
    re.IGNORECASE,
)
_NOT_NAMES = {"PWD", "OLDPWD"}
# kind -> what it looks like
SHAPES: dict[str, re.Pattern[str]] = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a ModelScope token": re.compile(r"\bms-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"),
    "an API key": re.compile(r"\bsk-(proj-|ant-|or-)?[A-Za-z0-9_-]{24,}|\bAIza[\w-]{35}"),
    "a GitHub token": re.compile(r"\bgh[opsur]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}"),
    "an AWS key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a chat token": re.compile(r"\bxox[abeprs]-[\w-]{10,}"),
    "a signed token": re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}(\.[\w-]*)?"),
    "a private key": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*-----|\Z)", re.DOTALL
    ),
    "a password in a URL": re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s'\"]+(?=@)"),
}
_PLAIN = {"true", "false", "none", "null", "yes", "no", "on", "off"}
_SHORTEST = 6


def secret_name(name: str) -> bool:
    """True for the name of a variable or key whose value is a secret: HF_TOKEN, db-password, `api_key`."""
    name = name.lstrip("-").replace("-", "_")
    return name not in _NOT_NAMES and _NAME.search(name) is not None


def known() -> Iterator[tuple[str, str]]:
    """(variable, secret) of this process's environment, with the passwords of URLs in any variable."""
    for name, value in os.environ.items():
        for found in SHAPES["a password in a URL"].findall(value):
            yield from ((name, part) for part in (found, found.split(":", 1)[1]) if len(part) >= _SHORTEST)
        if secret_name(name) and len(value) >= _SHORTEST and not _harmless(value):
            yield name, value
            yield from ((name, line) for line in value.splitlines()[1:-1] if len(line) >= 16)


def _harmless(value: str) -> bool:
    """A switch, a number, or the path of a file (which holds a secret and is none)."""
    is_path = value.startswith(("/", "~", ".")) and os.path.exists(os.path.expanduser(value))
    return is_path or value.lower() in _PLAIN or value.replace(".", "").isdigit()


def _forms(secret: str) -> list[str]:
    """How a secret may be spelled, longest first: as it is, quoted for a URL, unquoted, in base64 with and
    without its end, which depends on what follows."""
    raw = secret.encode("utf-8", "surrogateescape")
    packed = base64.b64encode(raw).decode("ascii")
    forms = {secret, quote(raw, safe=""), quote(raw), unquote(secret)}
    forms |= {packed, packed.rstrip("="), packed[: len(raw) // 3 * 4]}
    return sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True)


def found_in(text: str) -> str:
    """What secret `text` holds, in words ("the value of $HF_TOKEN"); "" when none is seen.

    Words of fewer than 16 letters and nothing else ("postgres") may stand in a text for themselves, whatever
    variable has them as its value, unless they are all of it.
    """
    for kind, shape in SHAPES.items():
        if shape.search(text):
            return kind
    for name, secret in known():
        weak = secret.isalpha() and len(secret) < 16
        if text == secret or (not weak and any(form in text for form in _forms(secret))):
            return f"the value of ${name}"
    return ""


def redact(text: str) -> str:
    """`text` with … in place of every secret."""
    for shape in SHAPES.values():
        text = shape.sub(MASK, text)
    for _, secret in sorted(known(), key=lambda pair: -len(pair[1])):
        for form in _forms(secret):
            text = text.replace(form, MASK)
    return text


def redact_words(words: Sequence[str]) -> list[str]:
    """A command line with … for every secret, also for what follows `--hf_hub_token` and its like."""
    shown: list[str] = []
    for word in words:
        before = shown[-1] if shown else ""
        name, equals, value = word.partition("=")
        if before.startswith("--") and "=" not in before and secret_name(before) and word[:2] != "--":
            shown.append(MASK)
        elif equals and value and secret_name(name):
            shown.append(f"{name}={MASK}")
        else:
            shown.append(redact(word))
    return shown
