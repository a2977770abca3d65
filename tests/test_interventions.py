"""Interventions: edits at a site against a splice by hand, in models of several kinds; effects where they are known."""

import copy
import logging

import numpy as np
import polars as pl
import pytest
import torch
from conftest import cells, new_study, open_board, open_page, write_jsonl

from thoughtscope import files, sites
from thoughtscope.errors import InputError
from thoughtscope.frames import complete
from thoughtscope.interventions import (
    ablations,
    attribution,
    cost,
    effects,
    forced,
    injections,
    stability,
    steered,
    steering,
    targets,
    token_changes,
)
from thoughtscope.interventions.responses import responses
from thoughtscope.interventions.stable import stable_patterns
from thoughtscope.interventions.tables import ABLATIONS_SCHEMA, INJECTIONS_SCHEMA, STEERING_SCHEMA
from thoughtscope.report import effects as report
from thoughtscope.saes import coder
from thoughtscope.traces import decoding
from thoughtscope.traces.sampling import uniforms

LOG = logging.getLogger("test")

SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 64}


def random_model(kind):
    """A small random model of an architecture."""
    from transformers import AutoConfig, AutoModelForCausalLM

    more = {
        "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0},
        "gpt_neox": SIZES | {"intermediate_size": 64},
        "gemma2": SIZES | {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 5},
    }.get(kind, SIZES | {"intermediate_size": 64, "num_key_value_heads": 2})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **more), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # so that what is edited matters
    return model.eval().requires_grad_(False)


def by_hand(model, module, entering, ids, delta, positions):
    """Log-probabilities behind the positions with `delta` added to what a module puts out or, else, takes in."""

    def on_output(_module, _args, output):
        return (output[0] + delta, *output[1:]) if isinstance(output, tuple) else output + delta

    def on_input(_module, args, kwargs):
        if args:
            return (args[0] + delta, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] + delta}

    if entering:
        handle = module.register_forward_pre_hook(on_input, with_kwargs=True)
    else:
        handle = module.register_forward_hook(on_output)
    with handle, torch.no_grad():
        return model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0, positions].double().log_softmax(-1)


KINDS = {
    "llama": ("layers.2.mlp", "layers.2.self_attn", "layers.2.mlp@residual_in", "layers.2", "layers.0.mlp", "layers.3"),
    "qwen3": ("layers.2.mlp", "layers.1.mlp@residual_out"),
    "gemma2": ("layers.2.mlp", "layers.3.mlp@residual_in", "layers.1"),
    "gpt2": ("h.2.mlp", "h.1.mlp@residual_in", "h.3.attn"),
    "gpt_neox": ("layers.2.mlp", "layers.2.mlp@residual_out"),
}


@pytest.mark.parametrize(("kind", "site"), [(kind, site) for kind, every in KINDS.items() for site in every])
def test_an_edit_is_a_splice_by_hand(kind, site, monkeypatch):
    """Every arm, whatever batch it is in; to 1e-5 in float32."""
    model = random_model(kind)
    chance = torch.Generator().manual_seed(1)
    ids = torch.randint(64, (12,), generator=chance)
    positions = [2, 5, 10]
    sets = torch.rand(2, 64, generator=chance) < 0.2
    trace = forced.read(model, site, 7, ids.tolist())
    deltas = torch.randn(5, 12, 32, generator=chance) * trace.states.std()
    deltas[1, :6] = 0
    monkeypatch.setattr(forced, "BATCH_TOKENS", 12 * 4)  # three arms a batch
    found = forced.change(model, site, trace, deltas, positions, sets)

    hookpoint, _, read_from = site.partition("@")
    module = model.base_model.get_submodule(".".join(hookpoint.split(".")[:2]) if read_from else hookpoint)
    entering = read_from == "residual_in"
    unedited = by_hand(model, module, entering, ids, torch.zeros(12, 32), positions)
    behind = ids[torch.tensor(positions) + 1]
    for arm, delta in enumerate(deltas):
        edited = by_hand(model, module, entering, ids, delta, positions)
        actual = (edited - unedited)[torch.arange(3), behind]
        assert actual.abs().max() > 1e-2 or arm == 1
        torch.testing.assert_close(found.actual[arm].double(), actual, rtol=0, atol=1e-5)
        kl = (unedited.exp() * (unedited - edited)).sum(-1)
        torch.testing.assert_close(found.kl[arm].double(), kl, rtol=0, atol=1e-5)
        p, q = (one.exp().gather(-1, behind.unsqueeze(-1)).squeeze(-1) for one in (unedited, edited))
        torch.testing.assert_close(found.odds[arm].double(), q.logit() - p.logit(), rtol=0, atol=2e-5)
        for index, members in enumerate(sets):
            p, q = (one[:, members].exp().sum(-1) for one in (unedited, edited))
            torch.testing.assert_close(found.sets[arm, :, index].double(), (q / p).log(), rtol=0, atol=1e-5)
            change = q.logit() - p.logit()
            torch.testing.assert_close(found.sets_odds[arm, :, index].double(), change, rtol=0, atol=2e-5)
    assert found.actual[1, 0] == 0  # nothing was edited up to there


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_may_be_the_head_alone(kind):
    model, ids = random_model(kind), torch.arange(9).unsqueeze(0)
    whole = model(input_ids=ids, use_cache=False).logits
    with sites.ending_with(model, model.base_model(input_ids=ids, use_cache=False)):
        chosen = model(input_ids=ids, use_cache=False, logits_to_keep=torch.tensor([2, 5])).logits
    torch.testing.assert_close(chosen, whole[:, [2, 5]], rtol=0, atol=1e-5)
    torch.testing.assert_close(model(input_ids=ids, use_cache=False).logits, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_may_start_at_any_block(kind):
    model = random_model(kind)
    name, blocks = sites.blocks(model)
    ids = torch.arange(9).unsqueeze(0)
    whole = model(input_ids=ids, use_cache=False).logits
    for layer in range(len(blocks)):
        entry = f"{name}.{layer}@residual_in"
        with sites.reading(model, [entry]) as states:
            model(input_ids=ids, use_cache=False)
        with sites.starting_at(model, layer, states[entry]):
            again = model(input_ids=torch.zeros_like(ids), use_cache=False).logits
        torch.testing.assert_close(again, whole, rtol=0, atol=1e-5)
    assert sites.blocks(model)[1] is blocks


S, W, WIDTH, VOCABULARY = 3, 7, 64, 60
"""The token that writes the planted direction, the word that this raises, and sizes of the model with the plant."""


def planted(direction):
    """A random Llama in whose block 1 one neuron of the MLP answers to S and writes a direction that W's row reads."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
            vocab_size=VOCABULARY, tie_word_embeddings=False,
        )
    )  # fmt: skip
    with torch.no_grad():
        rows = model.model.embed_tokens.weight.normal_()
        own = rows[S] / rows[S].norm()
        mlp = model.model.layers[1].mlp
        for part, std in ((mlp.gate_proj, 0.12), (mlp.up_proj, 0.12), (mlp.down_proj, 0.05)):
            part.weight.normal_(std=std)  # or S would be a sink: its MLP's output ten times as large as the others'
        down = mlp.down_proj.weight
        down -= direction[:, None] * (direction @ down)  # no other neuron writes it
        mlp.gate_proj.weight[0] = mlp.up_proj.weight[0] = own
        mlp.down_proj.weight[:, 0] = direction * 0.1
        model.lm_head.weight[W] += direction
    return model.eval().requires_grad_(False)


def traces_by(model, count, length=50):
    """Traces that a model writes, from a prompt of two tokens, with their vocabulary and where they have W."""
    chance = torch.Generator().manual_seed(2)
    ids = torch.randint(8, VOCABULARY, (count, 2), generator=chance)
    for _ in range(length):
        odds = model(input_ids=ids, use_cache=False).logits[:, -1].softmax(-1)
        odds[:, S] += 0.1  # else it would be rare
        ids = torch.cat([ids, torch.multinomial(odds, 1, generator=chance)], dim=1)
    segments = [{"segment": "prompt", "start": 0, "end": 2}, {"segment": "answer", "start": 2, "end": length + 2}]
    rows = [
        {"trace_id": index, "prompt_ids": row[:2], "generated_ids": row[2:], "segments": segments}
        for index, row in enumerate(ids.tolist())
    ]
    matches = [
        {"trace_id": index, "kind": "pattern", "name": "say", "start": place, "end": place + 1}
        for index, row in enumerate(ids.tolist())
        for place in range(2, length + 2)
        if row[place] == W
    ]
    vocabulary = pl.LazyFrame(
        {"token_id": range(VOCABULARY), "text": [f" w{index}" for index in range(VOCABULARY)]},
        schema_overrides={"token_id": pl.UInt32},
    )
    return pl.DataFrame(rows), pl.DataFrame(matches), vocabulary


def ablated(model, sae, written, latents, **more):
    """The tables of `latents` tried at layers.1.mlp, all linked to the pattern."""
    traces, matches, vocabulary = written
    features = pl.LazyFrame(
        {"latent": range(len(sae.decoder)), "tokens": 100, "sum": 100.0, "segment": "answer", "sink": False},
        schema_overrides={"latent": pl.UInt32, "tokens": pl.UInt32},
    )
    candidates = pl.DataFrame({"latent": latents}, schema={"latent": pl.UInt32})
    headline = candidates.with_columns(
        site=pl.lit("layers.1.mlp"), pattern=pl.lit("say"), window=pl.lit("before"), p=0.01, p_link=0.01, q=0.01
    )
    settings = {"alpha": 0.05, "latents": len(latents), "named": [], "traces_each": 24, "draws": 3}
    settings |= {"strengths": [1.0, 2.0]} | more
    nothing = pl.DataFrame(schema=attribution.SCHEMA)
    # So that what is predicted is for the traces that are edited, all of them are both.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "half", lambda traces, _which: traces)
        table, _ = ablations.ablations(
            traces, matches, features, candidates, headline, nothing, vocabulary, model=model, sae=sae,
            site="layers.1.mlp", tokens_before=3, tokens_after=3, log=LOG, **settings,
        )  # fmt: skip
        screen = attribution.attribution(
            traces, matches, vocabulary, model=model, sae=sae, site="layers.1.mlp", traces_each=24, steps=1,
            tokens_before=3, tokens_after=3, log=LOG,
        )  # fmt: skip
    return table, effects.effects(table.lazy(), screen.lazy())


@pytest.fixture(scope="module")
def plant():
    """The planted direction, eleven others at right angles to it, the model with the plant and what it writes."""
    direction, *others = torch.linalg.qr(torch.randn(WIDTH, 12, generator=torch.Generator().manual_seed(3)))[0].T
    model = planted(direction)
    return torch.stack([direction, *others]), model, traces_by(model, 24)


def test_a_small_ablation_is_what_its_gradient_says(plant):
    decoder, model, written = plant
    sae = coder.TopK(0.02 * decoder, torch.zeros(12), decoder, torch.zeros(WIDTH), 12)
    _, found = ablated(model, sae, written, list(range(12)), strengths=[])
    np.testing.assert_allclose(found["predicted"], found["effect"], rtol=0.05, atol=2e-5)
    assert found["effect"].max() > 1e-3


def test_integrated_gradients_add_up_to_what_the_reconstruction_does(plant):
    """Completeness (Sundararajan et al. 2017): over all latents, J of the states less J without the reconstruction."""
    decoder, model, (traces, matches, vocabulary) = plant
    sae, site = coder.TopK(decoder, torch.zeros(12), decoder, torch.zeros(WIDTH), 12), "layers.1.mlp"
    text = targets.text_of(traces.row(0, named=True))
    one = ablations.see(0, text, model, sae, site)
    spans = targets.spans_of(matches, "say")[0]
    pairs = targets.pairs(text, spans, "before", targets.token_classes(vocabulary), 3, 3)
    words = torch.arange(VOCABULARY) == W
    removed = -sae.decode(one.codes)
    change = forced.change(model, site, one.trace, removed[None], pairs.at + pairs.matched, words[None]).sets_odds[
        0, :, 0
    ]
    count = len(pairs.at)
    whole = -(change[:count].mean() - change[count:].mean()).item()
    (gradient,) = attribution.gradients(model, site, one, [(pairs, words)], sae, 50)
    assert (gradient * -removed).sum().item() == pytest.approx(whole, rel=0.01)
    (at_once,) = attribution.gradients(model, site, one, [(pairs, words)], sae, 1)
    assert (at_once * -removed).sum().item() != pytest.approx(whole, rel=0.05)  # it isn't linear


def test_what_is_held_high_changes_logits_as_by_hand(plant):
    """Each latent at its largest activation on all generated tokens, by a hook of our own; W is what the plant says."""
    decoder, model, (traces, _, vocabulary) = plant
    sae, site = coder.TopK(decoder[:6].clone(), torch.zeros(6), decoder[:6], torch.zeros(WIDTH), 6), "layers.1.mlp"
    vocabulary = vocabulary.with_columns(token=pl.col("text"))
    verdict = pl.DataFrame({"latent": range(6), "verdict": "undecided", "beyond_chance_number": 0.5, "traces": 3})
    largest = {latent: 1.0 + latent for latent in range(1, 6)} | {0: 2.0}
    features = pl.LazyFrame(
        [{"latent": latent, "segment": segment, "sink": sink, "max": value * factor}
         for latent, value in largest.items()
         for segment, sink, factor in (("answer", False, 1), ("answer", False, 0.5), ("prompt", False, 9),
                                       ("answer", True, 9))]
    )  # fmt: skip
    found = token_changes.token_changes(
        traces, features, verdict, vocabulary, model=model, sae=sae, site=site, latents=6, log=LOG
    )
    by_trace = []
    for trace in traces.head(token_changes.TRACES).iter_rows(named=True):
        text = targets.text_of(trace)
        places = text.has_next[np.linspace(0, len(text.has_next) - 1, 4).round().astype(int)].tolist()
        ids = torch.from_numpy(text.ids[: places[-1] + 2])
        one = ablations.see(0, targets.Text(text.ids[: len(ids)], text.run[: len(ids)]), model, sae, site)
        plain = logits_by_hand(model, ids, torch.zeros(len(ids), WIDTH))[places]
        rows = []
        for latent in range(6):
            active = torch.where(one.codes.latents == latent, one.codes.activations, 0.0).sum(-1)
            delta = torch.where(one.counted, largest[latent] - active, 0.0)[:, None] * decoder[latent]
            change = (logits_by_hand(model, ids, delta)[places] - plain).mean(0)
            rows.append(change - change.mean())
        by_trace.append(torch.stack(rows))
    changes = torch.stack(by_trace).mean(0)
    for latent in range(6):
        others = changes[[other for other in range(6) if other != latent]].mean(0)
        order = (changes[latent] - others).argsort(descending=True)
        rows = found.filter(latent=latent, side="top")
        assert rows["token_id"].to_list() == order[: len(rows)].tolist()
        assert found.filter(latent=latent, side="bottom")["token_id"].to_list() == order.flip(0)[: len(rows)].tolist()
        np.testing.assert_allclose(rows["change"], changes[latent][order[: len(rows)]], atol=1e-4)
        np.testing.assert_allclose(rows["others"], others[order[: len(rows)]], atol=1e-4)
        middle = (rows["change"] - rows["others"]).to_numpy()
        assert ((rows["low"].to_numpy() < middle) & (middle < rows["high"].to_numpy())).all()
    assert found.filter(latent=0, side="top", rank=1)["token_id"].item() == W
    none = token_changes.token_changes(
        traces,
        features.filter(pl.col("sink")),
        verdict,
        vocabulary,
        model=model,
        sae=sae,
        site=site,
        latents=6,
        log=LOG,
    )
    assert len(none) == 0


def logits_by_hand(model, ids, delta):
    """What the model makes of tokens with `delta` added to what the MLP of block 1 puts out, (tokens, vocabulary)."""
    handle = model.model.layers[1].mlp.register_forward_hook(lambda _module, _args, output: output + delta)
    with handle, torch.no_grad():
        return model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0]


def test_a_planted_direction_is_found_and_its_size_is_right(plant):
    """Latent 0 is the planted neuron's; what it does is what the model without that neuron doesn't."""
    decoder, model, written = plant
    sae = coder.TopK(decoder.clone(), torch.zeros(12), decoder, torch.zeros(WIDTH), 12)
    table, found = ablated(model, sae, written, [0, 1, 2])

    without = planted(decoder[0])
    without.model.layers[1].mlp.down_proj.weight[:, 0] = 0
    lost = []
    for trace_id, rows in table.filter(latent=0, arm="zero").group_by("trace_id", maintain_order=True):
        trace = written[0].row(trace_id[0], named=True)
        text = targets.text_of(trace)
        spans = targets.spans_of(written[1], "say")[trace_id[0]]
        pairs = targets.pairs(text, spans, "before", targets.token_classes(written[2]), 3, 3)
        assert len(pairs.at) == rows["pairs"].item() > 0
        ids = torch.tensor([text.ids.tolist()])
        with_it, without_it = (one(input_ids=ids).logits[0].softmax(-1)[:, W].logit() for one in (model, without))
        change = without_it - with_it
        lost.append((change[pairs.matched].mean() - change[pairs.at].mean()).item())
    row = found.row(by_predicate=pl.col("latent") == 0, named=True)
    assert np.mean(lost) > 1
    assert row["effect"] == pytest.approx(np.mean(lost), rel=0.1)
    assert row["excess"] == pytest.approx(np.mean(lost), rel=0.2)
    assert row["low"] > 0.5
    assert row["p_traces"] < 1e-3
    assert row["q"] < 0.05
    assert row["control"] < 0.1 * row["effect"]
    assert row["mean_effect"] > 0.5 * row["effect"]
    # Added where the word isn't next, it makes the word likelier, and twice as much more so.
    assert row["strengths"] == [1.0, 2.0]
    assert 0.3 < row["added_low"][0] < row["added"][0] < row["added_low"][1]
    assert (
        row["predicted"] == found["predicted"].max() > 0.05
    )  # where a word is likely already, first order is too little
    rest = found.filter(pl.col("latent") != 0)
    assert rest["excess"].abs().max() < 0.1 * row["excess"]


def test_what_reconstructions_cost_is_what_a_splice_by_hand_costs(plant):
    """Cross-entropy and divergence with hooks and transformers' own output, over all that was written."""
    decoder, model, (traces, _, _) = plant
    sae = coder.TopK(decoder, torch.zeros(12), decoder, torch.zeros(WIDTH), 4)
    rows = [row["prompt_ids"] + row["generated_ids"] for row in traces.head(6).iter_rows(named=True)]
    table = cost.cost(traces.head(6), rows, model=model, sae=sae, site="layers.1.mlp", traces_each=5, log=LOG)
    module, seen = model.model.layers[1].mlp, []
    ids = torch.tensor(rows[:5])
    with module.register_forward_hook(lambda _module, _args, output: seen.append(output)):
        unedited = model(input_ids=ids).logits.double().log_softmax(-1)
    states = seen[0]
    norms = states.norm(dim=-1)
    sinks = norms > 10 * norms.median(dim=1, keepdim=True).values
    sinks[:, 0] = True
    mean = states.flatten(0, 1).mean(0).expand_as(states)
    spliced = torch.stack([sae.decode(sae.encode(row)) for row in states])

    def measured(other, first):
        edited = torch.where(sinks.unsqueeze(-1), states, other)
        with module.register_forward_hook(lambda _module, _args, _output: edited):
            log_p = model(input_ids=ids).logits.double().log_softmax(-1)
        ce = -log_p[:, first:-1].gather(-1, ids[:, first + 1 :, None]).mean()
        return ce.item(), (unedited.exp() * (unedited - log_p)).sum(-1)[:, first:-1].mean().item()

    # The traces' prompts have two tokens; taken as text, what is looked at begins with the second token.
    for part, first in (("all", 1), ("text", 0)):
        row = table.row(by_predicate=pl.col("part") == part, named=True)
        assert (row["traces"], row["tokens"]) == (5, 5 * (51 - first))
        found = [(row["ce"], 0.0), (row["ce_spliced"], row["kl"]), (row["ce_mean"], row["kl_mean"])]
        for other, pair in zip((states, spliced, mean), found, strict=True):
            assert pair == pytest.approx(measured(other, first), abs=1e-5)
        assert row["kl_score"] == pytest.approx(1 - row["kl"] / row["kl_mean"])
        assert row["kl_score_low"] < row["kl_score"] < row["kl_score_high"]
    assert table["part"].to_list() == ["all", "answer", "text"]
    assert cost.cost(traces.head(6), [], model=model, sae=sae, site=SITE, traces_each=5, log=LOG).equals(table[:2])


FULL_STOP, END = 9, 10
"""Tokens that end a sentence, and the turn."""


def words_tokenizer():
    """A tokenizer of VOCABULARY words: w0, w1, ... and a full stop."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{index}": index for index in range(VOCABULARY) if index != FULL_STOP} | {".": FULL_STOP}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture
def steerable(plant):
    """Traces that the model with the plant wrote with their own noise, and what steering needs beside."""
    decoder, model, _ = plant
    sampling = steering.Sampling(3, 1.0, 1.0, 40, [END], 4)
    chance = torch.Generator().manual_seed(6)
    prompts = torch.randint(11, VOCABULARY, (24, 3), generator=chance).tolist()
    noise = uniforms(sampling.seed, "reason", list(range(24)), sampling.max_new_tokens)
    written = decoding.write(
        model, prompts, decoding.Draws(noise, 1.0, 1.0, range(24)), max_new_tokens=40, stop_ids=[END], batch_size=8,
        log=LOG,
    )  # fmt: skip
    traces = pl.DataFrame(
        [
            {"trace_id": index, "prompt_ids": prompt, "generated_ids": ids, "reference": "1", "segments": [
                {"segment": "prompt", "start": 0, "end": 3}, {"segment": "answer", "start": 3, "end": 3 + len(ids)}]}
            for index, (prompt, ids) in enumerate(zip(prompts, written, strict=True))
        ]
    )  # fmt: skip
    vocabulary = pl.LazyFrame(
        {"token_id": range(VOCABULARY), "text": ["." if index == FULL_STOP else f" w{index}" for index in
                                                 range(VOCABULARY)]}, schema_overrides={"token_id": pl.UInt32},
    )  # fmt: skip
    sae = coder.TopK(decoder, torch.zeros(12), decoder, torch.zeros(WIDTH), 12)
    return model, sae, traces, vocabulary, sampling


def steer(steerable, **more):
    model, sae, traces, vocabulary, sampling = steerable
    features = pl.LazyFrame(
        {"latent": range(12), "tokens": 100, "sum": 100.0, "segment": "answer", "sink": False},
        schema_overrides={"latent": pl.UInt32, "tokens": pl.UInt32},
    )
    candidates = pl.DataFrame({"latent": [0]}, schema={"latent": pl.UInt32})
    headline = candidates.with_columns(
        site=pl.lit("layers.1.mlp"), pattern=pl.lit("say"), window=pl.lit("before"), p=0.01, p_link=0.01, q=0.01
    )
    settings = {
        "strengths": [4.0, 40.0],
        "traces_each": 8,
        "latents": 1,
        "named": [],
        "alpha": 0.05,
        "ask": None,
    } | more
    nothing = pl.DataFrame(schema=attribution.SCHEMA)
    return steering.steering(
        traces, features, candidates, headline, nothing, vocabulary, model=model, tokenizer=words_tokenizer(), sae=sae,
        site="layers.1.mlp", condition="reason", sampling=sampling, patterns='{"say": ["w7"], "other": ["w8"]}',
        log=LOG, **settings,
    )  # fmt: skip


def test_steering_by_nothing_writes_what_was_written(steerable):
    """And so does no strength at all: the noise of each draw is the trace's own."""
    table = steer(steerable, strengths=[0.0])
    assert set(table["arm"]) == {"none", "latent", "matched_latent", "random_direction"}
    assert table["same"].all()
    traces = {row["trace_id"]: row for row in steerable[2].iter_rows(named=True)}
    for row in table.iter_rows(named=True):
        ids = traces[row["trace_id"]]["generated_ids"]
        assert ids[row["prefix"] - 1] == FULL_STOP
        assert FULL_STOP not in ids[: row["prefix"] - 1]
        assert row["tokens"] == len(ids) - row["prefix"]
        assert row["matches"] == ids[row["prefix"] :].count(W)
        assert row["truncated"] == (ids[-1] != END)


def test_a_planted_direction_steers(steerable):
    """Added everywhere it makes the model write its word; another direction as large doesn't; taken, it writes less."""
    table = steer(steerable, strengths=[-40.0, 40.0])
    found = {(row["arm"], row["strength"]): row for row in steered.steered(table.lazy()).iter_rows(named=True)}
    up, down = found["latent", 40.0], found["latent", -40.0]
    assert up["traces"] == table["trace_id"].n_unique() >= 5
    assert up["rate"] > 5 * up["rate_unsteered"] + 10
    assert up["rate_low"] > 0
    assert up["rate_p"] < 0.05
    assert up["repeated"] > up["repeated_unsteered"]
    assert down["rate_change"] <= 0
    assert abs(found["random_direction", 40.0]["rate_change"]) < 0.2 * up["rate_change"]
    assert "w7 w7" in table.filter(arm="latent", strength=40.0)["text"][0]
    assert not table.filter(arm="latent", strength=40.0)["same"].any()


def test_steering_is_held_against_asking(steerable):
    """An arm whose prompt asks for the pattern: what is written behind it is what the model writes on from there."""
    model, _, traces, _, sampling = steerable
    table = steer(steerable, strengths=[4.0], ask=lambda pattern, trace_id: [W, W, 20 + trace_id, len(pattern)])
    asked = table.filter(arm="prompt")
    assert asked["latent"].null_count() == len(asked) == table["trace_id"].n_unique()
    for row in asked.iter_rows(named=True):
        trace = traces.row(row["trace_id"], named=True)
        begun = trace["generated_ids"][: row["prefix"]]
        noise = uniforms(sampling.seed, "reason", [row["trace_id"]], sampling.max_new_tokens).roll(-row["prefix"], 1)
        (ids,) = decoding.write(
            model, [[W, W, 20 + row["trace_id"], 3, *begun]], decoding.Draws(noise, 1.0, 1.0, [row["trace_id"]]),
            max_new_tokens=40 - row["prefix"], stop_ids=[END], batch_size=1, log=LOG,
        )  # fmt: skip
        assert (row["tokens"], row["matches"]) == (len(ids), ids.count(W))
        assert row["text"].split() == [f"w{token}" if token != FULL_STOP else "." for token in ids if token != END]
    found = steered.steered(table.lazy()).filter(arm="prompt").row(0, named=True)
    assert (found["latent"], found["strength"], found["traces"]) == (None, 0.0, len(asked))
    assert found["rate_unsteered"] == pytest.approx(
        np.mean([100 * row["matches"] / row["tokens"] for row in table.filter(arm="none").iter_rows(named=True)])
    )


def test_what_an_instruction_says():
    say = steering.instruction_of
    assert say("doubt", ["/wait+/", "hmm", "let me check"], "Say {words}.") == "Say “hmm”, “let me check”."
    assert say("self_doubt", ["/wait+/"], "Show {words}.") == "Show self doubt."
    assert say("x", list("abcdefg"), "{words}") == "“a”, “b”, “c”, “d”, “e”"
    assert say("x", ["a"], "Think hard.") == "Think hard."


def test_latents_are_also_chosen_by_what_is_predicted():
    """By the lower end of the interval, in the window of the largest; none twice, none that is there by its link."""
    rows = [(1, "doubt", "before", 0.5), (1, "doubt", "after", 0.9), (2, "doubt", "before", 0.7),
            (3, "plan", "before", -0.1), (4, "plan", "before", 0.2), (5, "plan", "before", 0.8)]  # fmt: skip
    columns = {"latent": pl.UInt32, "pattern": pl.String, "window": pl.String, "low": pl.Float64}
    table = pl.DataFrame(rows, schema=columns, orient="row")
    assert ablations.predicted_most(table, [5], 2).rows() == [
        (1, "doubt", "after", "prediction"), (2, "doubt", "before", "prediction")
    ]  # fmt: skip
    assert ablations.predicted_most(table, [], 9)["latent"].to_list() == [1, 5, 2, 4]


def test_nothing_to_try_is_no_error():
    """A study of one trace, or without patterns, has tables with no rows."""
    schemas = {"ablations": ABLATIONS_SCHEMA, "attribution": attribution.SCHEMA, "steering": STEERING_SCHEMA}
    none = {table: pl.DataFrame(schema=schema) for table, schema in schemas.items()}
    found = effects.effects(none["ablations"].lazy(), none["attribution"].lazy())
    assert found.is_empty()
    assert dict(found.schema) == dict(effects.SCHEMA)
    assert steered.steered(none["steering"].lazy()).is_empty()
    assert ablations.predicted_most(none["attribution"], [], 4).is_empty()
    (said,) = report.sentences({"layers.1.mlp": found}, {}, 0.05)
    assert said.startswith("No latent was tried")


def test_bfloat16_differs_by_rounding_alone(plant):
    """The model in the precision it mostly has: the planted latent's effect is float32's, within a tenth."""
    decoder, model, (traces, matches, vocabulary) = plant
    sae = coder.TopK(decoder, torch.zeros(12), decoder, torch.zeros(WIDTH), 12)
    written = traces[:8], matches, vocabulary
    of_float = ablated(model, sae, written, [0], strengths=[])[1].row(0, named=True)
    rounded = ablated(copy.deepcopy(model).bfloat16(), sae, written, [0], strengths=[])[1].row(0, named=True)
    assert rounded["effect"] == pytest.approx(of_float["effect"], rel=0.1)
    assert rounded["predicted"] == pytest.approx(of_float["predicted"], rel=0.1)


def test_repetition_is_counted():
    assert steering.repeated([1, 2, 3, 4, 5, 6]) == 0
    assert steering.repeated([1, 2, 3]) == 0
    assert steering.repeated([1] * 10) == pytest.approx(6 / 7)  # one run of seven is new


class Noise:
    """In place of an SAE: latents that are active by chance, whatever the states are."""

    def __init__(self, latents):
        chance = torch.Generator().manual_seed(4)
        self.decoder = torch.randn(latents, WIDTH, generator=chance)
        self.decoder /= self.decoder.norm(dim=-1, keepdim=True)
        self.chance = torch.Generator().manual_seed(5)

    def encode(self, x):
        latents = torch.rand(len(x), len(self.decoder), generator=self.chance).argsort(dim=-1)[:, :8]
        return coder.Codes(1 + torch.rand(len(x), 8, generator=self.chance), latents)

    @property
    def latents(self):
        return len(self.decoder)

    def direction(self, latents):
        return self.decoder[latents]


def test_what_a_latent_is_worth_to_each_token(plant):
    """Token by token what a pass with a hook written by hand says, in the trace as it was written."""
    decoder, model, (traces, _, _) = plant
    sae, site = coder.TopK(decoder, torch.zeros(12), decoder, torch.zeros(WIDTH), 12), "layers.1.mlp"
    trace = traces.row(3, named=True)
    text = targets.text_of(trace)
    one = ablations.see(3, text, model, sae, site)
    found = ablations.token_effects([0, 5], one, model, sae, site)
    ids = torch.tensor([trace["prompt_ids"] + trace["generated_ids"]])
    first, length = len(trace["prompt_ids"]), ids.shape[1]
    with torch.no_grad():
        before = model(input_ids=ids).logits.log_softmax(-1)
        for latent in (0, 5):
            amounts = one.activation(latent)

            def take_away(_module, _args, output, amounts=amounts, latent=latent):
                return output - amounts[:, None] * decoder[latent]

            with model.model.layers[1].mlp.register_forward_hook(take_away):
                after = model(input_ids=ids).logits.log_softmax(-1)
            by_hand = (after - before)[0, :-1].gather(-1, ids[0, 1:, None]).squeeze(-1)
            rows = found.filter(latent=latent)
            assert rows["position"].to_list() == list(range(first + 1, length))  # whose predecessor was written too
            assert rows["trace_id"].unique().to_list() == [3]
            np.testing.assert_allclose(rows["change"], by_hand[first:], atol=1e-5)
    assert found["change"].abs().max() > 0.01


def put_in(plant, sae, latents, traces_each=10):
    """The table of `latents`' cues, and how active they are, token by token, in the traces."""
    _, model, (traces, _, vocabulary) = plant
    active = []
    for trace in traces.iter_rows(named=True):
        one = ablations.see(trace["trace_id"], targets.text_of(trace), model, sae, SITE)
        for latent in latents:
            values = one.activation(latent)
            places = values.nonzero().squeeze(-1).tolist()
            active += [(latent, trace["trace_id"], place, values[place].item(), False) for place in places]
    names = {"latent": pl.UInt32, "trace_id": pl.UInt32, "position": pl.UInt32, "activation": pl.Float32,
             "sink": pl.Boolean}  # fmt: skip
    candidates = pl.DataFrame({"latent": latents}, schema={"latent": pl.UInt32})
    headline = candidates.with_columns(
        site=pl.lit(SITE), pattern=pl.lit("say"), window=pl.lit("before"), p=0.01, p_link=0.01, q=0.01
    )
    table = injections.injections(
        traces, pl.LazyFrame(active, schema=names, orient="row"), candidates, headline,
        pl.DataFrame(schema=attribution.SCHEMA), vocabulary, model=model, sae=sae, site=SITE, alpha=0.05,
        latents=len(latents), named=[], traces_each=traces_each, log=LOG,
    )  # fmt: skip
    return table


SITE = "layers.1.mlp"


class OnTokens:
    """In place of an SAE: latent 0 is on what the model computes from one token, latent 1 on one state in five."""

    latents = 2

    def __init__(self, model, token):
        with torch.no_grad(), sites.reading(model, [SITE]) as states:
            ids = torch.tensor([[3, 4, token], [3, 5, token], [6, 4, token]])
            model(input_ids=ids)
            self.direction_ = states[SITE][:, -1].mean(0)
        self.direction_ = self.direction_ / self.direction_.norm()

    def encode(self, x):
        likeness = (x @ self.direction_) / x.norm(dim=-1)
        chance = (x.sum(-1) * 1e4).long() % 5 == 0
        values = torch.stack([torch.where(likeness > 0.8, likeness, 0.0), chance.float()], dim=-1)
        return coder.Codes(values, torch.tensor([0, 1]).expand(len(x), 2))

    def direction(self, latents):
        return self.direction_.expand(*latents.shape, -1)


def test_a_detector_answers_to_its_token_anywhere(plant):
    _, model, (traces, _, vocabulary) = plant
    sae = OnTokens(model, W)
    table = put_in(plant, sae, [0, 1])
    assert set(table.filter(latent=0)["strategy"]) >= {"token"}
    texts = dict(vocabulary.select("text", "token_id").collect().iter_rows())
    for row in table.filter(strategy="token", latent=0).head(6).iter_rows(named=True):
        trace = traces.row(row["trace_id"], named=True)
        prompt, place = trace["prompt_ids"], 1  # of two tokens, the first of which would be a sink
        for name, found in (("cue", row["with_cue"]), ("alike", row["with_alike"])):
            ids = [*prompt[:place], texts[row[name]], *prompt[place:]]
            with torch.no_grad(), sites.reading(model, [SITE]) as states:
                model(input_ids=torch.tensor([ids]))
                of_text = states[SITE][0]
            values = sae.encode(of_text).activations[:, 0] * ~sites.sinks(of_text.norm(dim=-1))
            assert found == pytest.approx(values[place : place + 8].sum().item(), abs=1e-4)
    found = responses(table.lazy())
    its = found.filter(latent=0, strategy="token").row(0, named=True)
    assert its["difference"] > 0
    assert its["p_holm"] < 0.05
    assert (found.filter(pl.col("latent") == 1)["p_holm"].drop_nulls() > 0.01).all()


def test_responses_are_paired_by_trace():
    rows = [(7, "doubt", "token", trace, "a", "b", 3.0, 2.0 + trace % 3, 1.0) for trace in range(12) for _ in range(2)]
    rows += [(7, "doubt", "deletion", trace, "a", "b", 3.0, 1.0, 1.5 + trace % 2) for trace in range(12)]
    rows += [(7, "doubt", "bigram", trace, "ab", "cd", 3.0, 1.0, 1.0) for trace in range(3)]
    table = pl.LazyFrame(rows, schema=list(INJECTIONS_SCHEMA), orient="row")
    bigram, deletion, token = responses(table).sort(pl.col("strategy").cast(pl.String)).iter_rows(named=True)
    assert (bigram["traces"], bigram["p"], bigram["difference"]) == (3, None, 0)
    assert (token["traces"], token["difference"]) == (12, 2.0)
    assert deletion["difference"] == pytest.approx(1.0)  # lost with the cue, beyond what is lost with a token alike
    assert token["p_holm"] == pytest.approx(2 * min(token["p"], deletion["p"]))


def stable(plant, temperature, top_p=1.0, continuations=0):
    _, model, (traces, matches, vocabulary) = plant
    sampling = steering.Sampling(0, temperature, top_p, 0, [], 8)
    matches = matches.with_columns(condition=pl.lit("reason"))
    return stability.stability(
        traces[:6], matches.filter(pl.col("trace_id") < 6), vocabulary, model=model, sampling=sampling,
        patterns='{"say": ["w7"], "other": ["w8"]}', continuations=continuations, log=LOG,
    )  # fmt: skip


def test_how_likely_the_model_was_to_write_a_match(plant):
    _, model, (traces, matches, _) = plant
    found = stable(plant, 0.7)
    assert len(found) == len(matches.filter(pl.col("trace_id") < 6))
    for row in found.iter_rows(named=True):
        trace = traces.row(row["trace_id"], named=True)
        ids = (trace["prompt_ids"] + trace["generated_ids"])[: row["start"]]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        assert row["probability"] == pytest.approx((logits / 0.7).softmax(-1)[W].item(), abs=1e-5)
    assert found["recurs"].null_count() == len(found)
    greedy = stable(plant, 0, continuations=2)
    assert set(greedy["probability"]) <= {0.0, 1.0}
    for row in greedy.iter_rows(named=True):  # each continuation is what the model thinks likeliest
        trace = traces.row(row["trace_id"], named=True)
        ids = (trace["prompt_ids"] + trace["generated_ids"])[: row["start"]]
        with torch.no_grad():
            for _ in range(24):
                ids = [*ids, model(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item()]
        assert row["recurs"] in (None, float(W in ids[row["start"] :]))
    assert greedy["recurs"].count() == min(16, len(greedy))


def test_what_is_drawn_is_weighed_as_it_is_drawn():
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)) * 2
    masses = stability.drawn_with(logits, 0.8, 0.6)
    for row, found in zip((logits / 0.8).softmax(-1), masses, strict=True):
        order = row.argsort(descending=True)
        kept = order[: int((row[order].cumsum(0) < 0.6).sum()) + 1]
        by_hand = torch.zeros(40)
        by_hand[kept] = row[kept] / row[kept].sum()
        assert torch.allclose(found, by_hand, atol=1e-6)


def test_stable_patterns_are_counted_over_traces():
    rows = [(trace, "doubt", 0.2 if trace % 2 else 0.9, None) for trace in range(10) for _ in range(1 + trace % 3)]
    rows += [(0, "plan", 0.7, 0.25), (1, "plan", 0.1, 0.75)]
    table = pl.LazyFrame(rows, schema=["trace_id", "name", "probability", "recurs"], orient="row")
    doubt, plan = stable_patterns(table).iter_rows(named=True)
    of_doubt = [row for row in rows if row[1] == "doubt"]
    assert (doubt["matches"], doubt["traces"], doubt["continued"], doubt["recurs"]) == (len(of_doubt), 10, 0, None)
    assert doubt["unstable"] == pytest.approx(np.mean([row[2] < 0.5 for row in of_doubt]))
    assert doubt["unstable_low"] < doubt["unstable"] < doubt["unstable_high"]
    assert plan["probability"] == pytest.approx(0.4)
    assert (plan["recurs"], plan["recurs_low"]) == (0.5, None)  # too few traces


def test_which_linked_candidates_are_tried():
    """Those that stand out first, of these the ones predicted to do most to their own pattern, then the surest."""
    rows = [(0, 0.2, 0.1), (1, 0.01, 0.004), (2, 0.02, 0.005), (3, 0.03, 0.006), (4, 0.001, 0.003), (5, None, None)]
    headline = pl.DataFrame(rows, schema={"latent": pl.UInt32, "q": pl.Float64, "p": pl.Float64}, orient="row")
    headline = headline.with_columns(
        site=pl.lit("s"), pattern=pl.lit("doubt"), window=pl.lit("after"), p_link=pl.col("p")
    )
    predicted = complete(
        pl.DataFrame({"pattern": ["doubt", "doubt", "check", "doubt"], "window": ["after"] * 4, "latent": [2, 3, 1, 0],
                      "low": [0.1, 0.3, 9.0, 9.0]}), attribution.SCHEMA)  # fmt: skip
    candidates = headline.select("latent")
    found = ablations.under_study(candidates, headline, predicted, "s", 0.05, 6, [], LOG)
    assert found["latent"].to_list() == [3, 2, 4, 1, 0, 5]
    assert ablations.under_study(candidates, headline, predicted, "other", 0.05, 6, [], LOG).is_empty()


def test_named_latents_are_tried_whatever_else_is(caplog):
    headline = pl.DataFrame(
        {"latent": [0, 1, 9], "site": "s", "pattern": ["doubt", "doubt", None], "window": ["after", "after", None],
         "p": 0.01, "q": 0.01, "p_link": 0.01}, schema_overrides={"latent": pl.UInt32},
    )  # fmt: skip
    predicted = complete(
        pl.DataFrame({"pattern": ["check", "doubt", "plan"], "window": ["before", "after", "after"],
                      "latent": [1, 9, 9], "low": [9.0, 0.1, 0.3]}), attribution.SCHEMA)  # fmt: skip
    candidates = pl.DataFrame({"latent": [0, 1]}, schema={"latent": pl.UInt32})
    found = ablations.under_study(candidates, headline, predicted, "s", 0.05, 1, [9, 1, 7], LOG)
    assert found.rows() == [
        (9, "plan", "after", "name"),  # where the largest effect is predicted
        (1, "doubt", "after", "name"),  # where it is linked
        (0, "doubt", "after", "link"),
    ]
    assert "not tried, as they are hardly active in the traces: 7" in caplog.text


def test_a_named_latent_that_is_none_is_refused(plant):
    decoder, model, written = plant
    sae = coder.TopK(decoder, torch.zeros(12), decoder, torch.zeros(WIDTH), 12)
    with pytest.raises(InputError, match=r"there is no latent 12 at layers\.1\.mlp; its SAE has 12, 0 to 11\."):
        ablated(model, sae, written, [0], named=[3, 12])


@pytest.mark.parametrize(
    ("interventions", "says"),
    [
        ({"named": ["5/3"]}, "'5/3' is of layer 5, which isn't read; layers is [1]."),
        ({"named": ["1/48"]}, "'1/48' is no latent of the SAE, which has sae.num_latents = 48, 0 to 47."),
        ({"named": ["layers.1.mlp/3"]}, "config: interventions.named.0 is 'layers.1.mlp/3'; it must match"),
        ({"named": ["1/3", "1/3"]}, "'1/3' stands in it twice"),
    ],
)
def test_names_that_cannot_be_are_refused_before_any_job(tiny_model, tmp_path, interventions, says):
    run = new_study(tmp_path / "study", tiny_model).edit(interventions=interventions).snakemake("--dry-run")
    assert run.code != 0
    assert says in run.output


def test_random_latents_have_no_effect(plant):
    _, model, (traces, matches, vocabulary) = plant
    table, found = ablated(
        model, Noise(260), (traces[:10], matches, vocabulary), list(range(200)), draws=2, strengths=[]
    )
    assert len(found) == 200
    assert (found["p"] < 0.05).mean() <= 0.07  # 5 % and what chance makes of 200
    assert found["q"].min() > 0.05
    others = table.filter(arm="matched_latent")["other"]
    assert others.min() >= 200  # none that is studied itself


def in_the_page(browser, study, made):
    """The dashboard of a latent that was tried has what came of it, and its passages and traces a second shading."""
    page = open_page(browser, study.results)
    tried = made["effects"].filter(pl.col("latent").is_in(made["passages"]["latent"].to_list()))
    row = tried.sort(pl.col("strengths").is_null()).row(0, named=True)  # one in as many traces as are needed, if any is
    open_board(page, row["latent"])
    use = page.locator("#dashboard section", has=page.get_by_role("heading", name="Does the model use it?"))
    assert "At vowel (" in use.inner_text()
    assert use.locator("svg").first.locator("text").all_text_contents()[:5] == [
        "taken away", "its mean in place", "latents alike", "random directions", "shifted"
    ]  # fmt: skip
    if row["strengths"] is not None:
        doses = use.locator("svg").nth(1).locator("text").all_text_contents()
        assert doses[:2] == ["×1 added", "×3 added"]
    predicted = made["attribution"].filter(latent=row["latent"]).head(3)
    assert len(cells(page, "Predicted")) == len(predicted)
    held = made["token_changes"].filter(latent=row["latent"], side="top")
    rises = cells(page, "Held high, it raises")
    assert [float(cell[1].replace("−", "-")) for cell in rises] == pytest.approx(held["change"].to_list(), rel=0.01)
    page.keyboard.press("Escape")
    changes = made["token_effects"].filter(latent=row["latent"])
    trace_id = changes["trace_id"][0]
    strongest = changes.filter(trace_id=trace_id).sort(pl.col("change").abs(), descending=True).row(0, named=True)
    page.goto(f"{page.url.partition('#')[0]}#trace/reason/{trace_id}/layers.1.mlp/{row['latent']}")
    token = page.locator(f'#reader [data-at="{strongest["position"]}"]')
    token.wait_for()
    page.locator("#reader .loses, #reader .gains").first.wait_for()
    kind = "loses" if strongest["change"] < 0 else "gains"
    assert kind in token.get_attribute("class").split()
    assert f"likely without latent {row['latent']}, by up to" in page.locator("#reader").inner_text()
    assert page.seen == []


def test_a_study_with_interventions(tiny_model, tmp_path, browser):
    """Tables, page and summary have them; an edit is no reason to make anything else anew; without the section none."""
    steering = {"latents": 1, "traces": 2, "strengths": [2]}
    study = new_study(tmp_path / "study", tiny_model).edit(
        inferences=12, block_size=12, generation__max_new_tokens=40, generation__seed=2,
        patterns={"vowel": ["/[aeiou]/"]}, analysis__min_traces=1, analysis__tokens_before=1, analysis__tokens_after=1,
        interventions={"latents": 2, "traces": 6, "draws": 1, "strengths": [1, 3], "steering": steering},
        model__dtype="float32",  # so that no rounding changes a draw
    )  # fmt: skip
    write_jsonl(study.folder / "problems.jsonl", times=2)
    run = study.run()
    said = "WARNING: config: interventions.steering writes up to 400 tokens: 5 times 2 traces, at 1 site."
    assert said in run.output
    tables = study.results / "tables" / "trained" / "layers.1.mlp"
    made = {path.stem: files.read_parquet(path) for path in tables.glob("*.parquet")}
    assert 0 < len(made["effects"].filter(chosen="link")) <= 2
    assert len(made["effects"].filter(chosen="prediction")) <= 2
    assert set(made["ablations"]["trace_id"]) <= {1, 3, 5, 7, 9, 11}  # predictions are from the others
    zero = made["ablations"].filter(arm="zero")
    assert zero.group_by("latent").len()["len"].max() <= 6
    assert zero["kl_at"].max() > 0  # what is edited is on the latent's own tokens and what follows
    assert made["ablations"].filter(arm="add")["strength"].unique().sort().to_list() == [1.0, 3.0]
    assert 0 < made["cost"].filter(part="all")["ce"].item() < 10
    assert set(made["steered"]["strength"]) == {0.0, 2.0}
    assert made["steering"].filter(arm="none")["same"].all()
    assert 0 < len(made["steered"].filter(arm="prompt")) <= 2
    assert "asked for in the prompt" in (study.results / "report.html").read_text()
    assert made["cost"].filter(part="text")["traces"].item() > 0
    page, summary = ((study.results / name).read_text() for name in ("report.html", "summary.md"))
    assert "Does the model use them?" in page
    assert "<h3>Steering</h3>" in page
    assert "With reconstructions in place of its states at layers.1.mlp" in summary
    verdict = made["verdict"]
    assert verdict["acts_on_its_pattern"].null_count() == verdict["beyond_its_twins"].count() == 0
    assert "Would the model write it again?" in page
    assert "Cues put in, and left out" in page
    tokens = made["token_effects"]
    assert set(tokens["trace_id"]) <= {1, 3, 5, 7, 9, 11}
    assert set(tokens["latent"]) == set(made["effects"]["latent"])
    assert set(made["token_changes"]["latent"]) <= set(made["logit_effects"]["latent"])
    assert made["token_changes"].group_by("latent", "side").len()["len"].unique().to_list() == [10]
    assert made["token_changes"]["traces"].unique().to_list() == [6]
    in_the_page(browser, study, made)
    shown = {
        "dashboards", "directions", "descriptions", "coherence", "plot_outcomes", "plot_patterns", "plot_verdict",
        "plot_waterfall",
    }  # fmt: skip
    judged = {f"{rule} layers.1.mlp" for rule in shown | {"verdict"}} | {"summary", "report"}
    edited = study.edit(interventions__strengths=[1.0, 2.0])
    tried = ("ablations", "effects", "plot_effects", "token_changes")
    assert edited.plan() == {f"{rule} layers.1.mlp" for rule in tried} | judged
    assert study.edit(interventions__continuations=2).plan() == {
        "stability", "stable_patterns", "weighted_tests layers.1.mlp", "report"
    }  # fmt: skip
    assert study.edit(interventions=None).plan() == judged
