"""Decoding: token by token what transformers' own `generate` writes, in any batch, and at what each step costs."""

import logging
from functools import partial

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM

from thoughtscope.traces import decoding
from thoughtscope.traces.decoding import Decoder, Draws, decode, generate, is_known, write
from thoughtscope.traces.sampling import uniforms

LOG = logging.getLogger("test")
STOP = range(6)
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
KNOWN = {
    "llama": ("Llama", {}),
    "llama, biased": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, tied": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama3 rope": ("Llama", {"rope_parameters": LLAMA3}),
    "yarn rope": ("Llama", {"rope_parameters": YARN, "num_key_value_heads": 1}),
    "linear rope": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 12}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "seed": ("SeedOss", {"head_dim": 16, "attention_bias": True, "attention_out_bias": True}),
}
UNKNOWN = {
    "another activation": ("Llama", {"hidden_act": "gelu"}),
    "a rope that changes": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
    "a window": ("Mistral", {"sliding_window": 8}),
    "windows in some layers": ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    "other blocks": ("Gemma", {"head_dim": 8}),
}


def build(name, **settings):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        **{"vocab_size": 160, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
           "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 0} | settings
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    for parameter in model.parameters():  # biases are made 0 and norms 1, with which much would go unseen
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def prompts_of(count, shortest=3):
    """Prompts of different lengths, by trace."""
    torch.manual_seed(1)
    return {trace: torch.randint(1, 160, (shortest + 5 * trace % 17,)).tolist() for trace in range(count)}


def written(way, model, prompts, rows, steps=24, stop_ids=STOP, on_step=lambda ids: None, **changes):
    draws = Draws(uniforms(0, "reason", range(len(prompts)), steps), 1.0, 0.95, range(len(prompts)))._replace(**changes)
    return dict(way(model, prompts, draws, steps, frozenset(stop_ids), rows, on_step))


@pytest.mark.parametrize("name", KNOWN)
def test_known_models_write_what_generate_writes(name):
    model, prompts = build(KNOWN[name][0], **KNOWN[name][1]), prompts_of(9)
    assert is_known(model)
    expected = written(generate, model, prompts, 9)
    ended = [ids[-1] in STOP for ids in expected.values()]
    assert any(ended)
    assert not all(ended)
    assert written(decode, model, prompts, 9) == expected
    assert written(decode, model, prompts, 3) == expected  # others join where some have ended


@pytest.mark.parametrize(("variant", "rows"), [("packed", 1), ("joined", 20), ("joined", 2), ("all rows", 5)])
def test_a_trace_is_the_same_in_any_number_of_rows_and_layout(variant, rows, monkeypatch):
    model, prompts = build("Qwen2"), prompts_of(8)
    expected = written(generate, model, prompts, 4, steps=70, stop_ids=STOP[:2])  # the cache grows
    assert max(map(len, expected.values())) == 70
    before = model(torch.tensor([prompts[3]])).logits
    if variant != "packed":
        monkeypatch.setattr(decoding, "_packs", lambda weight: False)
    if variant == "all rows":  # as a CUDA graph has it
        monkeypatch.setattr(decoding, "Decoder", partial(Decoder, static=True))
    assert written(decode, model, prompts, rows, steps=70, stop_ids=STOP[:2]) == expected
    assert torch.equal(model(torch.tensor([prompts[3]])).logits, before)  # the model is left whole


@pytest.mark.parametrize("name", KNOWN)
def test_logits_are_those_of_the_models_own_pass(name):
    model, prompts = build(KNOWN[name][0], **KNOWN[name][1]), list(prompts_of(4).values())
    decoder = Decoder(model, 5)
    read = [list(prompt) for prompt in prompts]
    with torch.inference_mode():
        logits = torch.cat([decoder.prefill(prompts[:1], 0), decoder.prefill(prompts[1:], 1)])
        for _ in range(12):
            for row, ids in enumerate(read):
                expected = model(torch.tensor([ids])).logits[0, -1]
                assert (logits[row] - expected).abs().max() < 1e-4 * expected.abs().max()
                ids.append(int(expected.argmax()))
            logits = decoder.step([ids[-1] for ids in read], [len(ids) - 1 for ids in read])


def test_in_bfloat16_logits_are_as_near_as_its_rounding():
    model, prompts = build("Qwen3"), list(prompts_of(3).values())
    exact = torch.stack([model(torch.tensor([[*prompt, 9]])).logits[0, -1] for prompt in prompts])
    decoder = Decoder(model.bfloat16(), 3)
    with torch.inference_mode():
        decoder.prefill(prompts, 0)
        ours = decoder.step([9] * 3, list(map(len, prompts))).float()
    theirs = torch.stack([model(torch.tensor([[*prompt, 9]])).logits[0, -1] for prompt in prompts]).float()
    assert (ours - exact).norm() < 1.5 * (theirs - exact).norm()


def test_greedy_and_whole_distributions_too():
    model, prompts = build("Llama"), prompts_of(4)
    for changes in ({"temperature": 0}, {"top_p": 1.0}):
        assert written(decode, model, prompts, 4, **changes) == written(generate, model, prompts, 4, **changes)


@pytest.mark.parametrize("name", UNKNOWN)
def test_models_that_are_not_known_go_through_generate(name):
    model, prompts = build(UNKNOWN[name][0], **UNKNOWN[name][1]), prompts_of(5, shortest=12)
    assert not is_known(model)
    draws = Draws(uniforms(0, "reason", range(5), 6), 1.0, 1.0, range(5))
    ids = write(model, list(prompts.values()), draws, max_new_tokens=6, stop_ids=[], batch_size=2, log=LOG)
    for trace, prompt in prompts.items():
        alone = write(model, [prompt], draws._replace(noise=draws.noise[[trace]]),
                      max_new_tokens=6, stop_ids=[], batch_size=1, log=LOG)  # fmt: skip
        assert alone == [ids[trace]]


def test_a_model_that_was_changed_is_not_known():
    class Adapted(nn.Linear):
        pass

    assert is_known(build("Llama"))
    assert not is_known(build("Llama").train())
    model = build("Llama")
    model.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    assert not is_known(model)
    model = build("Llama")
    model.model.layers[1].self_attn.q_proj = Adapted(32, 32, bias=False)
    assert not is_known(model)
    model = build("Llama")
    model.lm_head.bfloat16()
    assert not is_known(model)


def test_only_traces_under_way_are_computed(monkeypatch):
    """A step has a row for each trace that still writes, and a row that is free is taken by a trace that waits."""
    counts = []
    step = Decoder.step

    def counted(self, tokens, positions):
        counts.append(len(tokens))
        return step(self, tokens, positions)

    monkeypatch.setattr(Decoder, "step", counted)
    prompts = prompts_of(12)
    ids = written(decode, build("Llama"), prompts, 4)
    tokens = sum(map(len, ids.values())) - len(prompts)  # the first of each follows from its prompt
    assert sum(counts) == tokens
    longest_of_batches = [max(len(ids[trace]) for trace in range(first, first + 4)) - 1 for first in (0, 4, 8)]
    assert len(counts) < sum(longest_of_batches)


def test_what_runs_out_of_memory_goes_on_with_fewer_rows_and_keeps_what_is_written(monkeypatch, caplog):
    model, prompts = build("Llama"), prompts_of(10)
    expected = written(generate, model, prompts, 10)
    fits, prefilled = Decoder.step, []

    def step(self, tokens, positions):
        if len(tokens) > 2 and max(positions) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fits(self, tokens, positions)

    def prefill(self, prompts, first, prefill=Decoder.prefill):
        prefilled.extend(map(tuple, prompts))
        return prefill(self, prompts, first)

    monkeypatch.setattr(Decoder, "step", step)
    monkeypatch.setattr(Decoder, "prefill", prefill)
    draws = Draws(uniforms(0, "reason", range(10), 24), 1.0, 0.95, range(10))
    ids = write(
        model, list(prompts.values()), draws, max_new_tokens=24, stop_ids=STOP, batch_size=5, log=LOG
    )  # fmt: skip
    assert ids == list(expected.values())
    assert "out of GPU memory with 5 traces at a time; going on with 2" in caplog.text
    assert len(prefilled) < 2 * len(prompts)


def test_where_a_graph_cannot_be_captured_steps_go_on_without(caplog):
    model, prompts = build("Llama"), list(prompts_of(3).values())
    plain, captured = Decoder(model, 3), Decoder(model, 3, static=True)
    captured.capture = True  # on a processor, where it fails
    with torch.inference_mode():
        for decoder in (plain, captured):
            decoder.prefill(prompts, 0)
        for position in range(2):
            places = [len(prompt) + position for prompt in prompts]
            assert torch.allclose(plain.step([5] * 3, places), captured.step([5] * 3, places), atol=1e-4)
    assert caplog.text.count("no CUDA graph") == 1
