"""`luthier demo`: the whole path in small, without network or GPU.

Write data, check it, score the base, tune, score again, merge, talk; with --export gguf also make GGUF files,
prove them, and talk to one of those. Every step is a verb that a user would type, and is shown as such; what
it leaves behind lies in one directory, with the numbers in demo.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from luthier.config import Config, load, resolve
from luthier.demo import task
from luthier.errors import RunError
from luthier.runs import atomic

BASE = Path(str(files("luthier.demo").joinpath("base")))
RESULT = "demo.json"
PARTS = ("data", "base", "run", "merged", "tune.yaml", RESULT)
SHIPPED = ("gguf", "parity.json")
KINDS = ("f16", "q8_0")
TALK = (
    "你好，你叫什么名字？",
    "我上周买的耳机到哪儿了？",
    "把三月的销售数据导出成表格",
    "And who are you?",
    "I would like my money back for the lamp",
    "Thank you!",
)
_TRAINED = {"rank": "64", "learning_rate": "2.0e-3", "epochs": "5.0"}
_TRAINED_REAL = {"rank": "16", "learning_rate": "2.0e-4", "epochs": "2.0"}
_SMALL = ("max_samples=64", "num_train_epochs=1")


@dataclass
class Demo:
    """One demo: where it works, the base it tunes, and what it found. gguf: whether GGUF files are made ·
    talked: the model that it talked to."""

    out: Path
    model: str
    small: bool = False
    gguf: bool = False
    talked: Path | None = None
    found: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def step(self, number: int, title: str, command: str) -> None:
        self.say(f"\n=== {number}/{7 if self.gguf else 6} {title}\n$ luthier {command}")


def main(args: Sequence[str]) -> int:
    """`luthier demo [--out DIR] [--model NAME] [--small] [--export gguf]`: the table to stdout, progress to
    stderr. 1 where a file that was exported is not proved to be the model."""
    asked = _arguments(args)
    demo = Demo(Path(asked.out), asked.model or str(BASE), asked.small, asked.export == "gguf")
    run(demo)
    print(json.dumps(demo.found, ensure_ascii=False) if asked.format == "json" else _table(demo))
    return 0 if demo.found.get("gguf", {"ok": True})["ok"] else 1


def run(demo: Demo) -> dict[str, Any]:
    """All steps; returns what demo.json holds. Raises RunError when `out` holds something else's files,
    MissingPackage before any work."""
    began = time.monotonic()
    if demo.gguf:
        from luthier.export import ship

        ship.needs()
    _clear(demo.out)
    _prepare(demo)
    base = _score(demo, 2, f"model_name_or_path={demo.model}", "base")
    _tune(demo)
    tuned = _score(demo, 4, str(demo.out / "run"), "run")
    _merge(demo)
    if demo.gguf:
        _talk(demo, 7, demo.out / "gguf" / _ship(demo))
    else:
        _talk(demo, 6, demo.out / "merged")
    demo.found |= {
        "base_accuracy": _accuracy(base),
        "tuned_accuracy": _accuracy(tuned),
        "eval_rows": len(tuned),
        "by_language": {
            language: [_accuracy(rows) for rows in (_of(base, language), _of(tuned, language))]
            for language in task.LANGUAGES
        },
        "examples": _examples(base, tuned),
        "seconds": round(time.monotonic() - began, 1),
        "small": demo.small,
        "model": demo.model,
        **{name: str(demo.out / name) for name in ("data", "run", "merged")},
    }
    atomic.write_json(demo.out / RESULT, demo.found)
    return demo.found


def _arguments(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("luthier demo", description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="luthier_demo", help="directory for everything that the demo writes")
    parser.add_argument("--model", help="tune this model (a path or a hub's name) and not the small base")
    parser.add_argument("--small", action="store_true", help="few rows: that it runs, not how well it does")
    parser.add_argument("--export", choices=("gguf",), help="make GGUF files, prove them, talk to one")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    return parser.parse_args(list(args))


def _clear(out: Path) -> None:
    """Remove an earlier demo, which begins with its tune.yaml; refuse to touch anything else."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    present = sorted(path.name for path in out.iterdir())
    if not present:
        return
    marker = out / "tune.yaml"
    ours = marker.is_file() and marker.read_text(encoding="utf-8", errors="replace").startswith(
        _template()[:40]
    )
    strange = [name for name in present if not ours or name not in (*PARTS, *SHIPPED)]
    if strange:
        raise RunError(f"{out}: is not an earlier demo's (it holds {strange[0]}); choose another --out")
    for name in present:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _template() -> str:
    return files("luthier.demo").joinpath("data", "tune.yaml").read_text(encoding="utf-8")


def _prepare(demo: Demo) -> None:
    """Write the data and the configuration, and have both checked."""
    demo.say("The task: a shop's assistant that knows its name and names the intent of each request.")
    values = _TRAINED if demo.model == str(BASE) else _TRAINED_REAL
    paths = {"model": demo.model, "data": str(demo.out / "data"), "run": str(demo.out / "run")}
    text = _template().format(**{name: json.dumps(path) for name, path in paths.items()}, **values)
    atomic.write_text(demo.out / "tune.yaml", text)
    task.write(demo.out / "data")
    demo.step(1, "check the data and the configuration", f"check {demo.out / 'tune.yaml'}")
    load([str(demo.out / "tune.yaml")], "train")
    for name, rows in task.rows().items():
        demo.say(f"{name:<13} {len(rows):>5} rows   e.g. {rows[0]['instruction']} -> {rows[0]['output']}")


def _score(demo: Demo, number: int, subject: str, folder: str) -> list[dict[str, str]]:
    """The model's answers to the held-out rows."""
    from luthier.infer import predict

    words = [subject, f"dataset_dir={demo.out / 'data'}", "--dataset", "intent_eval", "max_new_tokens=32"]
    words += [f"output_dir={demo.out / folder}", "enable_thinking=false", *(_SMALL[:1] if demo.small else ())]
    titles = {"base": "score the base on the held-out rows", "run": "score the tuned model on the same rows"}
    demo.step(number, titles[folder], "predict " + " ".join(words))
    predict.predict(_config("predict", words), lambda _: None)
    lines = (demo.out / folder / predict.PREDICTIONS).read_text(encoding="utf-8").splitlines()
    requests = [row["instruction"] for row in task.rows()["intent_eval"]]
    return [
        row | {"request": requests[int(row["source"].rsplit(":", 1)[1]) - 1]}
        for row in map(json.loads, lines)
    ]


def _tune(demo: Demo) -> None:
    from luthier.train import run as training

    words = [str(demo.out / "tune.yaml"), *(_SMALL if demo.small else ())]
    demo.step(3, "tune: low-rank adapters on all linear layers", "train " + " ".join(words))
    began = time.monotonic()
    training.train(load(words, "train"))
    demo.found["train_seconds"] = round(time.monotonic() - began, 1)


def _merge(demo: Demo) -> None:
    from luthier.export import merge

    words = [str(demo.out / "run"), f"export_dir={demo.out / 'merged'}"]
    demo.step(5, "merge the adapter into the base and compare", "export " + " ".join(words))
    merge.export(load(words, "export"))
    report = atomic.read_json(demo.out / "merged" / merge.REPORT)
    demo.found["merge_difference"] = report["merge_max_abs_difference"]
    demo.say(f"largest difference of their logits: {report['merge_max_abs_difference']:.1e}")


def _ship(demo: Demo) -> str:
    """GGUF files with their proof; the name of the one to talk to."""
    from luthier.export import ship

    place, kinds = demo.out / "gguf", KINDS[:1] if demo.small else KINDS
    words = [str(demo.out / "run"), f"export_dir={place}", "enable_thinking=false"]
    command = ["export", *words, "--to", "gguf", "--quant", ",".join(kinds)]
    demo.step(6, "make GGUF files and prove that they are the model", " ".join(command))
    result = ship.ship(_config("export", words), ship.Order(("gguf",), kinds))
    parity = result["parity"]
    atomic.write_json(demo.out / ship.PARITY, parity)
    demo.say(ship.table(result))
    files = {
        one["kind"]: {
            "file": one["file"],
            "bytes": one["bytes"],
            "ok": one["ok"],
            "prompts": one["cases"],
            **{name: one["logits"][name] for name in ("max_abs_difference", "mean_kl", "same_top")},
            "same_answers": one["answers"]["same"],
        }
        for one in parity["files"]
    }
    demo.found["gguf"] = {
        "folder": str(place),
        "ok": parity["ok"],
        "seconds": parity["seconds"],
        "files": files,
    }
    return str(next((one["file"] for one in files.values() if one["ok"]), files[KINDS[0]]["file"]))


def _talk(demo: Demo, number: int, model: Path) -> None:
    from luthier.infer.chat import chat

    demo.talked = model
    title = "talk to the GGUF file by llama.cpp" if demo.gguf else "talk to the merged model"
    demo.step(number, title, f"chat {model} do_sample=false")
    session = chat(model, do_sample=False, enable_thinking=False, max_new_tokens=64)
    demo.found["conversation"] = turns = []
    for question in TALK:
        turns.append([question, session.say(question)])
        demo.say(f"you        {question}\nassistant  {turns[-1][1]}")


def _accuracy(rows: Sequence[dict[str, str]]) -> float:
    """Share of rows answered with exactly the label."""
    return round(sum(_right(row) for row in rows) / max(len(rows), 1), 4)


def _right(row: dict[str, str]) -> bool:
    return row["predict"].strip() == row["label"]


def _of(rows: Sequence[dict[str, str]], language: str) -> list[dict[str, str]]:
    return [row for row in rows if task.is_chinese(row["request"]) == (language == "zh")]


def _examples(base: Sequence[dict[str, str]], tuned: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Two requests per language: what the base said, and what the tuned model says."""
    return [
        {
            "request": after["request"],
            "base": before["predict"],
            "tuned": after["predict"],
            "label": after["label"],
        }
        for language in task.LANGUAGES
        for before, after in zip(_of(base, language)[:2], _of(tuned, language)[:2], strict=True)
    ]


def _table(demo: Demo) -> str:
    found = demo.found
    names = {"zh": "in Chinese", "en": "in English"}
    rows = [
        (
            f"intents named rightly ({found['eval_rows']} held-out requests)",
            found["base_accuracy"],
            found["tuned_accuracy"],
        )
    ]
    rows += [(f"  {names[language]}", *pair) for language, pair in found["by_language"].items()]
    lines = [f"{'':<46}{'base':>9}{'tuned':>9}"]
    lines += [f"{name:<46}{base:>9.1%}{tuned:>9.1%}" for name, base, tuned in rows]
    lines.append("")
    for example in found["examples"]:
        lines += [f"{example['request']}", f"    base: {example['base']}", f"    tuned: {example['tuned']}"]
    if demo.small:
        lines += ["", "small form: a few rows and one epoch show that everything runs, not how well it does"]
    lines += ["", f"seconds: {found['seconds']:.0f}, of them tuning: {found['train_seconds']:.0f}", ""]
    lines += [
        f"{title:<26}{place}"
        for title, place in (
            ("the data", found["data"]),
            ("the configuration", demo.out / "tune.yaml"),
            ("the run (adapter, logs)", found["run"]),
            ("the merged model", found["merged"]),
            *([("the GGUF files, proved", found["gguf"]["folder"])] if "gguf" in found else []),
            ("all numbers", demo.out / RESULT),
        )
    ]
    lines += [
        "",
        f"Go on:  luthier chat {demo.talked}",
        f"        luthier train {demo.out / 'tune.yaml'} num_train_epochs=3",
    ]
    return "\n".join(lines)


def _config(verb: str, words: Sequence[str]) -> Config:
    from luthier.model import machine

    return resolve(load(list(words), verb), machine.detect())
