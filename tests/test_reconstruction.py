"""The site gate: what is measured on traces, and the table and warnings made from it, against sparsify and by hand."""

import logging

import numpy as np
import polars as pl
import pytest
import torch
from test_saes import save_sae

from thoughtscope import config, models
from thoughtscope.errors import InputError
from thoughtscope.evidence import fit
from thoughtscope.plots import evidence as plots
from thoughtscope.readings import block, reconstruction
from thoughtscope.saes import formats

LOG = logging.getLogger("test")
NAMES = ["layers.1.mlp", "layers.1.mlp@residual_in", "layers.1.mlp@residual_out", "layers.0.mlp", "layers.2.mlp"]


def test_sites_compared(manifest):
    manifest = manifest | {"hidden_size": 32, "widths": {f"layers.{layer}.mlp": 32 for layer in range(4)}}
    assert reconstruction.compared_sites("layers.1.mlp", manifest) == NAMES
    assert reconstruction.compared_sites("layers.0.mlp", manifest)[3:] == ["layers.1.mlp"]
    assert reconstruction.compared_sites("layers.3.mlp", manifest)[3:] == ["layers.2.mlp"]
    # A module that doesn't write to the residual stream can't be compared with it.
    wide = {f"layers.{layer}.mlp.up_proj": 64 for layer in range(4)}
    assert reconstruction.compared_sites("layers.1.mlp.up_proj", manifest | {"widths": wide}) == [
        "layers.1.mlp.up_proj", "layers.0.mlp.up_proj", "layers.2.mlp.up_proj",
    ]  # fmt: skip


def test_sites_of_a_blocks_own_output(manifest):
    """A block's output is the residual stream: it is named once."""
    widths = {f"layers.{layer}": 32 for layer in range(4)} | {f"layers.{layer}.mlp": 32 for layer in range(4)}
    manifest = manifest | {"hidden_size": 32, "widths": widths}
    assert reconstruction.compared_sites("layers.1", manifest) == ["layers.1", "layers.1@residual_in", "layers.2"]
    with pytest.raises(InputError, match=r"read_from is 'residual_out', but layers.1 is a block, whose output that is"):
        config.check_sites(manifest, "layers.{layer}", [1], "residual_out")
    config.check_sites(manifest, "layers.{layer}", [1], "residual_in")


@pytest.fixture
def measured(tmp_path, manifest, written):
    save_sae(tmp_path)
    sae, model = formats.load(tmp_path, torch.device("cpu")), models.load_model(manifest, "float32")
    return block.read(written, model=model, sae=sae, site=NAMES[0], compared=NAMES, log=LOG).reconstruction


def test_gate_is_sparsifys_forward_over_all_tokens(tmp_path, manifest, written, measured):
    """FVU, cosine, L0 and norms from the states of all generated tokens at once, read by transformers' own outputs."""
    sae = save_sae(tmp_path)
    model = models.load_model(manifest, "float32")
    states = {name: [] for name in NAMES}
    kept = {}
    for layer in (0, 1, 2):
        module = model.base_model.layers[layer].mlp
        module.register_forward_hook(lambda _m, _i, output, layer=layer: kept.update({f"layers.{layer}.mlp": output}))
    for trace in written.iter_rows(named=True):
        with torch.inference_mode():
            ids = torch.tensor([trace["prompt_ids"] + trace["generated_ids"][:-1]])
            out = model(ids, output_hidden_states=True)
        kept |= {NAMES[1]: out.hidden_states[1], NAMES[2]: out.hidden_states[2]}
        for name in NAMES:
            x, start = kept[name][0], len(trace["prompt_ids"])
            sink = x.norm(dim=-1) > 10 * x.norm(dim=-1).median()
            states[name].append(x[start:][~sink[start:]])
    gate = fit.fit(measured.lazy(), {"num_latents": 96}, site="layers.1.mlp").filter(pl.col("condition").is_null())
    assert gate["site"].to_list() == NAMES
    assert gate["place"].to_list() == list(fit.PLACES)
    assert gate["used"].to_list() == [True] + [False] * 4
    for row in gate.iter_rows(named=True):
        x = torch.cat(states[row["site"]])
        out = sae(x)
        assert row["tokens"] == len(x)
        assert row["fvu"] == pytest.approx(out.fvu.item(), rel=1e-4)
        assert row["cosine"] == pytest.approx(torch.cosine_similarity(x, out.sae_out).mean().item(), rel=1e-4)
        assert row["l0"] == pytest.approx((out.latent_acts > 0).sum(1).float().mean().item())
        fired = out.latent_indices[out.latent_acts > 0].unique()
        assert row["fired"] == pytest.approx(len(fired) / 96)
        assert row["mean_norm"] == pytest.approx(x.norm(dim=-1).mean().item(), rel=1e-4)
        assert row["median_norm"] == pytest.approx(float(np.median(x.norm(dim=-1).numpy())), rel=1e-4)
        assert row["fvu_low"] <= row["fvu"] <= row["fvu_high"]


def rows(site, traces):
    """Rows of a reconstruction file: (trace_id, condition, x, residual) with x and residual (tokens, width)."""
    return [
        {"trace_id": trace_id, "condition": condition, "site": site, "tokens": len(x), "sinks": 1,
         "sum": x.sum(0).tolist(), "squares": float((x**2).sum()), "residual_squares": float((residual**2).sum()),
         "cosines": 0.5 * len(x), "norms": np.linalg.norm(x, axis=1).tolist(), "active": 3 * len(x),
         "latents": [0, trace_id]}
        for trace_id, condition, x, residual in traces
    ]  # fmt: skip


def make_gate(scales, used, traces=8):
    """A gate over sites whose residuals are so many times as large as what they are residuals of."""
    noise = np.random.default_rng(0)
    table = []
    for site, scale in scales.items():
        made = []
        for trace_id in range(traces):
            for condition in ("reason", "direct"):
                x = noise.normal(size=(20, 6)) + 5
                made.append((trace_id, condition, x, scale * noise.normal(size=(20, 6))))
        table += rows(site, made)
    frame = pl.DataFrame(table, schema=reconstruction.SCHEMA).lazy()
    return fit.fit(frame, {"num_latents": 10}, site=used)


def test_neighbouring_saes_keep_their_own_sites():
    """With layers 1 and 2, one SAE's site is a place beside the other's; only its own is the one it is used at."""
    frames = []
    for hookpoint in ("layers.1.mlp", "layers.2.mlp"):
        noise = np.random.default_rng(1)
        table = []
        for site in ("layers.1.mlp", "layers.2.mlp"):
            scale = 0.3 if site == hookpoint else 2.0
            table += rows(
                site, [(i, "reason", noise.normal(size=(9, 6)), scale * noise.normal(size=(9, 6))) for i in (0, 1)]
            )
        frame = pl.DataFrame(table, schema=reconstruction.SCHEMA).lazy()
        frames.append(fit.fit(frame, {"num_latents": 10}, site=hookpoint))
    gate = pl.concat(frames)
    assert gate.filter("used").select("hookpoint", "site").unique().sort("site").rows() == [
        ("layers.1.mlp", "layers.1.mlp"), ("layers.2.mlp", "layers.2.mlp"),
    ]  # fmt: skip
    assert fit.gate_warnings(gate, 0.7) == []


def test_the_interval_is_over_problems_and_covers_the_truth():
    """The residual's variance is 0.25 of x's; nearly all 95 % intervals of 40 problems should hold that."""
    gate = make_gate({"layers.1.mlp": 0.5}, "layers.1.mlp", traces=40)
    assert gate["condition"].to_list() == [None, "direct", "reason"]
    for row in gate.iter_rows(named=True):
        assert row["fvu_low"] < 0.25 < row["fvu_high"]
        assert row["fvu_high"] - row["fvu_low"] < 0.05
    assert gate["traces"].to_list() == [80, 40, 40]
    assert gate["sinks"].to_list() == [80, 40, 40]
    assert gate["fired"].to_list() == [4.0, 4.0, 4.0]  # 40 latents by name, of an SAE said to have 10


def test_no_interval_from_one_problem_and_no_fvu_without_variance():
    one = make_gate({"layers.1.mlp": 0.5}, "layers.1.mlp", traces=1)
    assert one["fvu"].null_count() == 0
    assert one["fvu_low"].null_count() == 3
    still = np.full((20, 6), 3.3)
    frame = pl.DataFrame(rows("layers.1.mlp", [(0, "reason", still, still), (1, "reason", still[:0], still[:0])]),
                         schema=reconstruction.SCHEMA)  # fmt: skip
    gate = fit.fit(frame.lazy(), {"num_latents": 10}, site="layers.1.mlp")
    assert gate["fvu"].to_list() == [None, None]
    nothing = fit.fit(frame.filter(trace_id=1).lazy(), {"num_latents": 10}, site="layers.1.mlp")
    assert nothing.select("tokens", "fvu", "cosine", "median_norm", "l0").rows() == [(0, None, None, None, None)] * 2
    assert fit.gate_warnings(nothing, 0.7) == []
    plots.site_gate(nothing, max_fvu=0.7)


@pytest.mark.parametrize(
    ("scales", "used", "words"),
    [
        ({"layers.1.mlp": 0.5, "layers.1.mlp@residual_in": 2.0}, "layers.1.mlp", []),
        (
            {"layers.1.mlp": 0.5, "layers.1.mlp@residual_in": 2.0},
            "layers.1.mlp@residual_in",
            ["FVU 4.*over analysis.max_fvu = 0.7", "fits layers.1.mlp better, FVU 0.2.*set sae.read_from: hookpoint"],
        ),
        ({"layers.1.mlp": 0.95, "layers.2.mlp": 2.0}, "layers.1.mlp", ["leaves 9.% of the variance unexplained"]),
        ({"layers.1.mlp": 0.5, "layers.2.mlp": 0.1}, "layers.1.mlp", ["fits layers.2.mlp better.*check sae.hookpoint"]),
        (
            {"layers.1.mlp": 0.8, "layers.1.mlp@residual_out": 0.1},
            "layers.1.mlp",
            ["fits layers.1.mlp@residual_out better.*sae.read_from: residual_out"],
        ),
    ],
)
def test_warnings(scales, used, words):
    import re

    gate = make_gate(scales, used)
    lines = fit.gate_warnings(gate, 0.7)
    assert len(lines) == len(words)
    for line, pattern in zip(lines, words, strict=True):
        assert re.search(pattern, line), line
    plots.site_gate(gate, max_fvu=0.7)
