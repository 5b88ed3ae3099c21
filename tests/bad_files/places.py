"""What is not quite a file: links, pipes, folders, odd names, files without rights and files that change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bad_files.case import Case, asked, file, jsonl, pair
from luthier.data.sources.encoding import CHUNK

ONE, TWO = jsonl([pair(1)]), jsonl([pair(1), pair(2)])
MANY = jsonl([pair(n) for n in range(1, 30_001)])  # more than is read in one piece
WHOLE = MANY[:CHUNK].count("\n")  # rows


def _tree(read: str, **files: str) -> Callable[[Path], str]:
    """A writer of files ("a__b_json" is a/b.json); `read` is what is read."""
    named = {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}

    def write(folder: Path) -> str:
        for name, text in named.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return read

    return write


def _then(write: Callable[[Path], str], act: Callable[[Path], object]) -> Callable[[Path], str]:
    def both(folder: Path) -> str:
        name = write(folder)
        act(folder)
        return name

    return both


def _link(target: str, name: str = "d.jsonl") -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / name).symlink_to(target)
        return name

    return write


def _fifo(name: str) -> Callable[[Path], None]:
    return lambda folder: os.mkfifo(folder / name)


def _outside(folder: Path) -> None:
    """set/ with a file, and a link to another one beside the folder set/."""
    (folder / "secret.jsonl").write_text(jsonl([pair(2)]))
    (folder / "set" / "b.jsonl").symlink_to("../secret.jsonl")


def _loops(folder: Path) -> None:
    (folder / "set" / "loop.jsonl").symlink_to("loop.jsonl")


def _circle(folder: Path) -> None:
    (folder / "set" / "more").symlink_to("..", target_is_directory=True)


def _named_like_a_file(folder: Path) -> None:
    (folder / "set" / "b.jsonl").mkdir()


def _sparse(name: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        with (folder / name).open("wb") as made:
            made.truncate(1 << 40)
        return name

    return write


def _closed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).chmod(0)


def _listed(folder: Path) -> str:
    file(ONE, "d.jsonl")(folder)
    file('{"d": {"file_name": "d.jsonl"}}', "dataset_info.json")(folder)
    return "d"


def _grow(folder: Path) -> None:
    with (folder / "d.jsonl").open("a", encoding="utf-8") as growing:
        growing.write(jsonl([pair(0)]))


def _rewrite(folder: Path) -> None:
    (folder / "d.jsonl").write_text(TWO)


def _odd(name: str) -> Case:
    return Case(file(ONE + "{\n", name), asked(1), [(2, "<end of file>", "truncated")])


def _raw(folder: Path) -> str:
    """A name that is not UTF-8."""
    (folder / "set").mkdir()
    with open(os.fsencode(folder / "set") + b"/\xff\xfe.jsonl", "w", encoding="utf-8") as made:
        made.write(ONE + "{}\n")
    return "set"


CASES: dict[str, Case] = {
    # --- names
    "a file that is not there": Case(lambda folder: "d.jsonl", refused="no such file or folder"),
    "a misspelt file": Case(_tree("trian.jsonl", train_jsonl=ONE), refused="train.jsonl"),
    "a name of 5,000 characters": Case(lambda folder: "d" * 5000 + ".jsonl", refused="d.jsonl"),
    "a name with a NUL": Case(lambda folder: "d\0.jsonl", refused="no such file or folder"),
    "a name in capitals": Case(file(ONE, "D.JSONL"), asked(1)),
    "no extension": Case(file(ONE, "rows"), refused="files of this kind (no extension) are not read"),
    "an unknown extension": Case(
        file(ONE, "d.jsonlines"), refused="files of this kind (.jsonlines) are not read"
    ),
    "a backup": Case(file(ONE, "d.jsonl.bak"), refused="files of this kind (.bak) are not read"),
    "a document": Case(file("# title", "d.md"), refused="turn documents into rows first"),
    **{
        f"the name {name!r}": _odd(name)
        for name in (
            "a b.jsonl",
            "数据 (1).jsonl",
            "a:b.jsonl",
            "'\"$(x)`.jsonl",
            "[a]*?.jsonl",
            "#%2F.jsonl",
            "-rf.jsonl",
            "😀.jsonl",
            "~.jsonl",
            "a..jsonl",
            "con.jsonl",
        )
    },
    "a name with a line break": Case(
        file(ONE + "{\n", "a\nb.jsonl"), asked(1), [("a\\nb.jsonl:2", "<end of file>", "truncated")]
    ),
    "a name that is a terminal's command": Case(
        file(ONE + "{\n", "\x1b[2J.jsonl"), asked(1), [("\\x1b[2J.jsonl:2", "<end of file>", "truncated")]
    ),
    "a name that is not UTF-8": Case(
        _raw, asked(1), [("set/\\udcff\\udcfe.jsonl:2", "instruction", "missing; the row has no fields")]
    ),
    # --- links and what is no file
    "a link to a file": Case(
        _then(_link("rows.jsonl"), lambda folder: file(ONE, "rows.jsonl")(folder)), asked(1)
    ),
    "a link that leads nowhere": Case(_link("none.jsonl"), refused="is a link that leads nowhere"),
    "a link to itself": Case(_link("d.jsonl"), refused="is a link that leads nowhere"),
    "a link to a device": Case(_link("/dev/zero"), refused="is a device, not a file"),
    "a link to a folder": Case(
        _then(_link("set"), lambda folder: _tree("", set__a_jsonl=ONE)(folder)), asked(1)
    ),
    "a pipe": Case(_then(lambda folder: "d.jsonl", _fifo("d.jsonl")), refused="is a pipe, not a file"),
    "an empty terabyte of jsonl": Case(_sparse("d.jsonl"), refused="too many for a row"),
    "an empty terabyte of json": Case(_sparse("d.json"), refused="begins with [ or {"),
    "an empty terabyte of csv": Case(_sparse("d.csv"), refused="too many for a row"),
    "an empty terabyte of parquet": Case(_sparse("d.parquet"), refused="not a sound Parquet"),
    # --- folders
    "a folder": Case(
        _tree("set", set__b_jsonl=jsonl([pair(2)]), set__a_jsonl=ONE),
        asked(1, 2),
        notes=["2 files are read as one data set"],
    ),
    "a folder named like a file": Case(_tree("d.json", d__x="x"), refused="no such file or folder"),
    "a folder with a name like a file's": Case(
        _then(lambda folder: "d.json", lambda folder: (folder / "d.json").mkdir()),
        refused="no data files in this folder",
    ),
    "an empty folder": Case(
        _then(lambda folder: "set", lambda folder: (folder / "set").mkdir()),
        refused="no data files in this folder",
    ),
    "a folder with a link out of it": Case(
        _then(_tree("set", set__a_jsonl=ONE), _outside),
        asked(1, 2),
        notes=["2 files are read as one data set", "b.jsonl is a link to"],
    ),
    "a folder with a link that leads nowhere": Case(
        _then(_tree("set", set__a_jsonl=ONE), _loops), refused="loop.jsonl: is a link that leads nowhere"
    ),
    "a folder with a link to the one above": Case(_then(_tree("set", set__a_jsonl=ONE), _circle), asked(1)),
    "subfolders and a link to the one above": Case(
        _then(_tree("set", set__train__a_jsonl=ONE), _circle), asked(1)
    ),
    "a folder with a pipe": Case(
        _then(_tree("set", set__a_jsonl=ONE), _fifo("set/b.jsonl")), refused="b.jsonl: is a pipe, not a file"
    ),
    "a folder with a folder named like a file": Case(
        _then(_tree("set", set__a_jsonl=ONE), _named_like_a_file),
        asked(1),
        notes=["not read: b.jsonl (a folder)"],
    ),
    "a folder with files of other kinds": Case(
        _tree("set", set__a_jsonl=ONE, set__b_zip="PK", set__c_xls="", set__README_md="x"),
        asked(1),
        notes=["not read: b.zip, c.xls"],
    ),
    "a folder with a subfolder of more": Case(
        _tree("set", set__a_jsonl=ONE, set__more__b_jsonl=TWO), asked(1), notes=["not read: more (a folder)"]
    ),
    "a folder with an empty file": Case(
        _tree("set", set__a_jsonl=ONE, set__b_jsonl=""), refused="b.jsonl: the file is empty"
    ),
    "a folder with files of two shapes": Case(
        _tree("set", set__a_jsonl=ONE, set__b_csv="text\nhello\n"),
        asked(1),
        [("set/b.csv:1", "instruction", "missing; the row has text")],
        ["2 files are read as one data set"],
    ),
    # --- rights
    "a file without the right to read it": Case(
        _then(file(ONE, "d.jsonl"), _closed("d.jsonl")),
        refused="cannot be read: Permission denied",
        as_nobody=True,
    ),
    "a workbook without the right to read it": Case(
        _then(file(ONE, "d.xlsx"), _closed("d.xlsx")),
        refused="cannot be read: Permission denied",
        as_nobody=True,
    ),
    "a folder without the right to enter it": Case(
        _then(_tree("set", set__a_jsonl=ONE), _closed("set")), refused="Permission denied", as_nobody=True
    ),
    "a file in a folder without the right to enter it": Case(
        _then(_tree("set/a.jsonl", set__a_jsonl=ONE), _closed("set")),
        refused="Permission denied",
        as_nobody=True,
    ),
    "dataset_info.json without the right to read it": Case(
        _then(_listed, _closed("dataset_info.json")),
        refused="dataset_info.json: cannot be read: Permission denied",
        as_nobody=True,
    ),
    # --- files that change while they are read
    "a file that grows": Case(
        file(MANY, "d.jsonl"),
        asked(*range(1, 30_001), 0),
        refused="changed while it was being read",
        meanwhile=_grow,
    ),
    "a file that is written anew": Case(
        file(MANY, "d.jsonl"),
        asked(*range(1, WHOLE + 1)),
        [(WHOLE + 1, "<end of file>", "truncated")],
        refused="changed while it was being read",
        meanwhile=_rewrite,
    ),
    "a file that vanishes": Case(
        file(MANY, "d.jsonl"),
        asked(*range(1, 30_001)),
        refused="vanished while it was being read",
        meanwhile=lambda folder: (folder / "d.jsonl").unlink(),
    ),
}
