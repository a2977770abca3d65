"""Decoder directions: the unembedding against transformers', tables against plain Python, sites by experiment."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import REPO, build_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Glm4Config,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    PreTrainedConfig,
)

from thoughtscope import matrices, models, vocabulary
from thoughtscope.report import directions
from thoughtscope.report.directions import LOGIT_EFFECTS_SCHEMA, NEIGHBOURS_SCHEMA

SMALL = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8,
         "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "initializer_range": 0.5}  # fmt: skip


def words(count: int) -> pl.DataFrame:
    """A vocabulary of so many tokens, in no order."""
    table = pl.DataFrame({"token_id": range(count), "token": [f"w{index}" for index in range(count)]})
    return table.cast({"token_id": pl.UInt32}).sample(fraction=1, shuffle=True, seed=0)


def integers(*shape: int, most: int = 2, seed: int = 0) -> Tensor:
    """Small whole numbers: their products are exact, and often equal."""
    return torch.randint(-most, most + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


# Where a site's output goes


def added(config: PreTrainedConfig, module: str) -> tuple[Tensor, Tensor]:
    """Add a vector to what a module of the last block gives out; return it, and how the state leaving that changes.

    What the module feeds counts, what comes after that doesn't: the MLP gives 0 unless the module is it or follows it.
    """
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval().base_model
    for name, parameter in base.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter)  # no gain of 1, which could pass for no norm
    block, vector = base.layers[-1], torch.randn(config.hidden_size, dtype=torch.float64)
    names = ["", *(name for name, _ in block.named_children())]
    assert module in names
    follows = module in ("", "mlp", "post_feedforward_layernorm", "post_mlp_layernorm")

    def state(addend: Tensor) -> Tensor:
        states: list[Tensor] = []

        def plus(_module: nn.Module, _args: Any, output: Any) -> Any:
            return (output[0] + addend, *output[1:]) if isinstance(output, tuple) else output + addend

        hooks = [block.get_submodule(module).register_forward_hook(plus)]
        if not follows:
            hooks.append(block.mlp.register_forward_hook(lambda _module, _args, output: torch.zeros_like(output)))
        hooks.append(block.register_forward_hook(lambda _module, _args, output: states.append(output)))
        with torch.inference_mode():
            base(input_ids=torch.tensor([[5, 9, 2, 40]]), use_cache=False)
        for hook in hooks:
            hook.remove()
        return states[0]

    return vector, state(vector) - state(torch.zeros_like(vector))


ARCHITECTURES = [
    (LlamaConfig(**SMALL), ["self_attn", "mlp"]),
    (Gemma2Config(**SMALL), ["post_attention_layernorm", "post_feedforward_layernorm"]),
    (Olmo2Config(**SMALL), ["post_attention_layernorm", "post_feedforward_layernorm"]),
    (Glm4Config(**SMALL), ["post_self_attn_layernorm", "post_mlp_layernorm"]),
]


@pytest.mark.parametrize(("config", "expected"), ARCHITECTURES, ids=lambda value: getattr(value, "model_type", ""))
def test_what_is_added_to_the_residual_stream(config, expected):
    """For the block and each of its modules, a vector added to the output arrives as it is, or doesn't."""
    widths = models.module_widths(config)
    children = [name.removeprefix("layers.1.") for name in widths if name.startswith("layers.1.")]
    children = [name for name in children if "." not in name]
    assert {"self_attn", "mlp", "post_attention_layernorm", *expected} <= set(children)
    arrives = []
    for module in ["", *children]:
        vector, change = added(config, module)
        as_it_is = torch.allclose(change, vector.expand_as(change), rtol=0, atol=1e-9)
        assert directions.writes_to_residual(f"layers.1.{module}".rstrip("."), {"widths": widths}) == as_it_is, module
        arrives += [module] if as_it_is else []
    assert sorted(arrives) == sorted(["", *expected])


@pytest.mark.parametrize("config", [LlamaConfig(**SMALL), Gemma2Config(**SMALL)], ids=lambda config: config.model_type)
@pytest.mark.parametrize("module", ["mlp", "input_layernorm", "self_attn.q_proj"])
def test_the_residual_stream_beside_any_module_is_itself(config, module):
    manifest = {"widths": models.module_widths(config)}
    assert directions.writes_to_residual(f"layers.1.{module}@residual_in", manifest)
    assert directions.writes_to_residual(f"layers.1.{module}@residual_out", manifest)


def test_what_lies_within_a_sublayer_is_not_added():
    manifest = {"widths": models.module_widths(LlamaConfig(**SMALL))}
    for module in ("self_attn.q_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.act_fn"):
        assert f"layers.1.{module}" in manifest["widths"]
        assert not directions.writes_to_residual(f"layers.1.{module}", manifest)


# The unembedding


def saved(folder: Path, *, tied: bool, shards: str = "1GB", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """A manifest of a saved random Llama, whose input and output embeddings differ unless tied."""
    torch.manual_seed(2)
    model = LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=tied)).to(dtype)
    model.save_pretrained(folder, max_shard_size=shards)
    return {"folder": str(folder), "files": {}}


def with_names(manifest: dict[str, Any]) -> dict[str, Any]:
    """Add what rule model says of the unembedding."""
    return manifest | {"unembedding": models.unembedding_names(AutoConfig.from_pretrained(manifest["folder"]))}


def stored(folder: Path, matrix: Tensor) -> matrices.Matrix:
    """A matrix as it is read from a file that holds it among others."""
    save_file({"first": torch.zeros(3), "matrix": matrix, "others": torch.ones(2, 2)}, folder / "stored.safetensors")
    return matrices.matrices(folder / "stored.safetensors")["matrix"]


def check_unembedding(manifest: dict[str, Any]) -> None:
    matrix = directions.unembedding(with_names(manifest))
    ours = torch.from_numpy(matrix[:].copy())
    model = AutoModelForCausalLM.from_pretrained(manifest["folder"], dtype=torch.float32)
    assert ours.dtype == torch.float32
    assert len(matrix) == len(ours)
    assert torch.equal(torch.from_numpy(matrix[[3, 0]].copy()), ours[[3, 0]])
    assert torch.equal(ours, model.get_output_embeddings().weight)
    assert torch.equal(ours, model.get_input_embeddings().weight) == model.config.tie_word_embeddings


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shards", ["1GB", "4KB"])
def test_unembedding_is_transformers(tmp_path, tied, shards):
    manifest = saved(tmp_path, tied=tied, shards=shards)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards == "4KB")
    check_unembedding(manifest)


def test_unembedding_of_a_model_with_a_tokenizer(tmp_path):
    check_unembedding({"folder": str(build_model(tmp_path, layers=1, width=16))})


def test_unembedding_is_float32_whatever_the_files_hold(tmp_path):
    check_unembedding(saved(tmp_path, tied=False, dtype=torch.bfloat16))


def rename(folder: Path, new_name: dict[str, str | None]) -> None:
    """Save a model's weights again under other names; None drops one."""
    weights = load_file(folder / "model.safetensors")
    weights = {new_name.get(name, name): weight for name, weight in weights.items()}
    kept = {name: weight for name, weight in weights.items() if name is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_unembedding_of_a_checkpoint_of_the_base_model(tmp_path):
    """Its names are without the base model's prefix; transformers reads it all the same."""
    manifest = saved(tmp_path, tied=True)
    names = load_file(tmp_path / "model.safetensors")
    rename(tmp_path, {name: name.removeprefix("model.") for name in names})
    assert "embed_tokens.weight" in load_file(tmp_path / "model.safetensors")
    check_unembedding(manifest)


@pytest.mark.parametrize(
    ("tied", "gone", "named"),
    [(False, "lm_head.weight", "lm_head.weight"), (True, "model.embed_tokens.weight", "model.embed_tokens.weight")],
)
def test_a_model_without_the_weight_is_refused(tmp_path, tied, gone, named):
    """Without a tie, the input embeddings don't stand in for what is missing."""
    manifest = saved(tmp_path, tied=tied)
    rename(tmp_path, {gone: None})
    with pytest.raises(KeyError, match=named) as error:
        directions.unembedding(with_names(manifest))
    assert str(tmp_path) in str(error.value)
    assert ("embed_tokens.weight or" in str(error.value)) == tied


# Logit effects


def plain_effects(decoder, latents, head, vocabulary, most):
    """The same table by sorting lists; `head` gives a decoder direction's logits."""
    names = dict(vocabulary.select("token_id", "token").iter_rows())
    rows = []
    for latent in latents:
        logits = {token: value for token, value in enumerate(head(decoder[latent]).tolist()) if token in names}
        for side, sign in (("top", -1), ("bottom", 1)):
            order = sorted(logits, key=lambda token: (sign * logits[token], token))[:most]
            rows += [(latent, side, rank, token, names[token], logits[token]) for rank, token in enumerate(order, 1)]
    return rows


def check_table(table: pl.DataFrame, schema: dict[str, Any], expected: list[tuple]) -> None:
    """Compare rows, the last column to within the rounding of float32."""
    assert dict(table.schema) == schema
    assert [row[:-1] for row in table.iter_rows()] == [row[:-1] for row in expected]
    assert [row[-1] for row in table.iter_rows()] == pytest.approx([row[-1] for row in expected], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_logit_effects_are_the_heads(manifest, model, tokenizer, monkeypatch, tmp_path, at_once, dtype):
    monkeypatch.setattr(directions, "AT_ONCE", at_once)
    monkeypatch.setattr(matrices, "ROWS", 7 * at_once)
    torch.manual_seed(4)
    decoder, latents = torch.randn(20, 32).to(dtype), [7, 0, 19, 3, 11, 4, 12]
    table = vocabulary.table(tokenizer, model.config.vocab_size)
    unembedding = directions.unembedding(with_names(manifest))
    ours = directions.logit_effects(stored(tmp_path, decoder), latents, unembedding, table)
    head = model.get_output_embeddings().double()
    assert len(ours) == 2 * 10 * len(latents)
    check_table(ours, LOGIT_EFFECTS_SCHEMA, plain_effects(decoder.double(), latents, head, table, 10))


@pytest.mark.parametrize("most", [1, 7, 40, 1000])
def test_of_equal_effects_the_smaller_token_is_first(most):
    """At the edge of what is listed as well; a vocabulary smaller than `most` is listed whole."""
    decoder, unembedding = integers(5, 4), integers(40, 4, seed=1)
    decoder[2] = 0
    table = words(40)
    ours = directions.logit_effects(decoder.numpy(), range(5), unembedding.numpy(), table, most=most)
    expected = plain_effects(decoder, range(5), lambda row: unembedding @ row, table, most)
    check_table(ours, LOGIT_EFFECTS_SCHEMA, expected)
    assert ours.filter(latent=2)["token_id"].to_list() == 2 * list(range(min(most, 40)))


def test_padding_beyond_the_vocabulary_is_left_out():
    decoder, unembedding, table = integers(3, 4), integers(24, 4, seed=1), words(20)
    unembedding[20:22], unembedding[22:] = 100 * decoder[0], -100 * decoder[0]  # would be first and last
    ours = directions.logit_effects(decoder.numpy(), [0, 1], unembedding.numpy(), table, most=30)
    assert ours.group_by("latent", "side").len()["len"].to_list() == [20] * 4
    check_table(ours, LOGIT_EFFECTS_SCHEMA, plain_effects(decoder, [0, 1], lambda row: unembedding @ row, table, 30))


def test_a_tokenizer_may_have_more_tokens_than_the_model():
    decoder, unembedding = integers(3, 4), integers(20, 4, seed=1)
    ours = directions.logit_effects(decoder.numpy(), [2], unembedding.numpy(), words(24), most=30)
    assert sorted(ours.filter(side="top")["token_id"]) == list(range(20))


def test_no_latents_have_no_rows():
    effects = directions.logit_effects(integers(3, 4).numpy(), [], integers(20, 4).numpy(), words(20))
    neighbours = directions.decoder_neighbours(integers(3, 4).numpy(), [])
    check_table(effects, LOGIT_EFFECTS_SCHEMA, [])
    check_table(neighbours, NEIGHBOURS_SCHEMA, [])


# Neighbours


def plain_neighbours(decoder, latents, most):
    """The same table by a loop over all pairs."""
    rows, vectors = [], decoder.double().tolist()
    for latent in latents:
        cosines = {}
        for other, vector in enumerate(vectors):
            norms = sum(x * x for x in vector) * sum(x * x for x in vectors[latent])
            if other != latent and norms > 0:
                cosines[other] = sum(x * y for x, y in zip(vector, vectors[latent], strict=True)) / norms**0.5
        order = sorted(cosines, key=lambda other: (-cosines[other], other))[:most]
        rows += [(latent, rank, other, cosines[other]) for rank, other in enumerate(order, 1)]
    return rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("at_once", "most"), [(1, 10), (3, 1), (64, 10), (64, 500)])
def test_neighbours_are_those_of_all_pairs(monkeypatch, tmp_path, at_once, most, dtype):
    """Directions of any norm, some dead, among the latents asked for too; `most` may be more than there are."""
    monkeypatch.setattr(directions, "AT_ONCE", at_once)
    monkeypatch.setattr(matrices, "ROWS", 9 * at_once)
    torch.manual_seed(5)
    decoder = (torch.randn(80, 8) * torch.logspace(-3, 3, 80)[:, None]).to(dtype)
    decoder[[0, 9, 40, 79]] = 0
    latents = [33, 9, 2, 78, 0, 79, 5, 1]
    ours = directions.decoder_neighbours(stored(tmp_path, decoder), latents, most=most)
    check_table(ours, NEIGHBOURS_SCHEMA, plain_neighbours(decoder, latents, most))
    assert set(ours["latent"]) == {33, 2, 78, 5, 1}
    assert len(ours) == 5 * min(most, 75)


@pytest.mark.parametrize("most", [1, 4, 10, 29])
def test_of_equal_cosines_the_smaller_latent_is_first(most):
    """Directions of ±1 in four dimensions have norm 2, so that their cosines are exact; many are the same."""
    decoder = 2.0 * (integers(30, 4, most=1000, seed=3) > 0) - 1
    decoder[[4, 17]] = 0
    kept = decoder.clone()
    check_table(
        directions.decoder_neighbours(decoder.numpy(), range(30), most=most), NEIGHBOURS_SCHEMA,
        plain_neighbours(decoder, range(30), most),
    )  # fmt: skip
    assert torch.equal(decoder, kept)


def test_a_latent_alone_has_no_neighbours():
    check_table(directions.decoder_neighbours(np.ones((1, 4), np.float32), [0]), NEIGHBOURS_SCHEMA, [])
    check_table(directions.decoder_neighbours(np.zeros((5, 4), np.float32), [0, 3]), NEIGHBOURS_SCHEMA, [])
    assert directions.decoder_neighbours(np.eye(3, dtype=np.float32)[:2], [1]).rows() == [(1, 1, 0, 0.0)]


def test_a_sublayers_last_module_writes_what_the_sublayer_does():
    """In Llama `mlp.down_proj` has the MLP's own output; in Gemma 2 both go through a norm first."""
    llama, gemma = {"widths": {}}, {"widths": {"layers.1.post_feedforward_layernorm": 16}}
    for site in ("layers.1.mlp.down_proj", "layers.1.self_attn.o_proj"):
        assert directions.writes_to_residual(site, llama)
        assert not directions.writes_to_residual(site, gemma)
    for site in ("layers.1.mlp.gate_proj", "norm", "embed_tokens", "layers.1.mlp.experts.down_proj"):
        assert not directions.writes_to_residual(site, llama)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rows_are_read_as_torch_reads_them(tmp_path, dtype):
    matrix = torch.randn(9, 5, dtype=torch.float64).to(dtype)
    ours = stored(tmp_path, matrix)
    for rows in (slice(0, 9), slice(3, 5), [8, 0, 8], []):
        assert ours[rows].dtype == np.float32
        assert np.array_equal(ours[rows], matrix[rows].float().numpy())


def test_it_is_imported_quickly_and_without_torch():
    code = (
        "import sys, thoughtscope.report.directions; print(sorted({'torch', 'scipy', 'transformers'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO / "workflow" / "scripts", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
