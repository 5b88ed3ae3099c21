"""Uploading an exported folder to a hub, once it is proved and safe on the disk.

A token is taken from where the hubs' own programs keep it (HF_TOKEN or `hf auth login`; MODELSCOPE_API_TOKEN
or `modelscope login`); it is neither shown nor written.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import __version__
from luthier.config.options import take
from luthier.errors import ExportError, MissingPackage, UsageError
from luthier.streams import say

if TYPE_CHECKING:
    from luthier.config import Config

LEFT_OUT = ("*.failed", ".*", "*/.*")
"""Files whose proof failed, and what is hidden."""
_MESSAGE = f"Exported by luthier {__version__}"
_MEANS = {
    401: "the token is not accepted -> log in again: {login}",
    403: "the token may not write there -> use one with the right to write, and a name of your own: {login}",
    404: "there is no such owner, or you may not see it -> write your own name in front of the /",
    409: "the hub refuses this name -> choose another",
    413: "a file is larger than the hub takes -> export with a smaller export_size",
    429: "the hub asks to wait -> try again later",
}
_LOGIN = {"huggingface": "hf auth login", "modelscope": "modelscope login"}


def words(given: Sequence[str]) -> list[str]:
    """The words of a command, with --push NAME as the key of the configuration that it means."""
    rest, name = take(given, "push")
    return rest if name is None else [*rest, f"export_hub_model_id={name}"]


def check(config: Config) -> None:
    """Raise UsageError or MissingPackage, before anything is merged, for what cannot succeed later."""
    name = config.export_hub_model_id
    if name is None:
        return
    owner, slash, rest = name.partition("/")
    if not (owner and slash and rest) or "/" in rest or any(c.isspace() for c in name) or ".." in name:
        raise UsageError(f"--push {name}: is no name on a hub -> owner/name, as in maria/orders-qwen3")
    if config.hub == "modelscope":
        if importlib.util.find_spec("modelscope") is None:
            raise MissingPackage("modelscope", "--push with --hub modelscope", "modelscope")
        return
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UsageError("--push: HF_HUB_OFFLINE keeps us from the hub -> unset it, or leave --push out")
    if get_token() is None:
        raise UsageError("--push: there is no token for the hub -> hf auth login, or set HF_TOKEN")


def push(folder: Path, config: Config) -> str | None:
    """Upload everything in `folder` as `export_hub_model_id` and say where; the address, None without a name.

    Made private unless `export_hub_private` is false; a repository that is there keeps what it is. Raises
    ExportError, saying that the files are safe and how to repeat only this.
    """
    if config.export_hub_model_id is None:
        return None
    send = _modelscope if config.hub == "modelscope" else _hugging_face
    with _explained(folder, config):
        place = send(folder, config.export_hub_model_id, config.export_hub_private)
    say(f"uploaded: {place}")
    return place


def _hugging_face(folder: Path, name: str, private: bool) -> str:
    from huggingface_hub import HfApi

    api = HfApi(library_name="luthier", library_version=__version__)
    made = api.create_repo(name, private=private, exist_ok=True)
    api.upload_folder(
        repo_id=made.repo_id, folder_path=folder, commit_message=_MESSAGE, ignore_patterns=[*LEFT_OUT]
    )
    return str(made)


def _modelscope(folder: Path, name: str, private: bool) -> str:
    from modelscope.hub.api import HubApi

    api: Any = HubApi(token=os.environ.get("MODELSCOPE_API_TOKEN"))
    api.create_repo(name, repo_type="model", visibility="private" if private else "public", exist_ok=True)
    api.upload_folder(name, folder_path=str(folder), commit_message=_MESSAGE, ignore_patterns=[*LEFT_OUT])
    return str(api.get_model_url(name))


@contextmanager
def _explained(folder: Path, config: Config) -> Iterator[None]:
    """Whatever a hub's library raises is an ExportError that says what to do next."""
    try:
        yield
    except Exception as error:  # the libraries raise their own, httpx's, requests' and the system's alike
        name, hub = str(config.export_hub_model_id), str(config.hub)
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        why = _MEANS.get(status or 0, "check the network and the name").format(login=_LOGIN[hub])
        raise ExportError(
            f"{name}: not uploaded: {first}\n{why}\nThe export is whole and proved in {folder}; to repeat "
            f"only the upload: {command(folder, config)}"
        ) from error


def command(folder: Path, config: Config) -> str:
    """What uploads the folder without exporting again."""
    name, place = shlex.quote(str(config.export_hub_model_id)), shlex.quote(str(folder))
    if config.hub == "modelscope":
        return f"modelscope upload {name} {place}"
    private = " --private" if config.export_hub_private else ""
    left_out = " ".join(f"--exclude {shlex.quote(pattern)}" for pattern in LEFT_OUT)
    return f"hf upload {name} {place} .{private} {left_out}"
