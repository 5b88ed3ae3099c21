"""`luthier data check`: what is wrong with a data set, row by row, and the command that mends it."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luthier.config import Config
from luthier.errors import LuthierError, MissingPackage, UsageError
from luthier.prepare import checks, together, told, words
from luthier.prepare.checks import CHECKS, ON_REQUEST, Data, texts
from luthier.prepare.opened import Opened, opened
from luthier.prepare.report import SEVERITIES, Finding, Report, shown
from luthier.prepare.table import Table
from luthier.prepare.words import Words
from luthier.runs import atomic

USAGE = f"""usage: luthier data check FILE|DATASET|CONFIG.yaml [--eval FILE|DATASET] [--model DIR|RUN]

Says what is wrong with a data set, in which rows, and the command that mends it. Nothing is changed.

  --eval E              rows of E that are also, or nearly, in the data set (leakage)
  --model M             lengths in tokens, what cutoff_len cuts, control tokens of this model
  --perplexity          rows that the model finds least likely (takes as long as a forward pass)
  --for llamafactory    what LLaMA-Factory's loader would drop or change
  --fail-on SEVERITY    exit code 1 when there is an error, a warning or a note ({", ".join(SEVERITIES)})
  --only, --skip NAMES  some checks only, or all but some: {", ".join(CHECKS)}
  --format json         for programs · --html FILE  a report with plots · --lang zh  in Chinese
  --limit N             the first N rows only
  --dataset_dir D       where dataset_info.json is; any key of a configuration may follow (cutoff_len=2048)"""

OPTIONS: dict[str, str | None] = {
    "eval": None,
    "for": None,
    "perplexity": "true",
    "fail-on": None,
    "only": None,
    "skip": None,
    "html": None,
    "lang": None,
    "overwrite": "true",
    "limit": None,
}
MANY = 20_000
"""Rows from which each check is announced: it takes seconds."""
PATIENCE = 1.0
"""Seconds after which a person wants to see how far it is, and the first row that cannot be used."""


@dataclass
class Request:
    """What to check, and how. models_own: the model was named for this check, not by a configuration file."""

    names: list[str]
    evals: list[str]
    words: Words
    config: Config | None = None
    asked: frozenset[str] = frozenset()
    models_own: bool = False
    say: Callable[[str], None] = field(default=lambda line: print(line, file=sys.stderr, flush=True))


def main(args: list[str]) -> int:
    """`luthier data check …`. Exit code 1 when --fail-on says so.

    Raises UsageError for unknown words, DataError for a file that cannot be read at all.
    """
    request = requested(args)
    pages = _pages(request)
    reports = [check(name, request) for name in request.names]
    options, as_json = request.words.options, request.words.keys.get("format") == "json"
    if as_json:
        shown: Any = [report.as_dict() for report in reports]
        print(json.dumps(shown[0] if len(shown) == 1 else shown, ensure_ascii=False))
    else:
        for report in reports:
            told.tell(report)
    for report, path in zip(reports, pages, strict=False):
        _write_page(report, path, options)
    limit = options.get("fail-on")
    return int(limit is not None and any(_fails(report, limit) for report in reports))


def requested(args: Sequence[str]) -> Request:
    """The words as a Request. Raises UsageError."""
    found = words.parse(args, OPTIONS, "check")
    given, options = found.given, found.options
    if not given:
        raise UsageError("data check: which data? -> luthier data check FILE|DATASET")
    _must_be(options, "fail-on", SEVERITIES)
    _must_be(options, "for", ("llamafactory",))
    _must_be(options, "lang", ("en", "zh"))
    limit = options.get("limit", "1")
    if not limit.isdecimal() or int(limit) < 1:
        raise UsageError(f"data check: --limit {limit} -> how many rows to look at, from 1")
    asked = _chosen(options)
    own = "model_name_or_path" in found.keys
    evals = options["eval"].split(",") if options.get("eval") else []
    if Path(given[0]).suffix in (".yaml", ".yml"):
        return _of_file(given, found, asked, evals)
    return Request(given, evals, found, asked=asked, models_own=own)


def _of_file(given: list[str], found: Words, asked: frozenset[str], evals: list[str]) -> Request:
    """The data sets, model and cutoff of a training's configuration."""
    if len(given) > 1:
        raise UsageError(f"data check: a configuration says which data -> leave out {' '.join(given[1:])}")
    config = found.config_of(given[0])
    if not config.dataset:
        raise UsageError(f"{given[0]}: names no data -> add dataset: NAME")
    for key in ("dataset_dir", "stage"):
        found.keys.setdefault(key, str(getattr(config, key)))
    return Request(
        list(config.dataset), evals or list(config.eval_dataset), found, config, asked, models_own=False
    )


def _must_be(options: dict[str, str], name: str, allowed: Sequence[str]) -> None:
    if options.get(name, allowed[0]) not in allowed:
        raise UsageError(f"data check: --{name} {options[name]} -> one of {', '.join(allowed)}")


def _chosen(options: dict[str, str]) -> frozenset[str]:
    """The checks to run. Raises UsageError for names that are none."""
    only = options["only"].split(",") if "only" in options else None
    skip = options.get("skip", "").split(",") if options.get("skip") else []
    strange = sorted({*(only or ()), *skip} - CHECKS.keys())
    if strange:
        raise UsageError(f"data check: no check {', '.join(strange)} -> one of {', '.join(CHECKS)}")
    chosen = set(only or CHECKS.keys() - ON_REQUEST)
    chosen |= {"perplexity"} if options.get("perplexity") else set()
    chosen |= {"replay"} if options.get("for") else set()
    return frozenset(chosen - set(skip))


def check(name: str, request: Request) -> Report:
    """The report on one data set. Raises DataError when it cannot be read at all."""
    began = time.monotonic()
    keys, options = request.words.keys, request.words.options
    limit = min(int(options["limit"]), sys.maxsize) if "limit" in options else None
    source = opened(name, keys)
    table = table_of(source, request.say, limit)
    data = Data(_named(name, keys), table, converted=source.ledger.converted, say=request.say)
    data.evals = [table_of(opened(one, keys), request.say) for one in request.evals]
    skipped = _with_model(data, name, request)
    findings = list(run(data, request.asked, skipped))
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    findings.sort(key=lambda finding: order[finding.severity])
    notes = list(dict.fromkeys(source.ledger.notes))
    seconds, fix = time.monotonic() - began, together.command(findings)
    return Report(name, table.rows, table.bad, findings, notes, skipped, seconds, fix)


def table_of(source: Opened, say: Callable[[str], None], limit: int | None = None) -> Table:
    """The rows of a data set as a Table. In a long file, the first bad row is told while it is read."""
    table, told_of, last, wait = Table(source.spec, source.stage), False, time.monotonic(), PATIENCE
    for row, meant in source.rows(limit):
        table.add(row, meant)
        if table.rows % 4096 or time.monotonic() - last < wait:
            continue
        last, wait = time.monotonic(), min(2 * wait, 10.0)
        say(f"{source.spec.name}: {table.rows:,} rows read, {len(table.bad):,} of them cannot be used")
        if table.bad and not told_of:
            told_of = True
            say(f"the first of them: {shown(table.bad[0])}")
    return table


def _named(name: str, keys: dict[str, str]) -> str:
    where = ["--dataset_dir", keys["dataset_dir"]] if "dataset_dir" in keys else []
    return shlex.join([name, *where])


def _with_model(data: Data, name: str, request: Request) -> dict[str, str]:
    """Give `data` the model's renderer; what cannot be checked without it, with the reason.

    Raises LuthierError when a model was named for this check and cannot be used.
    """
    needing = {check for check in request.asked if CHECKS[check].needs == "model"}
    without = {check for check in request.asked if CHECKS[check].needs == "eval" and not data.evals}
    skipped = dict.fromkeys(sorted(without), "needs --eval FILE")
    if not needing and not request.asked & {"texts", "replay"}:
        return skipped
    config = request.config or (request.words.config(name) if request.models_own else None)
    if config is None or not config.model_name_or_path:
        return skipped | dict.fromkeys(sorted(needing), "needs --model DIR")
    from luthier.data.render import Renderer
    from luthier.model import load

    try:
        config = config.replace(dataset=(name,), stage=data.table.stage)
        data.renderer = Renderer.of(config, load.tokenizer(config))
        data.config = config
    except LuthierError as error:
        if request.models_own:
            raise
        return skipped | dict.fromkeys(sorted(needing), str(error))
    return skipped


def run(data: Data, asked: frozenset[str], skipped: dict[str, str]) -> Iterator[Finding]:
    """The findings of the checks `asked` for, but those `skipped`; a missing package skips a check, too."""
    wanted = [name for name in CHECKS if name in asked and name not in skipped]
    if not len(data.table):
        skipped |= {name: "no row can be used" for name in wanted if name != "structure"}
        wanted = [name for name in wanted if name == "structure"]
    with texts.started(data, None if "texts" in wanted else 0) as texts_done:
        for name in wanted:
            if name == "texts":
                continue
            try:
                _progress(data, name)
                yield from checks.load(name)(data)
            except MissingPackage as missing:
                skipped[name] = str(missing)
        if "texts" in wanted:
            _progress(data, "texts")
            yield from texts.findings(data, texts_done())


def _progress(data: Data, name: str) -> None:
    if len(data.table) > MANY:
        data.say(f"looking for {CHECKS[name].what}")


def _fails(report: Report, limit: str) -> bool:
    grave = {"error": SEVERITIES[:1], "warning": SEVERITIES[:2], "note": SEVERITIES}
    return report.worst in grave[limit]


def _pages(request: Request) -> list[Path]:
    """The HTML files, one for each data set; none unless asked for.

    Raises UsageError, before anything is checked, for one that is there already or is an input.
    """
    options = request.words.options
    if "html" not in options:
        return []
    first = Path(options["html"])
    found = [first if k == 0 else first.with_stem(f"{first.stem}-{k + 1}") for k in range(len(request.names))]
    for path in found:
        if path.is_dir() or (path.exists() and "overwrite" not in options):
            raise UsageError(f"{path} is there already -> another name, or --overwrite for a file")
    for name in (*request.names, *request.evals):
        opened(name, request.words.keys).keep(*found)
    return found


def _write_page(report: Report, path: Path, options: dict[str, str]) -> None:
    from luthier.prepare import page

    atomic.write_text(path, page.page(report, "zh" if options.get("lang") == "zh" else "en"))
    print(f"{path}: the report of {report.dataset}", file=sys.stderr)
