"""Activations: every token's active latents, against the model's own states and sparsify's encode."""

import logging

import polars as pl
import pytest
import torch
from test_saes import save_sae

from thoughtscope import models, sites
from thoughtscope.errors import InputError
from thoughtscope.readings import activations
from thoughtscope.readings.states import read_states
from thoughtscope.saes import formats

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


@pytest.mark.parametrize("site", ["layers.1.mlp", "layers.1.mlp@residual_in", "layers.1.mlp@residual_out"])
def test_activations_are_sparsifys_on_the_sites_states(tmp_path, manifest, written, site):
    sae = save_sae(tmp_path)
    encoder = formats.load_encoder(tmp_path, torch.device("cpu"))
    whole = models.load_model(manifest, "float32")
    table = activations.encode(
        written, model=models.load_model(manifest, "float32"), encoder=encoder, site=site, log=LOG
    )
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
    encoder = formats.load_encoder(tmp_path, torch.device("cpu"))

    def encode(table):
        model = models.load_model(manifest, "float32")
        return activations.encode(table, model=model, encoder=encoder, site="layers.2.mlp", log=LOG)

    together = encode(written)
    monkeypatch.setattr("thoughtscope.readings.states.BATCH_TOKENS", 1)
    alone = pl.concat([encode(written[i : i + 1]) for i in range(len(written))])
    assert together.drop("activation").equals(alone.drop("activation"))
    assert together["activation"].to_list() == pytest.approx(alone["activation"].to_list(), rel=1e-4)


def read(model, ids, site, *, how):
    """One trace's states at a site, computed in another way than `read_states` does."""
    kept = []
    handle = sites.read(model, site, lambda state: kept.append(state[0]))
    with torch.inference_mode():
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
    handle.remove()
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
    for trace, mine in found:
        expected = read(other, trace["ids"], site, how=how)
        assert mine[site].shape == expected.shape
        assert (mine[site] - expected).norm() / expected.norm() < 1e-5


def test_bfloat16_is_noise_not_another_result(tmp_path, manifest, written):
    """The model in bfloat16, the SAE in float32 on what it gives: most of each token's activation is the same."""
    save_sae(tmp_path)
    encoder = formats.load_encoder(tmp_path, torch.device("cpu"))
    tables = [
        activations.encode(
            written, model=models.load_model(manifest, dtype), encoder=encoder, site="layers.2.mlp", log=LOG
        )
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
        activations.encode(
            written,
            model=model,
            encoder=formats.load_encoder(tmp_path, torch.device("cpu")),
            site="layers.1.mlp",
            log=LOG,
        )


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
        for trace, states in read_states(written, model=model, names=["layers.1.mlp"], log=LOG)
    ]
    lengths = [
        (trace["trace_id"], len(trace["prompt_ids"]) + len(trace["generated_ids"]) - 1)
        for trace in written.iter_rows(named=True)
    ]
    assert sorted(found) == lengths
    assert sum(rows for rows, _ in shapes) == 4
    assert all(rows == 1 or rows * longest <= 80 for rows, longest in shapes)
    assert max(rows for rows, _ in shapes) > 1


def test_models_are_cut_after_the_block(model):
    sites.cut_after(model, 1)
    assert len(model.base_model.layers) == 2
    assert model(torch.tensor([[1, 2, 3]])).logits.shape[-1] == 32  # the head is gone
