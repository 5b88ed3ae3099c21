"""What all pages have in common: one HTML file each, which needs no network and runs no script.

The texts in a page are strangers': every one is escaped by the template engine and passes through
`printable`, and the page forbids scripts, pictures and requests by its own content security policy, whose one
allowance is the hash of its style sheet. Templates extend pages/base.html.jinja and fill its blocks `title`
and `body`; their style is pages/base.css and then their own.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from typing import Any, Literal

import jinja2
import yaml
from markupsafe import Markup

from luthier.pages.texts import printable

Language = Literal["en", "zh"]


def render(template: str, style: str, language: Language, **values: Any) -> str:
    """The page as HTML. template, style: files of the package, as "prepare/page.css"."""
    sheet = read("pages/base.css") + read(style)
    digest = base64.b64encode(hashlib.sha256(sheet.encode("utf-8")).digest()).decode("ascii")
    made = _environment().get_template(template)
    return made.render(language=language, style=Markup(sheet), digest=digest, **values)


@functools.cache
def words(name: str) -> dict[str, dict[str, Any]]:
    """language -> key -> wording, of a YAML file of the package ("prepare/page.yaml")."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(read(name))
    return loaded


def read(name: str) -> str:
    """The text of a file of the package."""
    return files("luthier").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        autoescape=True,
        finalize=_shown,
        loader=jinja2.FunctionLoader(read),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    """Our own mark-up stays as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
