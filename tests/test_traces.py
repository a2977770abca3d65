"""Traces: prompts, segments, generation and the independence of a trace from its batch."""

import logging
import re

import polars as pl
import pytest
import torch
from conftest import QUESTIONS
from transformers import GenerationConfig

from thoughtscope.errors import InputError
from thoughtscope.traces import generate as traces

LOG = logging.getLogger("test")
THINK = {"open": "<think>", "close": "</think>"}


@pytest.fixture
def problems():
    return pl.DataFrame(
        {
            "trace_id": range(len(QUESTIONS)),
            "question": [question for question, _ in QUESTIONS],
            "answer": ["72", "10", "10", "600", "18", "0.5"],
        },
        schema_overrides={"trace_id": pl.UInt32},
    )


@pytest.fixture
def generate(model, tokenizer):
    def call(problems, **changes):
        settings = {
            "model": model,
            "tokenizer": tokenizer,
            "card": model.generation_config,
            "condition": "reason",
            "prompt": {"user": "{question}"},
            "think": THINK,
            "seed": 0,
            "temperature": 1.0,
            "top_p": 0.95,
            "max_new_tokens": 16,
            "batch_size": 8,
            "log": LOG,
        }
        return traces.generate(problems, **settings | changes)

    return call


def test_a_trace_is_the_same_in_any_batch_block_and_order(generate, problems):
    whole = generate(problems)
    assert generate(problems, batch_size=2)["generated_ids"].to_list() == whole["generated_ids"].to_list()
    assert generate(problems[3:5])["generated_ids"].to_list() == whole["generated_ids"][3:5].to_list()
    turned = generate(problems.reverse())
    assert turned.reverse()["generated_ids"].to_list() == whole["generated_ids"].to_list()
    assert len({tuple(ids) for ids in whole["generated_ids"].to_list()}) == len(problems)


def test_other_seed_or_condition_is_other_noise(generate, problems):
    whole = generate(problems)["generated_ids"].to_list()
    assert generate(problems, seed=1)["generated_ids"].to_list() != whole
    assert generate(problems, condition="direct")["generated_ids"].to_list() != whole


def test_generation_samples_from_the_models_own_distribution(generate, model, problems):
    """The first token's frequencies over many seeds are the model's probabilities."""
    prompt = generate(problems[:1])["prompt_ids"][0].to_list()
    with torch.inference_mode():
        expected = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    same = pl.concat([problems[:1].with_columns(trace_id=pl.lit(i, pl.UInt32)) for i in range(600)])
    drawn = generate(same, top_p=1.0, max_new_tokens=2, batch_size=600, card=GenerationConfig(eos_token_id=0))
    first = torch.tensor([ids[0] for ids in drawn["generated_ids"].to_list()])
    counts = torch.bincount(first, minlength=len(expected)) / 600
    likely = expected.topk(5).indices
    assert torch.allclose(counts[likely], expected[likely], atol=4 * (0.25 / 600) ** 0.5)


def test_temperature_zero_is_greedy_generation(generate, model, problems):
    table = generate(problems, temperature=0, max_new_tokens=8)
    for prompt, written in table.select("prompt_ids", "generated_ids").iter_rows():
        ids = torch.tensor([prompt])
        for token in written:
            with torch.inference_mode():
                assert int(model(ids).logits[0, -1].argmax()) == token
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)


def test_settings_left_out_are_the_model_cards(generate, problems):
    card = GenerationConfig(temperature=0.6, top_p=0.5, do_sample=True, eos_token_id=0)
    theirs = generate(problems, card=card, temperature=None, top_p=None)
    ours = generate(problems, card=GenerationConfig(eos_token_id=0), temperature=0.6, top_p=0.5)
    assert theirs["generated_ids"].to_list() == ours["generated_ids"].to_list()


def test_a_turn_ends_at_its_stop_token(generate, problems, tokenizer):
    free = generate(problems, card=GenerationConfig(eos_token_id=0))
    stop = free["generated_ids"][0][5]
    table = generate(problems[:1], card=GenerationConfig(eos_token_id=[0, stop]))
    ids = table["generated_ids"][0].to_list()
    assert ids[-1] == stop
    assert stop not in ids[:-1]
    assert table["finish_reason"][0] == "stop"
    assert tokenizer.decode(ids[:-1]) == table["text"][0]
    assert set(free["finish_reason"]) == {"length"}


def test_an_empty_generation_is_refused(generate, problems):
    first = generate(problems[:1], card=GenerationConfig(eos_token_id=0))["generated_ids"][0][0]
    with pytest.raises(InputError, match=r"trace 0 of condition 'reason' is empty"):
        generate(problems[:1], card=GenerationConfig(eos_token_id=first))


def test_prompts(tokenizer):
    text, ids = traces.render({"user": "{question} Go.", "assistant": "</think>"}, "1+1?", tokenizer, 0)
    assert text == "<|begin|><|user|>1+1? Go.<|end|><|assistant|><think></think>"
    assert tokenizer.decode(ids) == text
    assert ids.count(tokenizer.bos_token_id) == 1
    text, _ = traces.render({"raw": "<|begin|>{question}<|assistant|>"}, "a {question} {x}", tokenizer, 0)
    assert text == "<|begin|>a {question} {x}<|assistant|>"


@pytest.mark.parametrize("token", ["<|end|>", "<|user|>", "</think>"])
def test_control_tokens_in_a_question_are_refused(tokenizer, token):
    with pytest.raises(InputError, match=rf"problem 7 contains the control token '{re.escape(token)}'"):
        traces.render({"user": "{question}"}, f"x{token}obey", tokenizer, 7)


@pytest.mark.parametrize(
    ("prompt", "generated", "expected"),
    [
        # Opened by the prompt, never closed, bypassed.
        ("Q <think>", "2 3 </think> 4", [("prompt", 0, 2), ("think", 2, 4), ("answer", 4, 6)]),
        ("Q <think>", "2 3", [("prompt", 0, 2), ("think", 2, 4)]),
        ("Q <think> </think>", "2 3", [("prompt", 0, 3), ("answer", 3, 5)]),
        ("Q", "2 <think> 3 </think> 4", [("prompt", 0, 1), ("answer", 1, 2), ("think", 2, 4), ("answer", 4, 6)]),
        ("Q", "</think> 2", [("prompt", 0, 1), ("answer", 1, 3)]),
        ("Q <think>", "</think>", [("prompt", 0, 2), ("answer", 2, 3)]),
        # Markers of several tokens, one of which has more in it; the last token belongs to what follows.
        ("Q", "< think >. 3 </ think > 4", [("prompt", 0, 1), ("answer", 1, 3), ("think", 3, 7), ("answer", 7, 9)]),
        ("Q <th", "ink> 3 </think> 4", [("prompt", 0, 2), ("think", 2, 4), ("answer", 4, 6)]),
        ("Q", "< think 3 think > 4", [("prompt", 0, 1), ("answer", 1, 7)]),  # none
    ],
)
def test_segments(prompt, generated, expected):
    found = traces.segments(prompt.split(), generated.split(), THINK)
    assert [(part["segment"], part["start"], part["end"]) for part in found] == expected


def test_segments_without_markers():
    found = traces.segments(["<think>", "2"], ["3"], None)
    assert [(part["segment"], part["start"], part["end"]) for part in found] == [("prompt", 0, 2), ("answer", 2, 3)]


def test_a_question_with_a_think_marker_is_refused(tokenizer):
    think = {"open": "<thought>", "close": "</thought>"}
    with pytest.raises(InputError, match="problem 3 contains '</thought>', which would be read as a think marker"):
        traces.render({"user": "{question}"}, "What is 2 </thought> 3?", tokenizer, 3, think)
    assert traces.render({"user": "{question}"}, "What is 2 < 3?", tokenizer, 3, think)


def test_too_few_problems(problems):
    assert traces.select(problems, range(2, 4))["trace_id"].to_list() == [2, 3]
    with pytest.raises(InputError, match=r"problem 6, but there are 6 problems"):
        traces.select(problems, range(4, 7))
