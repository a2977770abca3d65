"""SAEs: exact encoding against sparsify's own, and the refusal of what doesn't fit."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sparsify import SparseCoder, SparseCoderConfig

from thoughtscope.errors import HubUnreachable, InputError
from thoughtscope.saes import bounded, coder, formats

LOG = logging.getLogger("test")
OURS = {"format": "sparsify", "folder": "{hookpoint}"}


def save_sae(folder: Path, d_in: int = 32, num_latents: int = 96, k: int = 8, seed: int = 0, **changes) -> SparseCoder:
    torch.manual_seed(seed)
    sae = SparseCoder(d_in, SparseCoderConfig(num_latents=num_latents, k=k, **changes))
    sae.encoder.bias.data.normal_(std=0.1)
    sae.b_dec.data.normal_()
    sae.save_to_disk(folder)
    return sae


@pytest.mark.parametrize(("latents", "k", "chunk"), [(96, 8, 2**27), (96, 96, 2**27), (1000, 32, 3000)])
def test_encode_is_sparsifys(tmp_path, monkeypatch, latents, k, chunk):
    monkeypatch.setattr(coder, "CHUNK_VALUES", chunk)
    theirs = save_sae(tmp_path, num_latents=latents, k=k)
    ours = formats.load(tmp_path, torch.device("cpu"))
    x = 2 * torch.randn(37, 32)
    expected = theirs.encode(x)
    order = expected.top_acts.argsort(descending=True, dim=-1, stable=True)
    dense = torch.zeros(37, latents).scatter(-1, expected.top_indices, expected.top_acts)
    for activations, indices in (ours.encode(x), coder.TopK.encode(ours, x)):  # the fast way and the plain one
        assert torch.allclose(activations, expected.top_acts.gather(-1, order), rtol=1e-5, atol=0)
        active = activations > 0
        assert torch.allclose(torch.zeros(37, latents).scatter(-1, indices, activations), dense, rtol=1e-5, atol=0)
        assert active.sum() == (dense > 0).sum()


@pytest.fixture
def dense_tokens(monkeypatch) -> list[int]:
    """Encode by bounds whatever the size and the hardware; return how many tokens each dense encoding then takes."""
    dense, counts = bounded.BoundedTopK._encode_dense, []

    def counted(self, x, space=None):
        counts.append(len(x))
        return dense(self, x, space)

    monkeypatch.setattr(bounded, "BOUND_WEIGHTS", 0)
    monkeypatch.setattr(bounded, "_multiplies_bfloat16", lambda device: True)
    monkeypatch.setattr(bounded.BoundedTopK, "_encode_dense", counted)
    return counts


def fast(weight: torch.Tensor, bias: torch.Tensor, b_dec: torch.Tensor, k: int) -> bounded.BoundedTopK:
    return bounded.BoundedTopK(weight, bias, weight, b_dec, k)


def check_exact(sae: SparseCoder, x: torch.Tensor) -> None:
    """Compare with sparsify's own float32 `encode`, and each latent with its pre-activation in float64."""
    weight, bias, b_dec = (tensor.detach() for tensor in (sae.encoder.weight, sae.encoder.bias, sae.b_dec))
    activations, latents = fast(weight, bias, b_dec, sae.cfg.k).encode(x)
    expected = sae.encode(x).top_acts.detach().sort(descending=True).values
    assert activations.shape == latents.shape == expected.shape
    # What float32 can't resolve: differences far below the terms of the sum.
    rounding = 1e-6 * (x - b_dec).norm(dim=-1, keepdim=True) * weight.norm(dim=-1).max()
    assert ((activations - expected).abs() <= 1e-5 * expected + rounding).all()
    pre_activations = (x - b_dec).double() @ weight.double().T + bias.double()
    theirs = pre_activations.gather(-1, latents).relu()
    assert ((activations - theirs).abs() <= 1e-5 * theirs + rounding).all()
    assert all(len(row.unique()) == sae.cfg.k for row in latents)  # so that ties are different latents


def case(name: str) -> tuple[SparseCoder, torch.Tensor]:
    """Return a hard SAE, 64 wide with 512 latents, and states for it."""
    torch.manual_seed(0)
    sae = SparseCoder(64, SparseCoderConfig(num_latents=512, k=512 if name == "all latents" else 8))
    weight, bias, x = sae.encoder.weight.data, sae.encoder.bias.data, torch.randn(40, 64)
    bias.normal_(std=0.1)
    sae.b_dec.data.normal_()
    if name == "near-ties":
        weight[1::2], bias[1::2] = weight[::2] * (1 + 1e-6), bias[::2]
    elif name == "duplicates":
        weight[:], bias[:] = weight[:16].repeat(32, 1), bias[:16].repeat(32)
    elif name == "nearly the same":
        weight[:], bias[:] = weight[0] + 1e-5 * weight, 3
    elif name == "few active":
        bias -= 2
    elif name == "none active":
        bias -= 100
    elif name == "large biases":
        bias *= 1e4
    elif name == "one large bias":
        bias[7] = 1e6
    elif name == "rows of different norms":
        weight *= torch.logspace(-3, 3, 512)[:, None]
    elif name.startswith("scale"):
        scale = float(name.split()[1])
        x *= scale
        bias *= scale
        sae.b_dec.data *= scale
    return sae, x


@pytest.mark.parametrize(
    ("name", "unproven"),
    [
        ("random", 0),
        ("scale 1e3", 0),
        ("scale 1e-3", 0),
        ("scale 1e-20", 40),  # where float32 itself begins to underflow, nothing is proven
        ("few active", 0),
        ("none active", 0),
        ("large biases", 0),
        ("one large bias", 0),
        ("rows of different norms", 0),
        ("near-ties", 0),
        ("duplicates", 40),
        ("nearly the same", 40),
        ("all latents", 0),
    ],
)
def test_bounded_encoding_is_sparsifys(dense_tokens, name, unproven):
    sae, x = case(name)
    check_exact(sae, x)
    check_exact(sae, x[:1])
    assert sum(dense_tokens[:1]) == unproven


@pytest.mark.parametrize(("candidates", "chunk"), [(1, 2**27), (3, 512 * 7), (1000, 2**27)])
def test_bounded_encoding_with_any_candidates_and_chunks(dense_tokens, monkeypatch, candidates, chunk):
    """With k candidates next to nothing is proven, with all latents everything is; the result is the same."""
    monkeypatch.setattr(bounded, "CANDIDATES", candidates)
    monkeypatch.setattr(coder, "CHUNK_VALUES", chunk)
    check_exact(*case("random"))
    assert (sum(dense_tokens) > 30) == (candidates == 1)


@pytest.mark.parametrize("native", [True, False])
def test_encoding_again_in_the_same_memory_and_another_mode(monkeypatch, native):
    monkeypatch.setattr(bounded, "BOUND_WEIGHTS", 0)
    monkeypatch.setattr(bounded, "_multiplies_bfloat16", lambda device: native)
    monkeypatch.setattr(coder, "CHUNK_VALUES", 512 * 7)
    sae, x = case("random")
    ours = fast(sae.encoder.weight, sae.encoder.bias, sae.b_dec, 8)
    with torch.inference_mode():
        first = ours.encode(x)
    kept = first.activations.clone()
    again = ours.encode(x.flip(0))  # what was given out stays what it is
    assert torch.equal(first.activations, kept)
    assert torch.equal(again.latents.flip(0), first.latents)
    assert torch.allclose(again.activations.flip(0), kept, rtol=1e-5)


def test_bounded_encoding_of_no_token(dense_tokens):
    sae, x = case("random")
    activations, latents = fast(sae.encoder.weight, sae.encoder.bias, sae.b_dec, 8).encode(x[:0])
    assert activations.shape == latents.shape == (0, 8)
    assert latents.dtype == torch.int64


def test_candidates_are_proven_past_the_rounding_of_the_bounds(dense_tokens, monkeypatch):
    """All bounds are 1, to within their rounding, and tell nothing."""
    weight = torch.linspace(1, 1 + bounded.BFLOAT16_UNIT, 100)[:, None]
    ones = torch.ones(1, 100, dtype=torch.bfloat16)
    monkeypatch.setattr(bounded.BoundedTopK, "_bounds", lambda self, x, space: ones)
    activations, latents = fast(weight, torch.zeros(100), torch.zeros(1), 4).encode(torch.ones(1, 1))
    assert latents.tolist() == [[99, 98, 97, 96]]
    assert torch.equal(activations, weight[latents[0]].T)


def test_unproven_tokens_among_proven_ones(dense_tokens):
    """Every third token sees latents that are nearly the same, one isn't finite, the rest see random ones."""
    sae, x = case("random")
    weight = sae.encoder.weight.data
    sae.b_dec.data[:] = 0
    weight[:256, 32:], weight[256:] = 0, 1e-5 * weight[256:]
    weight[256:, 32:] += 1
    x[:, 32:], x[::3, :32], x[::3, 32:] = 0, 0, 1
    check_exact(sae, x)
    assert dense_tokens == [14]
    x[1] = torch.nan
    assert fast(weight, sae.encoder.bias.data, sae.b_dec.data, 8).encode(x)[0][1].isnan().all()
    assert dense_tokens == [14, 15]


def above(value: float) -> float:
    """Return a number a little under halfway from value, a power of two, to the next bfloat16: it is rounded down."""
    return value * (1 + 0.9 * bounded.BFLOAT16_UNIT)


def adversary(name: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return weight, bias and states at which one term of the bound is all there is: the rest of the sum cancels."""
    torch.manual_seed(0)
    half = 512
    ones, bias = torch.ones(1, half), torch.zeros(1)
    if name == "states rounded":
        return torch.cat([ones, ones], 1), bias, torch.cat([above(1) * ones, -ones], 1)
    if name == "rows rounded":
        return torch.cat([above(1) * ones, -ones], 1), bias, torch.cat([ones, ones], 1)
    if name == "biases rounded":
        return torch.cat([-ones, 0 * ones], 1), torch.tensor([above(half)]), torch.cat([ones, 0 * ones], 1)
    if name == "product rounded":  # exact in bfloat16, and each term has its opposite
        rows, states = torch.randn(200, half).bfloat16().float(), torch.randn(20, half).bfloat16().float()
        order = torch.randperm(half)
        return torch.cat([rows, -rows[:, order]], 1), bias.expand(200), torch.cat([states, states[:, order]], 1)
    if name == "pre-activations rounded":  # 1, then steps of just over half of its last digit, each rounded up to one
        row, state = 2.0**-12 * ones, 2.0**-12 * (1 + 2.0**-6) * ones
        return torch.cat([ones[:, :1], row, -ones[:, :1]], 1), bias, torch.cat([ones[:, :1], state, ones[:, :1]], 1)
    if name == "norms rounded":  # each state's error is along every row, so that Cauchy-Schwarz is an equality
        signs = torch.tensor([1.0, -1.0]).repeat(4)
        rows = (1 + torch.arange(128)[:, None] / 128) * torch.ones(8)
        return rows, bias.expand(128), signs + 2.0**-9 * torch.linspace(0.5, 0.999, 100)[:, None]
    if name == "products underflow":
        return 1e-20 * ones.expand(64, -1), bias.expand(64), 1e-20 * ones.expand(64, -1)
    if name == "states underflow":
        return ones.expand(64, -1), bias.expand(64), 1e-39 * ones.expand(64, -1)
    scale = torch.logspace(-4, 4, 100)[:, None]
    return scale * torch.randn(100, half), torch.randn(100) * scale[:, 0], scale * torch.randn(100, half)


@pytest.mark.parametrize(
    "name",
    [
        "random",
        "states rounded",
        "rows rounded",
        "biases rounded",
        "product rounded",
        "pre-activations rounded",
        "norms rounded",
        "products underflow",
        "states underflow",
    ],
)
def test_bounds_are_bounds(name):
    """Against float64, and against float32 summed one term after the other, which is the worst order."""
    weight, bias, x = adversary(name)
    bounds = fast(weight, bias, torch.zeros(weight.shape[1]), 1)._bounds(x).double()
    bounds += bounded.BFLOAT16_UNIT * bounds.abs()
    assert (x.double() @ weight.double().T + bias.double() <= bounds).all()
    one_by_one = np.cumsum((x[:, None] * weight).numpy(), axis=-1, dtype=np.float32)[..., -1]
    assert (torch.from_numpy(one_by_one) + bias <= bounds).all()


def test_bounds_are_used_for_large_encoders_where_the_hardware_multiplies_bfloat16(monkeypatch):
    used = []
    for weights, native in [(512, True), (513, True), (512, False)]:
        monkeypatch.setattr(bounded, "BOUND_WEIGHTS", weights)
        monkeypatch.setattr(bounded, "_multiplies_bfloat16", lambda device, native=native: native)
        encoder = fast(torch.randn(64, 8), torch.zeros(64), torch.zeros(8), 4)
        encoder.encode(torch.randn(3, 8))
        used.append("_bound_weight" in vars(encoder))
    assert used == [True, False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "count"), [(1000, 32), (96, 96), (97, 5), (2304, 32), (4096, 96), (7, 1)])
def test_largest_is_topk(monkeypatch, dtype, width, count):
    """Random rows, ties and all, and rows whose largest are all in one group of columns, or all in the last ones."""
    monkeypatch.setattr(bounded, "SHORT_ROW", 0)
    torch.manual_seed(0)
    rows = torch.randn(40, width).to(dtype)
    rows[1] = 1
    rows[2, :: max(1, width // count)] += 10
    rows[3, -count:] += 10
    rows[4] = rows[4].sort().values
    rows[5, 3] = torch.inf
    values, columns = bounded.largest(rows, count)
    assert torch.equal(values, rows.topk(count, dim=-1).values)
    assert torch.equal(rows.gather(-1, columns), values)
    assert all(len(row.unique()) == count for row in columns)
    assert bounded.largest(rows[:0], count)[0].shape == (0, count)


def test_decode_is_sparsifys(tmp_path):
    theirs = save_sae(tmp_path)
    ours = formats.load(tmp_path, torch.device("cpu"))
    x = 2 * torch.randn(37, 32)
    codes = ours.encode(x)
    assert torch.allclose(ours.decode(codes), theirs(x).sae_out, rtol=1e-4, atol=1e-5)
    assert ours.decode(ours.encode(x[:0])).shape == (0, 32)
    directions = ours.direction(codes.latents)
    by_hand = (codes.activations.unsqueeze(-1) * directions).sum(1) + theirs.b_dec
    assert torch.allclose(by_hand, theirs(x).sae_out, rtol=1e-4, atol=1e-5)


def test_weights_of_another_precision_are_applied_in_float32(tmp_path):
    theirs = save_sae(tmp_path).bfloat16()
    theirs.save_to_disk(tmp_path)
    ours = formats.load(tmp_path, torch.device("cpu"))
    x = torch.randn(5, 32)
    activations, _ = ours.encode(x)
    assert torch.allclose(activations, theirs.float().encode(x).top_acts.sort(descending=True).values, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transcode": True}, "transcoder"),
        ({"activation": "groupmax"}, "'groupmax'"),
        ({"skip_connection": True}, "skip connection"),
    ],
)
def test_what_is_no_topk_autoencoder_is_refused(tmp_path, changes, words):
    save_sae(tmp_path, **changes)
    with pytest.raises(InputError, match=words):
        formats.load(tmp_path, torch.device("cpu"))


def test_fetch_links_and_checks_the_width(tmp_path):
    theirs = save_sae(tmp_path / "from" / "layers.1.mlp")
    manifest = {"name": "tiny", "widths": {"layers.1.mlp": 32}}
    source = {"source": "path", "path": str(tmp_path / "from")} | OURS
    formats.fetch(source, "layers.1.mlp", manifest, tmp_path / "to", LOG)
    linked = load_file(tmp_path / "to" / "sae.safetensors")
    assert torch.equal(linked["encoder.weight"], theirs.encoder.weight)
    assert (tmp_path / "to" / "sae.safetensors").readlink() == tmp_path / "from" / "layers.1.mlp" / "sae.safetensors"
    info = json.loads((tmp_path / "to" / "info.json").read_text())
    assert (info["d_in"], info["num_latents"], info["k"]) == (32, 96, 8)

    manifest["widths"]["layers.1.mlp"] = 64
    with pytest.raises(InputError, match=r"width 32, but that module of tiny puts out 64"):
        formats.fetch(source, "layers.1.mlp", manifest, tmp_path / "wrong", LOG)
    assert not (tmp_path / "wrong" / "sae.safetensors").exists()

    shutil.rmtree(tmp_path / "from")
    with pytest.raises(InputError, match=r"SAE files are gone: .*/to/cfg\.json \(a link to .*Delete info\.json"):
        formats.load(tmp_path / "to", torch.device("cpu"))


def test_fetch_from_the_hub(tmp_path, hub_snapshot, caplog):
    """From the cache, at the commit of main, with a warning; a main that has moved since another layer is refused."""
    source = {"source": "hub", "name": "someone/sae", "revision": None} | OURS
    manifest = {"name": "tiny", "widths": {"layers.1.mlp": 32, "layers.2.mlp": 32}}
    save_sae(hub_snapshot("models--someone--sae", "a" * 40) / "layers.1.mlp")
    formats.fetch(source, "layers.1.mlp", manifest, tmp_path / "saes" / "layers.1.mlp", LOG)
    info = json.loads((tmp_path / "saes" / "layers.1.mlp" / "info.json").read_text())
    assert (info["revision"], info["num_latents"]) == ("a" * 40, 96)
    assert "sae.revision: " + "a" * 40 in caplog.text

    save_sae(hub_snapshot("models--someone--sae", "b" * 40) / "layers.2.mlp")
    with pytest.raises(InputError, match=r"has moved from a{40} to b{40} since layers\.1\.mlp was fetched; pin one"):
        formats.fetch(source, "layers.2.mlp", manifest, tmp_path / "saes" / "layers.2.mlp", LOG)
    formats.fetch(source | {"revision": "a" * 40}, "layers.1.mlp", manifest, tmp_path / "other" / "layers.1.mlp", LOG)

    with pytest.raises(
        HubUnreachable, match=r"config: sae\.name: layers\.3\.mlp/cfg\.json of 'someone/sae' can't be fetched"
    ):
        formats.fetch(source, "layers.3.mlp", manifest | {"widths": {"layers.3.mlp": 32}}, tmp_path / "third", LOG)
