"""Activations: every token's active latents, against the model's own states and sparsify's encode."""

import logging
from itertools import chain

import polars as pl
import pytest
import torch
from test_saes import save_sae

from thoughtscope import models, sites
from thoughtscope.errors import InputError
from thoughtscope.readings import activations, block, features
from thoughtscope.readings.states import read_states
from thoughtscope.saes import bounded, formats

LOG = logging.getLogger("test")


def states(model, ids, site):
    """The site's states by transformers' own outputs or a hand-made hook, one trace at a time."""
    kept = {}
    module = model.base_model.layers[1].mlp
    handle = module.register_forward_hook(lambda _m, _i, output: kept.update(mlp=output))
    with torch.inference_mode():
        out = model(torch.tensor([ids]), output_hidden_states=True)
    handle.remove()
    # hidden_states[L] enters block L; hidden_states[L + 1] leaves it.
    return {"layers.1.mlp": kept["mlp"][0], "layers.1.mlp@residual_in": out.hidden_states[1][0],
            "layers.1.mlp@residual_out": out.hidden_states[2][0]}[site]  # fmt: skip


def encode(folder, traces, model, site):
    """The activations table at a site, by the SAE in a folder."""
    sae = formats.load(folder, torch.device("cpu"))
    return block.read(traces, model=model, sae=sae, site=site, compared=[], log=LOG).activations


@pytest.mark.parametrize("site", ["layers.1.mlp", "layers.1.mlp@residual_in", "layers.1.mlp@residual_out"])
def test_activations_are_sparsifys_on_the_sites_states(tmp_path, manifest, written, site):
    sae = save_sae(tmp_path)
    whole = models.load_model(manifest, "float32")
    table = encode(tmp_path, written, models.load_model(manifest, "float32"), site)
    assert table.schema == pl.Schema(activations.SCHEMA)
    for trace in written.iter_rows(named=True):
        ids = trace["prompt_ids"] + trace["generated_ids"][:-1]  # the last was written, but never read
        x = states(whole, ids, site)
        expected = sae.encode(x)
        norms = x.norm(dim=-1)
        mine = table.filter(trace_id=trace["trace_id"])
        assert mine["position"].unique().to_list() == list(range(len(ids)))
        for position, token in enumerate(ids):
            rows = mine.filter(position=position)
            pairs = zip(expected.top_indices[position].tolist(), expected.top_acts[position].tolist(), strict=True)
            reference = dict(pair for pair in pairs if pair[1] > 0)
            assert dict(rows.select("latent", "activation").iter_rows()) == pytest.approx(reference, rel=1e-4)
            assert rows["activation"].to_list() == sorted(rows["activation"], reverse=True)
            assert set(rows["token_id"]) == {token}
            segment = next(part["segment"] for part in trace["segments"] if part["start"] <= position < part["end"])
            assert set(rows["segment"]) == {segment}
            sink = position == 0 or bool(norms[position] > 10 * norms.median())
            assert set(rows["sink"]) == {sink}


def test_a_trace_is_encoded_alike_in_any_company(tmp_path, manifest, written, monkeypatch):
    save_sae(tmp_path)
    model = models.load_model(manifest, "float32")
    together = encode(tmp_path, written, model, "layers.2.mlp")
    monkeypatch.setattr("thoughtscope.readings.states.BATCH_TOKENS", 1)
    alone = pl.concat([encode(tmp_path, written[i : i + 1], model, "layers.2.mlp") for i in range(len(written))])
    assert together.drop("activation").equals(alone.drop("activation"))
    assert together["activation"].to_list() == pytest.approx(alone["activation"].to_list(), rel=1e-4)


def read(model, ids, site, *, how):
    """One trace's states at a site, computed in another way than `read_states` does."""
    kept = []
    with torch.inference_mode(), sites.replacing(model, site, lambda states: kept.append(states[0])):
        match how:
            case "padded on the left":
                padded = torch.tensor([[7] * 6 + ids])
                mask = torch.tensor([[0] * 6 + [1] * len(ids)])
                model(padded, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0))
                kept = [kept[0][6:]]
            case "step by step with a cache":
                cache = None
                for token in ids:
                    cache = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True).past_key_values
            case "in two parts with a cache":
                cache = model(torch.tensor([ids[:20]]), use_cache=True).past_key_values
                model(torch.tensor([ids[20:]]), past_key_values=cache, use_cache=True)
            case _:
                model(torch.tensor([ids]))
    return torch.cat(kept)


@pytest.mark.parametrize("site", ["layers.2.mlp", "layers.2.mlp@residual_in"])
@pytest.mark.parametrize(
    ("attention", "how"),
    [
        ("eager", "whole"),
        ("sdpa", "whole"),
        ("sdpa", "padded on the left"),
        ("eager", "padded on the left"),
        ("sdpa", "step by step with a cache"),
        ("sdpa", "in two parts with a cache"),
    ],
)
def test_states_do_not_depend_on_attention_padding_or_cache(manifest, written, site, attention, how):
    other = models.load_model(manifest, "float32")
    other.set_attn_implementation(attention)
    assert other.config._attn_implementation == attention
    found = read_states(written, model=models.load_model(manifest, "float32"), names=[site], log=LOG)
    for trace, mine in chain.from_iterable(found):
        expected = read(other, trace["ids"], site, how=how)
        assert mine[site].shape == expected.shape
        assert (mine[site] - expected).norm() / expected.norm() < 1e-5


def test_bfloat16_is_noise_not_another_result(tmp_path, manifest, written):
    """The model in bfloat16, the SAE in float32 on what it gives: most of each token's activation is the same."""
    save_sae(tmp_path)
    tables = [
        encode(tmp_path, written, models.load_model(manifest, dtype), "layers.2.mlp")
        for dtype in ("float32", "bfloat16")
    ]
    keys = ["trace_id", "position", "latent"]
    both = tables[0].join(tables[1], on=keys, how="inner", suffix="_bf16")
    assert both["activation"].sum() > 0.97 * tables[0]["activation"].sum()
    assert (both["activation"] - both["activation_bf16"]).abs().mean() < 0.02 * both["activation"].mean()


def test_a_state_that_is_not_finite_is_refused(tmp_path, model, written):
    save_sae(tmp_path)
    model.base_model.layers[1].mlp.down_proj.weight.data[3, 3] = torch.inf
    with pytest.raises(InputError, match=r"trace \d has a non-finite state at layers\.1\.mlp, position 0"):
        encode(tmp_path, written, model, "layers.1.mlp")


def test_sinks_are_position_0_and_tenfold_norms():
    norms = torch.tensor([1.0, 1.0, 10.0, 10.1, 1.0, 1.0])
    assert sites.sinks(norms).tolist() == [True, False, False, True, False, False]


def test_batches_hold_every_row_once_within_the_limit(model, written, monkeypatch):
    """As many padded tokens as BATCH_TOKENS allows go through the model at once, whatever their traces' lengths."""
    monkeypatch.setattr("thoughtscope.readings.states.BATCH_TOKENS", 80)
    shapes = []
    model.base_model.register_forward_pre_hook(
        lambda _m, _a, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = [
        (trace["trace_id"], len(states["layers.1.mlp"]))
        for batch in read_states(written, model=model, names=["layers.1.mlp"], log=LOG)
        for trace, states in batch
    ]
    lengths = [
        (trace["trace_id"], len(trace["prompt_ids"]) + len(trace["generated_ids"]) - 1)
        for trace in written.iter_rows(named=True)
    ]
    assert sorted(found) == lengths
    assert sum(rows for rows, _ in shapes) == 4
    assert all(rows == 1 or rows * longest <= 80 for rows, longest in shapes)
    assert max(rows for rows, _ in shapes) > 1


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_a_block_is_read_in_one_pass_and_encoded_once_a_site(tmp_path, model, written, monkeypatch):
    """One pass as far as the last site, whatever is asked of it; at other sites only generated tokens are encoded."""
    save_sae(tmp_path)
    sae = formats.load(tmp_path, torch.device("cpu"))
    passes, encoded = [], []
    for index, layer in enumerate(model.base_model.layers):
        layer.register_forward_pre_hook(lambda _m, _a, index=index: passes.append(index))

    encode_rows = bounded.BoundedTopK.encode

    def counted(self, x):
        encoded.append(len(x))
        return encode_rows(self, x)

    monkeypatch.setattr(bounded.BoundedTopK, "encode", counted)
    names = ["layers.1.mlp", "layers.1.mlp@residual_in", "layers.2.mlp"]
    before = hooks(model)
    reading = block.read(written, model=model, sae=sae, site=names[1], compared=names, log=LOG)
    assert passes == [0, 1, 2]
    read = sum(len(trace["prompt_ids"]) + len(trace["generated_ids"]) - 1 for trace in written.iter_rows(named=True))
    generated = sum(len(trace["generated_ids"]) - 1 for trace in written.iter_rows(named=True))
    assert encoded == [generated, read, generated]
    assert hooks(model) == before
    assert len(model.base_model.layers) == 4
    alone = block.read(written, model=model, sae=sae, site=names[1], compared=[], log=LOG)
    assert alone.activations.drop("activation").equals(reading.activations.drop("activation"))
    assert alone.reconstruction.is_empty()
    assert reading.features.equals(features.summarize(reading.activations))
    assert reading.reconstruction["site"].to_list() == names * 4


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_is_whole_after_it_was_read(model, fails):
    """The blocks after the last one needed aren't run; then all is as it was, also where the pass fails."""
    ids, ran = torch.tensor([[1, 2, 3]]), []
    expected, head = model(ids).logits, model.get_output_embeddings()
    model.base_model.layers[2].register_forward_pre_hook(lambda _m, _a: ran.append(2))
    before = hooks(model)
    names = ["layers.0.mlp", "layers.1@residual_in"]
    try:
        with sites.stopping_after(model, 1), sites.reading(model, names) as states:
            assert model(ids).logits.shape[-1] == 32  # the head is gone
            assert set(states) == set(names)
            if fails:
                model(ids[:, :0], position_ids=ids)
    except RuntimeError:
        assert fails
    assert ran == []
    assert hooks(model) == before
    assert model.get_output_embeddings() is head
    assert model.config.num_hidden_layers == len(model.base_model.layers) == 4
    assert torch.equal(model(ids).logits, expected)
    assert ran == [2]


@pytest.mark.parametrize(
    "site", ["layers.1.mlp", "layers.1.self_attn", "layers.1@residual_in", "layers.1@residual_out"]
)
def test_states_are_replaced(model, site):
    """What is put in their place is what the model goes on with: its own states change nothing, others do."""
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode(), sites.reading(model, [site]) as states:
        expected = model(ids).logits
        own, other = states[site], states[site].flip(-1)
        with sites.replacing(model, site, lambda _states: own):
            assert torch.equal(model(ids).logits, expected)
        with sites.replacing(model, site, lambda _states: other), sites.reading(model, [site]) as replaced:
            assert not torch.allclose(model(ids).logits, expected, rtol=1e-2)
            assert torch.equal(replaced[site], other)
        assert torch.equal(model(ids).logits, expected)
    if site == "layers.1@residual_in":  # by hand: block 0 gives what block 1 is to read
        handle = model.base_model.layers[0].register_forward_hook(lambda _m, _a, _o: other)
        by_hand = model(ids).logits
        handle.remove()
        with sites.replacing(model, site, lambda _states: other):
            assert torch.equal(model(ids).logits, by_hand)
