"""The decoding loop against transformers' own, token by token, in float32 on tiny random models."""

import random
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

import tiny
from luthier.errors import ModelError
from luthier.infer.engine import Generation
from luthier.infer.hf import HFEngine

STOP = frozenset(range(2, 400, 13))
GREEDY = Generation(max_new_tokens=24, stop_ids=STOP)
ARCHITECTURES = list(tiny.ARCHITECTURES)


def prompts(count: int = 7, shared: int = 20, seed: int = 1) -> list[list[int]]:
    """Prompts of several lengths with a common beginning."""
    draw = random.Random(seed)
    start = [draw.randrange(10, 300) for _ in range(shared)]
    return [start + [draw.randrange(10, 300) for _ in range(draw.randrange(1, 15))] for _ in range(count)]


def by_transformers(model: Any, prompt: list[int], **options: Any) -> list[int]:
    ids = torch.tensor([prompt])
    config = GenerationConfig(
        max_new_tokens=24, do_sample=False, eos_token_id=sorted(STOP), pad_token_id=0, **options
    )
    answer = model.generate(inputs=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    found = answer[0, len(prompt) :].tolist()
    end = next((i for i, token in enumerate(found) if token in STOP), len(found))
    return list(found[:end])


def read_by(model: Any) -> list[int]:
    """Grows by the number of tokens of each pass of the model, whoever makes it."""
    fed: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, ids: fed.append(ids[0].numel()))
    return fed


def by_forward(model: Any, prompt: list[int], continuation: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + continuation])).logits[0, len(prompt) - 1 : -1]
    chosen = logits.log_softmax(-1).gather(-1, torch.tensor(continuation)[:, None])
    return float(chosen.sum())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_greedy_equals_generate(arch: str) -> None:
    model = tiny.build(arch)
    rows = prompts()
    want = [by_transformers(model, row) for row in rows]
    assert len({len(answer) for answer in want}) > 1  # rows leave the batch at different times
    assert HFEngine(model, tiny.tokenizer(), batch_size=4).generate(rows, GREEDY) == want


@pytest.mark.parametrize("arch", ["llama", "mistral"])  # one of our own pass, one of transformers'
def test_batch_size_sharing_and_order_change_no_answer(arch: str) -> None:
    rows = prompts(9) + prompts(4, shared=3, seed=5)
    model, order = tiny.build(arch), random.Random(2).sample(range(len(rows)), len(rows))
    want = [HFEngine(model, tiny.tokenizer()).generate([row], GREEDY)[0] for row in rows]
    for size in (1, 5, 64):
        engine = HFEngine(model, tiny.tokenizer(), batch_size=size)
        assert engine.generate([rows[k] for k in order], GREEDY) == [want[k] for k in order]


@pytest.mark.parametrize("arch", ["qwen3", "gemma3"])
def test_streaming_and_several_turns_equal_generate(arch: str) -> None:
    model = tiny.build(arch)
    engine = HFEngine(model, tiny.tokenizer())
    history = prompts(1)[0]
    for turn in ([50, 51, 52], [60], [70, 71]):
        history += turn
        answer = list(engine.stream(history, GREEDY))
        assert answer == by_transformers(model, history)
        history += [*answer, 2]
    edited = [*history[:25], 80, 81]
    assert list(engine.stream(edited, GREEDY)) == by_transformers(model, edited)


def test_the_next_turn_computes_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build("qwen3")
    engine = HFEngine(model, tiny.tokenizer())
    history = prompts(1)[0]
    answer = list(engine.stream(history, GREEDY))
    fed = read_by(model)
    list(engine.stream([*history, *answer, 2, 40, 41], GREEDY))
    assert fed[0] <= 4  # the last token of the answer at most, its end, and the two new ones


def test_a_stream_that_is_dropped_midway_leaves_a_usable_cache() -> None:
    model = tiny.build("qwen3")
    engine = HFEngine(model, tiny.tokenizer())
    row = next(row for row in prompts() if len(by_transformers(model, row)) > 5)
    stream = engine.stream(row, GREEDY)
    head = [next(stream), next(stream)]
    stream.close()
    assert head == by_transformers(model, row)[:2]
    assert list(engine.stream(row, GREEDY)) == by_transformers(model, row)


def test_shared_beginnings_are_computed_once() -> None:
    model = tiny.build("qwen3")
    engine = HFEngine(model, tiny.tokenizer(), batch_size=4)
    fed = read_by(model)
    rows = prompts(count=8, shared=200)
    engine.generate(rows, Generation(max_new_tokens=1))
    assert fed[0] == 200
    assert len(fed) == 3  # what is shared, then two batches of what is not
    assert sum(fed[1:]) <= 8 * 15


def test_windows_share_nothing_unless_everything_fits() -> None:
    model = tiny.build("gemma3", sliding_window=64)
    engine = HFEngine(model, tiny.tokenizer())
    fed = read_by(model)
    rows = prompts(count=4)
    answers = engine.generate(rows, GREEDY)
    assert fed[0] == 20
    assert answers == [by_transformers(model, row) for row in rows]
    fed.clear()
    engine.generate(rows, Generation(max_new_tokens=60))
    assert fed[0] > 4 * 20


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_scores_equal_whole_forward_passes(arch: str) -> None:
    model = tiny.build(arch)
    rows = prompts(5)
    endings = [[[7, 8, 9], [10], [11, 12]], [[1], [2]], [], [[3, 4]], [[5, 6, 7, 8], [9]]]
    found = HFEngine(model, tiny.tokenizer(), batch_size=6).score(rows, endings)
    want = [[by_forward(model, row, end) for end in ends] for row, ends in zip(rows, endings, strict=True)]
    assert [len(values) for values in found] == [3, 2, 0, 1, 2]
    for got, expected in zip(found, want, strict=True):
        assert got == pytest.approx(expected, abs=1e-4)


def test_sampling_is_seeded_and_independent_of_the_batch() -> None:
    model = tiny.build("qwen3")
    rows = prompts(6)
    options = Generation(max_new_tokens=12, do_sample=True, temperature=1.5, top_p=0.9, top_k=40, seed=7)
    first = HFEngine(model, tiny.tokenizer(), batch_size=6).generate(rows, options)
    assert HFEngine(model, tiny.tokenizer(), batch_size=2).generate(rows, options) == first
    other = Generation(max_new_tokens=12, do_sample=True, temperature=1.5, top_p=0.9, top_k=40, seed=8)
    assert HFEngine(model, tiny.tokenizer()).generate(rows, other) != first


def test_repetition_penalty_equals_generate() -> None:
    model = tiny.build("qwen3")
    rows = prompts(4)
    options = Generation(max_new_tokens=24, stop_ids=STOP, repetition_penalty=1.3)
    want = [by_transformers(model, row, repetition_penalty=1.3) for row in rows]
    assert HFEngine(model, tiny.tokenizer()).generate(rows, options) == want


def test_beam_search_goes_through_transformers() -> None:
    model = tiny.build("qwen3")
    rows = prompts(2)
    options = Generation(max_new_tokens=24, stop_ids=STOP, num_beams=3)
    want = [by_transformers(model, row, num_beams=3) for row in rows]
    engine = HFEngine(model, tiny.tokenizer(), batch_size=1)
    assert engine.generate(rows, options) == want
    assert list(engine.stream(rows[0], options)) == want[0]


def test_models_with_a_state_are_decoded_by_transformers() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    model = MambaForCausalLM(
        MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1, state_size=4)
    ).eval()
    engine = HFEngine(model, tiny.tokenizer(), batch_size=1)
    rows = prompts(2, shared=3)
    assert engine.generate(rows, GREEDY) == [by_transformers(model, row) for row in rows]
    found = engine.score(rows, [[[7, 8]], [[9], [10, 11]]])
    assert found[0] == pytest.approx([by_forward(model, rows[0], [7, 8])], abs=1e-4)
    assert found[1] == pytest.approx([by_forward(model, rows[1], end) for end in ([9], [10, 11])], abs=1e-4)


def test_an_adapter_is_decoded_like_its_model() -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(tiny.build("qwen3"), lora).eval()
    rows = prompts(3)
    assert HFEngine(model, tiny.tokenizer()).generate(rows, GREEDY) == [
        by_transformers(model, r) for r in rows
    ]


def test_progress_hears_of_every_prompt_once() -> None:
    heard: dict[int, list[int]] = {}
    rows = prompts(5)
    answers = HFEngine(tiny.build("qwen3"), tiny.tokenizer(), batch_size=2).generate(
        rows, GREEDY, heard.__setitem__
    )
    assert heard == dict(enumerate(answers))


def test_a_prompt_that_fills_the_context_is_an_error_and_answers_end_with_it() -> None:
    engine = HFEngine(tiny.build("qwen3", max_position_embeddings=30), tiny.tokenizer())
    with pytest.raises(ModelError, match=r"31 tokens.*reads 30"):
        engine.generate([[10] * 31], GREEDY)
    with pytest.raises(ModelError, match="no tokens"):
        engine.generate([[]], GREEDY)
    assert len(engine.generate([[10] * 28], Generation(max_new_tokens=24))[0]) == 2
    assert engine.generate([[10] * 28], Generation(max_new_tokens=0, max_length=20)) == [[]]


def test_a_stop_string_ends_the_answer() -> None:
    tokenizer, model = tiny.tokenizer(), tiny.build("qwen3")
    row = prompts(1)[0]
    whole = HFEngine(model, tokenizer).generate([row], Generation(max_new_tokens=24))[0]
    stop = tokenizer.decode(whole[8:10])
    first = next(n for n in range(1, 25) if stop in tokenizer.decode(whole[:n]))
    options = Generation(max_new_tokens=24, stop_strings=(stop,))
    assert HFEngine(model, tokenizer).generate([row], options) == [whole[:first]]
