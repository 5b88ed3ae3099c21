"""The model card: README.md of an exported folder, as the hubs show it.

Everything in it is a figure or a fact that lies with the run (`card_facts`); what was not measured is said
to be so. Front matter: https://huggingface.co/docs/hub/model-cards. No path of this machine, no secret.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import yaml

from luthier import __version__
from luthier.evaluate import figures, wording
from luthier.evaluate.markdown import cell
from luthier.export import card_facts, parity
from luthier.export.card_facts import Base, Data
from luthier.pages.base import read
from luthier.pages.texts import printable
from luthier.runs import atomic

if TYPE_CHECKING:
    from luthier.config import Config

NAME = "README.md"


@dataclass(frozen=True)
class Shipped:
    """What an export found. report: export.json of the merge · proofs: `files` of parity.json · folder: of
    the merged model, as seen from the card, None where there is none."""

    report: Mapping[str, Any]
    proofs: Sequence[Mapping[str, Any]] = ()
    folder: str | None = "."


def write(folder: Path, config: Config, shipped: Shipped) -> Path:
    """README.md, and beside it the base's licence, which goes along. Returns the card; raises RunError."""
    base = card_facts.base(config)
    for file in base.files:
        if not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)
    card = folder / NAME
    atomic.write_text(card, text(config, shipped, base))
    return card


def text(config: Config, shipped: Shipped, base: Base) -> str:
    """The card, with … for whatever looks like a secret."""
    name = card_facts.title(config)
    data, told = card_facts.data(config), card_facts.resolved(config)
    reports, notes = card_facts.evaluations(config)
    results = [_result(title, report) for title, report in reports]
    tuned = bool(config.run or config.adapter_name_or_path)
    body = (
        _environment()
        .get_template("export/card.md.jinja")
        .render(
            name=name,
            luthier=__version__,
            base=base,
            tuned=tuned,
            data=data,
            method=card_facts.method(told),
            results=results,
            damage=[line for one in results for line in one["damage"]],
            method_of_results=wording.words("en")["method"],
            proofs=_proofs(shipped),
            commands=_commands(name, shipped),
            limits=[*_limits(base, data, results), *notes],
        )
    )
    texts = card_facts.texts(told)
    return printable(f"---\n{_front(base, data, told, shipped, texts)}---\n\n{body}")


def _front(
    base: Base, data: Sequence[Data], told: Mapping[str, Any], shipped: Shipped, texts: Sequence[str]
) -> str:
    """YAML that the hubs read: what it was made of, its licence, its tasks. texts: of the data."""
    tags = ["luthier", "conversational"]
    tags += [str(told["stage"])] if told.get("stage") else []
    tags += ["lora"] if told.get("finetuning_type") == "lora" else []
    tags += ["gguf"] if shipped.proofs else []
    fields = {
        "base_model": base.id,
        "license": base.licence,
        **(base.more or {}),
        "language": card_facts.languages(texts),
        "datasets": [one.id for one in data if one.id],
        "tags": tags,
        "library_name": "transformers" if shipped.folder == "." else "gguf",
        "pipeline_tag": "text-generation",
    }
    kept = {key: value for key, value in fields.items() if value}
    return str(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))


def _result(title: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """The answers in sentences, and a table for each task."""
    w = wording.words("en")
    tables, damage = [], []
    for task in wording.tasks(report, "en"):
        made = figures.table(w, task.parts)
        rows = [
            row._replace(name=f"{row.name} ({group})" if group else row.name)
            for group, members in made.groups
            for row in members
        ]
        tables.append({"title": task.title, "alone": made.alone, "rows": rows})
        damage += [
            f"{task.title}: {row.name} {row.before} → {row.after}, 95 % interval {row.interval}"
            for row in rows
            if row.kind == "worse"
        ]
    said = {"en": wording.answers(report, "en"), "zh": wording.answers(report, "zh")}
    return {
        "title": title,
        "answers": [
            f"{wording.MARKS.get(one.verdict or '', '')} **{cell(one.head)}** {cell(one.text)}".lstrip()
            for one in said["en"]
        ],
        "answers_zh": [f"{cell(one.head)}{cell(one.text)}" for one in said["zh"]],
        "tables": tables,
        "damage": damage,
    }


def _proofs(shipped: Shipped) -> list[list[str]]:
    """Lines of the table: the merged weights, then each GGUF file."""
    report = shipped.report
    count = f"{len(report.get('prompts', ()))} prompts"
    lines = []
    if "merge_max_abs_difference" in report:
        worst = f"{report['merge_max_abs_difference']:.1e} (allowed {parity.TOLERANCE:.0e})"
        lines.append(["adapter merged, float32", count, worst, *["–"] * 3, "holds"])
    if shipped.folder is not None and report.get("dtype") not in (None, "float32"):
        worst = f"{report['max_abs_difference']:.1e}"
        lines.append([f"weights in {report['dtype']}", count, worst, *["–"] * 3, "each weight rounded once"])
    for one in shipped.proofs:
        logits, answers = one["logits"], one["answers"]
        lines.append(
            [
                cell(" on ".join(str(one[key]) for key in ("file", "base") if key in one)),
                f"{one['cases']} prompts",
                f"{logits['max_abs_difference']:.1e}",
                f"{logits['mean_kl']:.1e}",
                f"{logits['same_top']:.1%}",
                f"{answers['same']} of {answers['of']}",
                "holds" if one["ok"] else "failed",
            ]
        )
    return lines


def _commands(name: str, shipped: Shipped) -> list[tuple[str, str, str]]:
    """(title, language, text) of ways to run it, in the folder of the card."""
    found = []
    if shipped.folder is not None:
        code = _PYTHON.format(folder=shipped.folder)
        found.append(("With transformers:", "python", code))
        found.append(("With vLLM:", "shell", f"vllm serve {shipped.folder}"))
    served = [one["file"] for one in shipped.proofs if one["ok"] and "base" not in one]
    if served or shipped.folder == ".":
        called = "".join(c if c.isalnum() or c in "-_." else "-" for c in name.lower()) or "model"
        found.append(
            ("With Ollama (0.30 or newer), in this folder:", "shell", f"ollama create {called} -f Modelfile")
        )
    found += [("With llama.cpp:", "shell", f"llama-server -m {file} --jinja") for file in served[:1]]
    return found


_PYTHON = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}")
chat = [{{"role": "user", "content": "Hello!"}}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0]))"""


def _limits(base: Base, data: Sequence[Data], results: Sequence[Any]) -> list[str]:
    found = [f"What {base.name} cannot do or gets wrong, this model may get wrong as well."]
    if data:
        found.append("It was tuned on the data above; on other tasks and languages it was not tried.")
    if not results:
        found.append("Nothing was measured, neither what it gained nor what it forgot.")
    if not base.licence:
        found.append("No licence lies with the base: find out what it allows before you pass this model on.")
    return found


@functools.cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown: `cell` escapes what is not ours
    )
    made.filters["cell"] = cell
    return made
