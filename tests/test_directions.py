"""Decoder directions: logit effects and neighbours against plain computations; which sites write to the residual."""

import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from thoughtscope import directions, models

VOCABULARY = pl.DataFrame({"token_id": range(5), "token": list("abcde")}, schema_overrides={"token_id": pl.UInt32})


def manifest_of(folder):
    return {"folder": str(folder), "files": {}, "name": "tiny"}


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "20KB"}])
@pytest.mark.parametrize("tied", [False, True])
def test_the_unembedding_is_the_models_own(tmp_path, tiny_model, shards, tied):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, tie_word_embeddings=tied)
    if tied:
        model.tie_weights()
    model.save_pretrained(tmp_path, **shards)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == bool(shards)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (again.get_output_embeddings().weight is again.get_input_embeddings().weight) == tied
    found = directions.unembedding(manifest_of(tmp_path))
    assert found.dtype == torch.float32
    assert torch.equal(found, again.get_output_embeddings().weight.float())


def test_a_model_without_an_unembedding(tmp_path, tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.save_pretrained(tmp_path, state_dict={"model.norm.weight": model.model.norm.weight})
    with pytest.raises(KeyError, match=r"lm_head\.weight"):
        directions.unembedding(manifest_of(tmp_path))


def test_logit_effects_are_the_ends_of_what_the_head_makes_of_a_direction(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    size = model.config.vocab_size
    vocabulary = pl.DataFrame(
        {"token_id": range(size), "token": [f"t{token}" for token in range(size)]},
        schema_overrides={"token_id": pl.UInt32},
    )
    decoder = torch.randn(100, model.config.hidden_size)
    latents = list(range(70)) + [99]
    table = directions.logit_effects(decoder, latents, model.get_output_embeddings().weight, vocabulary, most=4)
    assert table["latent"].unique(maintain_order=True).to_list() == latents
    for latent in (0, 69, 99):
        with torch.no_grad():
            effects = model.lm_head(decoder[latent]).tolist()
        order = sorted(range(size), key=lambda token: effects[token])
        for side, expected in (("top", order[:-5:-1]), ("bottom", order[:4])):
            rows = table.filter(latent=latent, side=side)
            assert rows["rank"].to_list() == [1, 2, 3, 4]
            assert rows["token_id"].to_list() == expected
            assert rows["token"].to_list() == [f"t{token}" for token in expected]
            assert rows["effect"].to_list() == pytest.approx([effects[token] for token in expected], rel=1e-5)


def test_ties_go_by_token_and_padding_is_left_out():
    unembedding = torch.tensor([[1.0], [2.0], [2.0], [0.0], [2.0], [9.0]])  # one row more than there are tokens
    table = directions.logit_effects(torch.tensor([[1.0]]), [0], unembedding, VOCABULARY, most=2)
    assert table.filter(side="top")["token"].to_list() == ["b", "c"]
    assert table.filter(side="bottom")["token"].to_list() == ["d", "a"]
    every = directions.logit_effects(torch.tensor([[1.0]]), [0], unembedding, VOCABULARY)
    assert every.filter(side="top")["token"].to_list() == ["b", "c", "e", "a", "d"]
    none = directions.logit_effects(torch.tensor([[1.0]]), [], unembedding, VOCABULARY)
    assert none.is_empty()
    assert dict(none.schema) == directions.EFFECTS_SCHEMA


def test_neighbours_are_those_of_the_largest_cosine():
    torch.manual_seed(0)
    decoder = torch.randn(150, 8) * torch.rand(150, 1)
    decoder[7] = 0  # a dead direction
    decoder[20] = 3 * decoder[3]
    latents = [*range(70), 149]
    table = directions.decoder_neighbours(decoder, latents, most=3)
    assert 7 not in table["latent"]
    assert 7 not in table["neighbour"]
    for latent in (0, 3, 20, 69, 149):
        cosines = {
            other: float(torch.cosine_similarity(decoder[latent], decoder[other], dim=0))
            for other in range(150)
            if other not in (latent, 7)
        }
        expected = sorted(cosines, key=lambda other: -cosines[other])[:3]
        rows = table.filter(latent=latent)
        assert rows["neighbour"].to_list() == expected
        assert rows["cosine"].to_list() == pytest.approx([cosines[other] for other in expected], abs=1e-6)
    assert table.filter(latent=3)["neighbour"][0] == 20


def test_few_latents_have_few_neighbours_and_equal_ones_go_by_number():
    decoder = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [5.0, 0.0], [0.0, 0.0]])
    assert directions.decoder_neighbours(decoder, [0])["neighbour"].to_list() == [2, 3, 1]
    assert directions.decoder_neighbours(decoder, [4]).is_empty()
    assert dict(directions.decoder_neighbours(decoder, []).schema) == directions.NEIGHBOURS_SCHEMA


SMALL = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip


@pytest.mark.parametrize("config", [LlamaConfig(**SMALL), Gemma2Config(**SMALL, head_dim=8)], ids=["llama", "gemma2"])
def test_which_sites_write_to_the_residual_stream(config):
    """By experiment: a vector added to a module's output is added to the stream, and only then.

    What later modules of the block make of it is switched off, so that nothing else can come of it.
    """
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    widths = models.module_widths(config)
    block = model.base_model.layers[1]
    ids = torch.randint(0, 32, (1, 5))
    shift = torch.randn(16)
    last = ["mlp", "post_feedforward_layernorm"]  # whose output is nothing: what they would make of the shift

    def leaving(name: str) -> torch.Tensor:
        """The stream leaving block 1 with the shift at a module's output, less what leaves it without."""
        seen = []
        for shifted in (False, True):
            handles = []
            for child, module in block.named_children():
                silent = child in last and child not in name.split(".")

                def hook(_module, _args, output, child=child, silent=silent, shifted=shifted):
                    first = output[0] if isinstance(output, tuple) else output
                    first = first * 0 if silent else first
                    first = first + shift if shifted and child == name else first
                    return (first, *output[1:]) if isinstance(output, tuple) else first

                handles.append(module.register_forward_hook(hook))
            out = []
            handles.append(block.register_forward_hook(
                lambda _module, _args, output, out=out: out.append(output[0] if isinstance(output, tuple) else output)
            ))  # fmt: skip
            with torch.no_grad():
                model(ids)
            for handle in handles:
                handle.remove()
            seen.append(out[0].reshape(-1, 16))
        return seen[1] - seen[0]

    manifest = {"widths": widths, "hidden_size": 16}
    children = [name for name, _ in block.named_children()]
    assert {"mlp", "self_attn", "input_layernorm"} <= set(children)
    for child in children:
        added = torch.allclose(leaving(child), shift.expand(5, 16), atol=1e-5)
        assert directions.writes_to_residual(f"layers.1.{child}", manifest) == added, child
    for site in ("layers.1", "layers.1.mlp@residual_in", "layers.1.input_layernorm@residual_out"):
        assert directions.writes_to_residual(site, manifest)
    for sublayer, last_one in (("mlp", "down_proj"), ("self_attn", "o_proj")):
        added = directions.writes_to_residual(f"layers.1.{sublayer}", manifest)
        assert directions.writes_to_residual(f"layers.1.{sublayer}.{last_one}", manifest) == added
    for site in ("layers.1.mlp.gate_proj", "norm", "embed_tokens"):
        assert not directions.writes_to_residual(site, manifest)
