"""Configurations that attack: no code runs, nothing hangs or grows, and each is refused with its reason."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.bench import Bench, Done, Trial

SECONDS = 20  # a refusal takes a fraction of one; an attack that works takes for ever
ROOM = 1 << 30  # bytes that the process may take beyond what it has at its start
KEEP = "output_dir: run\nmodel_name_or_path: ./nowhere\n"
SECRET = "hf_" + "S3cretOfTheFaultsExperiment0123456789"


def confined(seconds: int = SECONDS) -> None:
    """No more memory than a refusal needs, and no more time."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def _text(text: str, name: str = "attack.yaml") -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        (folder / name).write_text(text, encoding="utf-8")
        return [name]

    return write


def _bytes(content: bytes, name: str = "attack.yaml") -> Callable[[Path], list[str]]:
    def write(folder: Path) -> list[str]:
        (folder / name).write_bytes(content)
        return [name]

    return write


def _laughs(form: str) -> str:
    """Ten aliases of ten aliases of …: 10^40 values."""
    lines = ["a0: &a0 {x: 1}" if form == "merge" else "a0: &a0 [x]"]
    for k in range(1, 41):
        ten = ", ".join([f"*a{k - 1}"] * 10)
        lines.append(f"a{k}: &a{k} {{<<: [{ten}]}}" if form == "merge" else f"a{k}: &a{k} [{ten}]")
    return "\n".join(lines) + "\n"


def _references() -> str:
    lines = ["b0: xxxxxxxxxx", *(f"b{k}: " + f"${{b{k - 1}}}" * 10 for k in range(1, 41))]
    return "\n".join(lines) + "\n"


def _pipe(folder: Path) -> list[str]:
    os.mkfifo(folder / "attack.yaml")
    return ["attack.yaml"]


def _device(folder: Path) -> list[str]:
    (folder / "attack.yaml").symlink_to("/dev/zero")
    return ["attack.yaml"]


def _loop(folder: Path) -> list[str]:
    (folder / "attack.yaml").symlink_to("attack.yaml")
    return ["attack.yaml"]


def _folder(folder: Path) -> list[str]:
    (folder / "attack.yaml").mkdir()
    return ["attack.yaml"]


def _sparse(folder: Path) -> list[str]:
    with (folder / "attack.yaml").open("wb") as file:
        file.truncate(1 << 30)
    return ["attack.yaml"]


def _table(content: str) -> Callable[[Path], list[str]]:
    """A good request with an attack as its dataset_info.json."""

    def write(folder: Path) -> list[str]:
        (folder / "data").mkdir()
        (folder / "data" / "dataset_info.json").write_text(content, encoding="utf-8")
        return ["model_name_or_path=owner/name", "output_dir=run", "dataset=a", "dataset_dir=data"]

    return write


def _piped_table(folder: Path) -> list[str]:
    words = _table("{}")(folder)
    (folder / "data" / "dataset_info.json").unlink()
    os.mkfifo(folder / "data" / "dataset_info.json")
    return words


def _piped_template(folder: Path) -> list[str]:
    os.mkfifo(folder / "attack.jinja")
    return ["model_name_or_path=owner/name", "output_dir=run", "dataset=owner/rows", "template=attack.jinja"]


def _words(*words: str) -> Callable[[Path], list[str]]:
    return lambda folder: ["output_dir=run", "model_name_or_path=./nowhere", *words]


TOUCH = "[touch, STOLEN]"
DEEP = 100_000
# name -> (what writes the attack and gives the words, what the refusal must say)
ATTACKS: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "python/object/apply": (_text(f"a: !!python/object/apply:os.system {TOUCH}\n"), "holds the tag"),
    "python/object/new": (_text(f"a: !!python/object/new:subprocess.Popen [{TOUCH}]\n"), "holds the tag"),
    "python/module and name": (_text("a: !!python/module:os\nb: !!python/name:os.system\n"), "holds the tag"),
    "billion laughs": (_text(_laughs("list")), "unfolds to more than"),
    "an anchor that holds itself": (_text("a: &a [*a]\n"), "alias of what it stands in"),
    "nested 100,000 deep": (_text("a: " + "[" * DEEP), "nested more than"),
    "a merge-key bomb": (_text(_laughs("merge")), "unfolds to more than"),
    "a number of 100,000 digits": (_text("seed: " + "9" * 100_000), "a number of 100000 digits"),
    "a key given twice": (
        _text("output_dir: a\nseed: 1\noutput_dir: b\n"),
        "attack.yaml:3: `output_dir` is given",
    ),
    "keys that are no text": (_text("? [a, b]\n: 1\n"), "has a key that is no text"),
    "NUL and control characters": (_bytes(KEEP.encode() + b"seed: 1\nsystem: a\0b\x1b[2J\n"), "U+0000"),
    "a pipe as the configuration": (_pipe, "is a pipe, not a file"),
    "a sparse gigabyte": (_sparse, "is larger than 1 MB"),
    "an !include": (_text("a: !include /etc/passwd\n"), "holds the tag `!include`"),
    "a secret of the environment": (_text(KEEP + "run_name: ${oc.env:HF_TOKEN}\n"), "$HF_TOKEN is a secret"),
    # --- beyond the fifteen
    "a device as the configuration": (_device, "is a device, not a file"),
    "a directory as the configuration": (_folder, "is a directory"),
    "a link to itself": (_loop, "cannot be read"),
    "UTF-16": (_bytes("seed: 1\n".encode("utf-16")), "is not UTF-8 but UTF-16"),
    "an escaped NUL in a name": (_text('output_dir: "a\\0b"\n'), "`output_dir` holds the character U+0000"),
    "a terminal's escape as a key": (_text('"\\e]0;title\\a": 1\n'), "holds the character U+001B"),
    "half a character": (_text('{"run_name": "\\ud800"}', "attack.json"), "holds the character U+D800"),
    "another resolver": (_text(KEEP + "seed: ${oc.decode:'1'}\n"), "the resolver `oc.decode` is not read"),
    "a made-up resolver": (_text(KEEP + "seed: ${shell:touch STOLEN}\n"), "the resolver `shell` is not read"),
    "a variable's name from another": (
        _text(KEEP + "a: HF\nseed: ${oc.env:${a}_TOKEN}\n"),
        "`oc.env` is not read",
    ),
    "references in a circle": (_text(KEEP + "a: ${b}\nb: ${a}\n"), "refers to itself"),
    "a bomb of references": (_text(_references()), "references unfold to more than"),
    "references 100,000 deep": (_words("seed=" + "${" * 30_000), "is not read"),
    "a tag on the command line": (
        _words(f"seed=!!python/object/apply:os.system {TOUCH}"),
        "seed: `seed` must be",
    ),
    "a deep list on the command line": (_words("seed=" + "[" * DEEP), "seed: `seed` must be"),
    "a secret in a word": (_words(f"run_name={SECRET}"), "which would be kept with the run"),
    "a secret as a key": (_words(f"hf_hub_token={SECRET}"), "`hf_hub_token` is refused"),
    "100,000 keys": (_text("".join(f"k{k}: 1\n" for k in range(40_000))), "has 40,000 keys"),
    "JSON nested 100,000 deep": (
        _text('{"a": ' + "[" * DEEP + "]" * DEEP + "}", "attack.json"),
        "nested more than",
    ),
    "a JSON number of 100,000 digits": (
        _text('{"a": ' + "9" * DEEP + "}", "attack.json"),
        "a number of 100000",
    ),
    "a JSON key given twice": (_text('{"seed": 1, "seed": 2}', "attack.json"), "`seed` is given twice"),
    "dataset_info.json 100,000 deep": (_table('{"a": ' + "[" * DEEP + "]" * DEEP + "}"), "nested more than"),
    "dataset_info.json with a name twice": (
        _table(json.dumps({"a": {"file_name": "x"}})[:-1] + ', "a": {"file_name": "y"}}'),
        "`a` is given twice",
    ),
    "dataset_info.json as a pipe": (_piped_table, "dataset_info.json: is a pipe"),
    "a template as a pipe": (_piped_template, "is a pipe"),
}


def attacks(bench: Bench, count: int) -> Iterator[Trial]:
    """`luthier train` on each attack: exit code 2, the reason, its place, no traceback, nothing written."""
    names = list(ATTACKS)
    for name in [names[k * len(names) // count] for k in range(count)] if count < len(names) else names:
        write, reason = ATTACKS[name]
        folder = bench.folder()
        words = write(folder)
        before = set(os.listdir(folder))
        try:
            done = bench.start(["train", *words], folder, {"HF_TOKEN": SECRET}, confined).finish(4 * SECONDS)
        except TimeoutError:
            yield Trial(name, f"not refused within {4 * SECONDS} s")
            continue
        yield Trial(name, _wrong(done, reason) or _left(folder, before))


def _wrong(done: Done, reason: str) -> str:
    said = done.out + done.err
    if done.code != 2:
        return f"exit code {done.code}: {said[-600:]}"
    if "Traceback" in said:
        return f"a traceback: {said[-600:]}"
    if reason not in said or " -> " not in said:
        return f"does not say {reason!r}: {said[:600]}"
    return "the secret is shown" if SECRET in said else "" if len(said) < 20_000 else "says too much"


def _left(folder: Path, before: set[str]) -> str:
    left = set(os.listdir(folder)) - before
    return f"left behind: {sorted(left)}" if left else ""
