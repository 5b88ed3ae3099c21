"""What is known about a data set before it is read: where it is, and its columns' and roles' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from luthier.types import Role

INFO = "dataset_info.json"
# Column and role names that LLaMA-Factory assumes where dataset_info.json says nothing.
COLUMNS: dict[str, str | None] = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": None,
    "messages": "conversations",
    "system": None,
    "tools": None,
    "images": None,
    "videos": None,
    "audios": None,
    "chosen": None,
    "rejected": None,
    "kto_tag": None,
}
TAGS: dict[str, str | None] = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
# The role that messages with a tag's name have in an Example; a function_call is an assistant's tool call.
TAG_ROLES: dict[str, Role] = {
    "system_tag": "system",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "assistant",
}
# Names for `formatting: openai`, where LLaMA-Factory has no defaults of its own that could work.
OPENAI_COLUMNS: dict[str, str | None] = COLUMNS | {"messages": "messages", "tools": "tools"}
OPENAI_TAGS: dict[str, str | None] = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function",
    "system_tag": "system",
}


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """One data set.

    where, location: "file" and a path (file or folder), or "hf" / "ms" and a hub's repository name.
    base: the directory that a row's source is written relative to.
    formatting: a name of the FORMATS table; None until it is recognised from the rows.
    columns, tags: names in the file for LLaMA-Factory's column and tag keys; None = not read.
    listed: which of "columns" and "tags" dataset_info.json gives (names it leaves out are then None).
    num_samples: rows to draw (mix.sample); subset, split, folder: which files of a hub's repository.
    notes: what a user should hear about how the data set will be read.
    """

    name: str
    where: Literal["file", "hf", "ms"]
    location: str
    base: str = ""
    formatting: str | None = None
    ranking: bool = False
    subset: str | None = None
    split: str = "train"
    folder: str | None = None
    num_samples: int | None = None
    columns: Mapping[str, str | None] = field(default_factory=lambda: dict(COLUMNS))
    tags: Mapping[str, str | None] = field(default_factory=lambda: dict(TAGS))
    listed: frozenset[str] = frozenset()
    cache_dir: str | None = None
    token: str | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What decides the examples that its files give, for hashing and for a run's manifest."""
        keys = ("name", "where", "location", "formatting", "ranking", "subset", "split", "folder")
        named = {"columns": dict(self.columns), "tags": dict(self.tags)}
        return {key: getattr(self, key) for key in keys} | named
