"""The list that helps choose, all about one run, and the comparison on a terminal and as a page."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from history import bare, copy, evaluated, older, write
from luthier import cli as command
from luthier.errors import RunError, UsageError
from luthier.runs import Run, cli, curves, detail, listing, told
from luthier.runs.beside import beside
from luthier.runs.page import page

RIGHT = ["yes", "no"] * 6


@pytest.fixture
def saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """saves/: good/ and bad/ (evaluated on news), plain/ (lower loss, not evaluated)."""
    monkeypatch.chdir(tmp_path)
    for name, loss in (("good", 0.5), ("bad", 0.7), ("plain", 0.1)):
        run = bare(Path("saves") / name)
        with Run.join(run) as opened:
            opened.append_log({"current_steps": 3, "total_steps": 3, "loss": loss, "elapsed_time": "1:02:03"})
    evaluated(Path("saves/good"), RIGHT, RIGHT)
    evaluated(Path("saves/bad"), ["no"] * 12, RIGHT)
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert cli.main([*words, "--format", "json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_the_list_says_what_helps_to_choose(saves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = next(one for one in listed(capsys) if one["path"] == os.path.join("saves", "good"))
    assert one["metric"] == {
        "task": "news", "name": "accuracy", "value": 1.0, "verdict": "improved", "higher": True,
    }  # fmt: skip
    assert (one["method"], one["datasets"], one["seconds"], one["problem"]) == ("lora", ["train"], 3723.0, "")
    assert cli.main(["list", "saves", "good"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert "sft lora  train  news accuracy 100.0 % improved  1:02:03" in line


def test_order_and_words(saves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def names(*words: str) -> list[str]:
        return [Path(one["path"]).name for one in listed(capsys, *words)]

    assert names("--sort", "loss") == ["plain", "good", "bad"]
    assert names("--sort", "metric") == ["good", "bad", "plain"]
    assert names("saves", "NEWS", "improved", "--sort", "loss") == ["good", "bad"]
    assert names("plain") == ["plain"]
    with pytest.raises(UsageError, match=r"^nowhere: no such directory, and no run below saves has it"):
        cli.main(["nowhere"])
    with pytest.raises(UsageError, match="invalid choice: 'beauty'"):
        cli.main(["--sort", "beauty"])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("luthier.json", "{", "luthier.json"),
        ("luthier.json", '{"format": 99}', "format 99"),
        ("config.resolved.json", "[1", "config.resolved.json"),
        ("eval/news/report.json", "[]", "report.json: no report of luthier eval"),
        ("eval/news/report.json", "{\x00", "report.json"),
        ("trainer_log.jsonl", '{"loss": 1}\n', "trainer_log.jsonl:1"),
    ],
)
def test_a_broken_run_is_listed_with_what_is_wrong(
    saves: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    (saves / "saves" / "good" / name).write_text(text)
    found = {Path(one["path"]).name: one for one in listed(capsys)}
    assert said in found["good"]["problem"]
    assert (found["bad"]["problem"], found["bad"]["metric"]["value"]) == ("", 0.5)
    assert cli.main([]) == 0
    assert f"wrong: {found['good']['problem']}" in capsys.readouterr().out


def test_show_tells_evaluations_samples_and_sizes(saves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saves / "saves" / "good"
    with Run.join(run) as opened:
        opened.append_log({"current_steps": 3, "overfitting_from_step": 2, "warning": "over-fitting since 2"})
    told = detail.detail(Run.open(run))
    figure = told["evaluations"]["news"]["figures"]["accuracy"]
    assert (figure["after"], figure["verdict"], figure["n"]) == (1.0, "improved", 12)
    assert told["warnings"] == ["over-fitting since 2"]
    assert told["sizes"]["all"] == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    assert cli.main(["show", str(run)]) == 0
    out = capsys.readouterr().out
    assert "warning: over-fitting since 2" in out
    assert "  accuracy  0.0 %  100.0 %  +100.0 %  +0.0 % to +100.0 %  improved" in out


def test_show_of_a_trained_run(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = detail.detail(Run.open(history / "high"))
    assert told["sizes"]["weights"] == (history / "high" / "adapter_model.safetensors").stat().st_size
    assert len(told["log"]["eval_loss"]) == 3
    assert told["problems"] == []
    assert cli.main(["show", str(history / "high")]) == 0
    assert "training loss\n" in capsys.readouterr().out


def test_show_of_damaged_weights(history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copy(history, "high", tmp_path)
    weights = run / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert cli.main(["show", str(run)]) == 1
    assert "wrong: adapter_model.safetensors is not what was written" in capsys.readouterr().out


# --- comparing


def test_configuration_and_data_of_three(tmp_path: Path) -> None:
    runs = []
    for name, rank, data, kept in (("a", 8, "1", 5), ("b", 8, "2", 7), ("c", 16, "1", 5)):
        with Run.create(tmp_path / name) as run:
            file = {"path": f"/{name}/train.json", "sha256": data * 64}
            run.describe("", {"lora_rank": rank, "seed": 1}, {"data": [file]})
            run.write_json(
                "ledger.json", [{"dataset": "train", "rows_in": 7, "kept": kept, "dropped": {"x": 7 - kept}}]
            )
        runs.append(Run.open(tmp_path / name))
    told = beside(runs)
    assert told["config"] == [{"key": "lora_rank", "kind": "impossible", "a": 8, "b": 8, "c": 16}]
    assert told["data"] == [
        {"key": "train.json", "a": "1" * 64, "b": "2" * 64, "c": "1" * 64},
        {"key": "train.kept", "a": 5, "b": 7, "c": 5},
        {"key": "train.dropped", "a": 2, "b": 0, "c": 2},
    ]


def test_a_plot_has_at_most_fifteen_lines_and_falls_from_left_to_right() -> None:
    points = {"A": [(0.0, 4.0), (100.0, 1.0)], "B": [(0.0, 4.0), (50.0, 2.0)]}
    drawn = curves.plot(points, "loss", "steps", unicode=False)
    assert len(drawn) == curves.MOST_LINES
    assert (drawn[0], drawn[-1].strip()) == ("loss", "100 steps")
    assert all(line.isascii() for line in drawn)
    heights = [
        next(k for k, line in enumerate(drawn[1:-2]) if len(line) > x and line[x] in "a*")
        for x in (4, 40, 66)
    ]
    assert heights == sorted(heights) and heights[0] == 0 and heights[-1] == 11
    assert drawn[12].endswith("A")
    braille = curves.plot(points, "loss", "steps")
    assert len(braille) == 15 and any("\u2801" <= sign <= "\u28ff" for sign in "".join(braille))
    assert curves.plot({"A": [(1.0, 100.0), (2.0, 0.1)]}, "loss", "steps")[0] == "loss (logarithmic)"
    assert curves.plot({"A": []}, "loss", "steps") == []


def test_steps_of_different_sizes_are_drawn_over_tokens() -> None:
    def curve(tokens: int) -> curves.Curve:
        return tuple(curves.Point(step, step * tokens, 1.0) for step in (1, 2))

    assert curves.axis([curve(100), curve(101)]) == "steps"
    assert curves.axis([curve(100), curve(200)]) == "tokens"
    assert curves.axis([curve(100), (curves.Point(1, None, 1.0),)]) == "steps"


def test_plain_letters_where_the_stream_has_no_others() -> None:
    assert told.can_braille(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert not told.can_braille(io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert not told.can_braille(io.TextIOWrapper(io.BytesIO(), encoding="gb2312"))


def test_on_a_terminal(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", *(str(history / name) for name in ("low", "high", "other"))]) == 0
    out = capsys.readouterr().out
    assert "  lora_rank      8      16    16" in out
    assert "B is better in " in out
    assert (
        "not compared: eval (C): the rows or their right answers are not the same (24 rows, 20 rows)" in out
    )


def test_texts_of_models_are_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = bare(tmp_path / "a"), bare(tmp_path / "b")
    evil = "<script>alert(1)</script>\x1b[31m\u202e"
    evaluated(a, [evil] * 12, RIGHT)
    evaluated(b, RIGHT, RIGHT)
    result = beside([Run.open(a), Run.open(b)])
    lines = "\n".join(told.lines(result, unicode=True))
    assert "\x1b" not in lines and "\u202e" not in lines
    html = page(result)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "\x1b" not in html and "\u202e" not in html


def test_the_page(history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runs.html"
    words = ["compare", str(history / "low"), str(history / "high"), "--html", str(file)]
    assert cli.main(words) == 0
    assert f"written: {file}" in capsys.readouterr().err
    html = file.read_text("utf-8")
    assert html.count("<polyline") == 2 + 2 * html.count("<figure>")
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    with pytest.raises(UsageError, match=r"runs\.html is there already -> another name, or --overwrite"):
        cli.main(words)
    assert cli.main([*words, "--overwrite", "--words", "zh"]) == 0
    assert "运行对比" in file.read_text("utf-8")


def test_words_of_both_languages_have_the_same_keys() -> None:
    from luthier.pages import base

    def keys(found: Any, path: str = "") -> set[str]:
        inner = found.items() if isinstance(found, dict) else ()
        return {path}.union(*(keys(value, f"{path}.{key}") for key, value in inner))

    found = base.words("runs/words.yaml")
    assert keys(found["en"]) == keys(found["zh"])


def test_mistakes(history: Path) -> None:
    one = str(history / "low")
    with pytest.raises(UsageError, match="two to 26"):
        cli.main(["compare", one])
    with pytest.raises(UsageError, match="nowhere: no such directory"):
        cli.main(["compare", one, one, "--html", "nowhere/page.html"])
    with pytest.raises(UsageError, match=r"--rows -1 -> 0 or more"):
        cli.main(["compare", one, one, "--rows", "-1"])
    with pytest.raises(RunError, match="data: not a run directory"):
        cli.main(["compare", one, str(history / "data")])


def test_ties_in_time_are_no_matter(saves: Path) -> None:
    older(saves / "saves" / "good" / "luthier.json", 10)
    found = [listing.summary(folder) for folder in listing.find("saves")]
    assert len(listing.ordered(found, "updated")) == 3
    write(saves / "saves" / "good" / "all_results.json", [])
    assert "all_results" not in listing.summary(Path("saves/good")).path
    assert command.main(["runs", "saves"]) == 0
