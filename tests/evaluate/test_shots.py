"""Examples in the prompt of the base: which ones, in what words, and what the report says of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tasks
from luthier import cli
from luthier.config import load
from luthier.data.render import Renderer
from luthier.errors import DataError, UsageError
from luthier.evaluate import sets, shots, training
from luthier.evaluate.plan import Request, plan
from luthier.evaluate.run import evaluate
from luthier.evaluate.shots import Pool, Room
from luthier.infer import loading, questions
from luthier.infer.engine import generation
from luthier.infer.hf import HFEngine
from luthier.types import Example, Message

FIGURE = {"before", "after", "delta", "low", "high", "n", "verdict"}
SYSTEM = "You answer in one word."


def silent(line: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base/, run/ (an adapter that learnt nothing) and data/: `intent` to train, eval.json to evaluate."""
    folder = tmp_path_factory.mktemp("shots")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        settings = tasks.make(folder, count=30, learning_rate=1e-12, max_steps=1, save_steps=50, val_size=6)
        tasks.train(settings)
    rows = tasks.rows(40)[30:]
    (folder / "data" / "eval.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder


def base(place: Path, folder: Path, **keys: Any) -> Any:
    """The base on eval.json; results go to `folder`."""
    words = {"dataset": str(place / "data" / "eval.json"), "dataset_dir": str(place / "data")}
    words |= {"template": "chatml", "max_new_tokens": 3, "output_dir": str(folder), **keys}
    return load([str(place / "base"), *tasks.words(words)], "predict", {})


def example(question: str, answer: str, system: str = "") -> Example:
    head = (Message("system", system),) if system else ()
    said = (Message("assistant", answer, train=1.0),)
    return Example((*head, Message("user", question)), (said,), source=f"train.json:{question}")


def asked(place: Path, rows: Sequence[dict[str, str]], **keys: Any) -> tuple[sets.Set, Renderer, Any]:
    """Rows of a file as a Set, the renderer and the generation options."""
    file = place / "rows.json"
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    config = base(place, place / "out", dataset=str(file), **keys)
    _, renderer = loading.text(config, silent)
    found = questions.questions(config, renderer, silent)
    (one,) = sets.sets(found, "text", None, None)
    return one, renderer, generation(config, renderer, do_sample=False)


def prompts(
    place: Path, rows: Sequence[dict[str, str]], trained: Sequence[Example], k: int, context: int = 512
) -> tuple[shots.Shots, Renderer]:
    one, renderer, options = asked(place, rows)
    alone = sets.jobs(one, options, renderer, True, context)
    return shots.shots(one, alone, Pool(trained), k, Room(renderer, context, 0)), renderer


def row(question: str, answer: str = "yes", system: str = SYSTEM) -> dict[str, str]:
    return {"instruction": question, "input": "", "output": answer, "system": system}


TRAINED = (
    example("Where is my order?", "order", system="Another system message."),
    example("Can I return the lamp?", "return"),
    example("我的订单在哪里", "订单"),
)


def test_the_prompt_is_token_for_token_the_rendered_conversation(place: Path) -> None:
    """The most similar example stands next to the question; the question keeps its own system message."""
    before = {
        "where is the ORDER of mine": [("Can I return the lamp?", "return"), ("Where is my order?", "order")],
        "可以查我的订单吗": [("Where is my order?", "order"), ("我的订单在哪里", "订单")],
    }
    found, renderer = prompts(place, [row(question) for question in before], TRAINED, 2)
    (job,) = found.jobs["retrieved"]
    for ids, (question, turns) in zip(job.prompts, before.items(), strict=True):
        said = [{"role": "system", "content": SYSTEM}]
        for user, assistant in turns:
            said += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        said.append({"role": "user", "content": question})
        text = renderer.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        assert ids == renderer.tokenizer.encode(text, add_special_tokens=False)
    assert found.jobs["random"][0].only == job.only == "before"


def test_the_question_itself_is_never_its_example(place: Path) -> None:
    rows = [row("where is my  ORDER？"), row("Something else")]
    found, renderer = prompts(place, rows, [*TRAINED, example("Where is my order? ", "order")], 3)
    assert found.itself == 1
    for (job,) in found.jobs.values():
        text = renderer.tokenizer.decode(job.prompts[0])
        assert "Where is my order?" not in text
        assert text.count("<|im_start|>assistant") == 3
        assert renderer.tokenizer.decode(job.prompts[1]).count("Where is my order?") == 1
    assert found.fewer == {"random": 0, "retrieved": 0}


def test_random_examples_are_the_same_for_all_rows_and_of_different_classes(place: Path) -> None:
    trained = [example(f"question {i}", label) for i, label in enumerate("aaaaaaaaabbc")]
    found, renderer = prompts(place, [row(f"who are you {i}") for i in range(5)], trained, 3)
    (job,) = found.jobs["random"]
    heads = {renderer.tokenizer.decode(prompt).partition("who are you")[0] for prompt in job.prompts}
    assert len(heads) == 1
    pool = Pool(trained)
    assert sorted(pool.rows[i].answer for i in pool.drawn(3, 0, True)) == ["a", "b", "c"]
    assert sorted(pool.rows[i].answer for i in pool.drawn(6, 0, True)) == ["a", "a", "a", "b", "b", "c"]
    assert pool.drawn(3, 0, True) == pool.drawn(3, 0, True) != pool.drawn(3, 1, True)


def test_a_long_prompt_takes_the_nearest_examples_that_fit(place: Path) -> None:
    trained = [
        example("order " * 40, "far"),
        example("order " * 30 + "lamp", "mid"),
        example("my order", "near"),
    ]
    rows = [row("where is my order")]
    found, renderer = prompts(place, rows, trained, 3, context=160)
    (job,) = found.jobs["retrieved"]
    assert found.fewer["retrieved"] == 1 and len(job.prompts[0]) + 3 <= 160
    assert "near<|im_end|>" in renderer.tokenizer.decode(job.prompts[0])
    bare = asked(place, rows)[0].questions[0].prompt
    none, _ = prompts(place, rows, trained, 3, context=len(bare) + 4)
    assert none.jobs["retrieved"][0].prompts == [bare] and none.fewer == {"random": 1, "retrieved": 1}


def test_only_the_base_before_training(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = base(place, tmp_path)
    seen: list[int] = []
    honest = HFEngine.generate

    def counted(engine: HFEngine, prompts: Any, options: Any, progress: Any = None) -> Any:
        seen.append(len(prompts))
        return honest(engine, prompts, options, progress)

    monkeypatch.setattr(HFEngine, "generate", counted)
    request = Request(baseline=True, examples=("intent",))
    result = evaluate(config, request, silent)
    assert seen == [10, 10, 10]
    detail = result["details"]["eval"]
    found = detail["shots"]
    assert set(found) == {"k", "random", "retrieved", "tokens", "cut"} and found["k"] == 4
    for way in ("random", "retrieved"):
        assert {"accuracy", "likelihood_accuracy", "macro_f1"} <= set(found[way])
        assert all(set(figure) >= FIGURE for figure in found[way].values())
        assert found[way]["accuracy"]["before"] == result["tasks"]["eval"]["accuracy"]["before"]
        assert found["tokens"][way] > 2 * found["tokens"]["without"]
    assert detail["advice"][0]["key"] == "advice_looks_worth"
    assert "documents" not in detail
    again = evaluate(config, request, silent)
    assert seen[3:] == [0, 0, 0]
    assert again["details"]["eval"]["shots"] == found
    evaluate(config, Request(baseline=True, examples=("intent",), shots=2), silent)
    assert seen[6:] == [0, 10, 10]
    alone = evaluate(base(place, tmp_path / "alone"), Request(baseline=True), silent)["details"]["eval"]
    assert "shots" not in alone and alone["advice"][-1]["key"] in ("advice_no_examples", "advice_small")


def test_a_run_is_compared_with_its_own_training_rows_in_the_prompt(place: Path, tmp_path: Path) -> None:
    words = {"dataset": str(place / "data" / "eval.json"), "output_dir": str(tmp_path), "max_new_tokens": 3}
    config = load([str(place / "run"), *tasks.words(words)], "predict", {})
    assert "shots" not in evaluate(config, Request(suite=False), silent)["details"]["eval"]
    result = evaluate(config, Request(suite=False, shots=1), silent)
    found, alone = result["details"]["eval"], result["tasks"]["eval"]
    names = {"k", "random", "retrieved", "tuned_against_random", "tuned_against_retrieved", "tokens", "cut"}
    assert set(found["shots"]) == names
    for way in ("random", "retrieved"):
        shown, against = found["shots"][way], found["shots"][f"tuned_against_{way}"]
        assert set(shown) == set(against) == set(alone)
        for name, figure in alone.items():
            assert (shown[name]["before"], against[name]["after"]) == (figure["before"], figure["after"])
            assert shown[name]["after"] == against[name]["before"]
        assert shown["likelihood_ece"]["before"] != shown["likelihood_ece"]["after"]
    assert found["advice"][0]["key"] == "advice_no_evidence"
    lines = (tmp_path / "answers.after.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["task"] for line in lines} == {"eval", "eval.likelihood"}


def test_the_rows_of_a_run_without_those_that_it_held_out(place: Path) -> None:
    held = load([str(place / "run")], "predict", {})
    _, renderer = loading.text(held, silent)
    evaluated = {one.source for one in questions.questions(held, renderer, silent)}
    found = training.rows(held, evaluated)
    assert found is not None and len(evaluated) == 6
    assert {one.source for one in found} == {f"intent.json:{i}" for i in range(1, 31)} - evaluated
    assert [one.content for one in training.conversation(found[0])][1:] == [found[0].branches[0][0].content]


def test_shots_need_a_base_and_training_rows(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--baseline only"):
        evaluate(base(place, tmp_path), Request(shots=2, examples=("intent",)), silent)
    with pytest.raises(UsageError, match="--examples NAME"):
        evaluate(base(place, tmp_path), Request(shots=2, baseline=True), silent)
    with pytest.raises(DataError, match="nowhere"):
        evaluate(base(place, tmp_path), Request(baseline=True, examples=("nowhere",)), silent)


def test_the_words_of_the_command_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"dataset": str(place / "data" / "eval.json"), "dataset_dir": str(place / "data")}
    words = [str(place / "base"), *tasks.words({**data, "output_dir": str(tmp_path), "template": "chatml"})]
    words += ["--baseline", "only", "--examples", "intent", "--shots", "1", "--max_new_tokens", "2"]
    assert cli.main(["eval", *words]) == 0
    assert "advice: Fine-tuning looks worth it" in capsys.readouterr().out
    assert cli.main(["eval", *words[:-4], "--shots", "x"]) == 2
    assert "--shots: x" in capsys.readouterr().err


def test_when_examples_are_shown(place: Path) -> None:
    one, renderer, _ = asked(place, [row("Hello")])
    config = base(place, place / "out")

    def names(request: Request, trained: tuple[Example, ...] | None) -> list[str]:
        return [job.name for job in plan([one], config, request, renderer, 512, trained).jobs]

    both = ["rows", "rows.shots.random", "rows.shots.retrieved"]
    assert names(Request(baseline=True), TRAINED) == names(Request(shots=1), TRAINED) == both
    assert names(Request(baseline=True, shots=0), TRAINED) == ["rows"]
    assert names(Request(baseline=True), None) == names(Request(), TRAINED) == ["rows"]


def test_questions_for_facts_ask_for_documents(place: Path, tmp_path: Path) -> None:
    rows = [row(f"How heavy is the Mule{i}?", f"It weighs {1000 + 7 * i} kg.") for i in range(20)]
    known = [row(f"Please tell me how heavy the Mule{i} is.", f"{1000 + 7 * i} kg") for i in range(20)]
    for name, content in (("facts", rows), ("known", known)):
        (place / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    config = base(place, tmp_path, dataset=str(place / "facts.json"))
    request = Request(task="text", baseline=True, examples=(str(place / "known.json"),), shots=1)
    detail = evaluate(config, request, silent)["details"]["facts"]
    assert detail["documents"] | {"near": 0} == {
        **{"n": 20, "asks": 1.0, "rows": 1.0, "in_question": 0.0, "in_nearest": 1.0, "near": 0}
    }
    assert detail["advice"][0]["key"] == "advice_documents_near"
