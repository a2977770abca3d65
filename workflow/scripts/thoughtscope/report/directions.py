"""Room 9, report: what a latent's decoder direction does, and which latents' directions are near it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import safe_open
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from ..config import is_block, parse_site

MOST = 10
"""Tokens at each end of a logit effect, and neighbours of a latent."""

AT_ONCE = 64
"""Latents whose logit effects or cosines are held at a time: 64 of 152,000 tokens in float32 are 39 MB."""

SUBLAYERS = ("mlp", "self_attn", "attn", "attention", "feed_forward", "block_sparse_moe")
"""What architectures of transformers call the two modules of a block whose outputs are added to the residual stream."""

LAST_PROJECTIONS = ("down_proj", "o_proj", "c_proj", "out_proj", "dense", "dense_4h_to_h")
"""What they call the last module in a sublayer, whose output is the sublayer's."""

OUTPUT_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
"""What Gemma 2 and 3 and OLMo 2, and GLM-4, call the norms between the two sublayers and the residual stream. Where
there is no second one of a pair, `post_attention_layernorm` is the norm before the MLP."""

EFFECTS_SCHEMA: dict[str, Any] = {
    "latent": pl.UInt32,
    "side": pl.Enum(["top", "bottom"]),
    "rank": pl.UInt32,
    "token_id": pl.UInt32,
    "token": pl.String,
    "effect": pl.Float32,
}

NEIGHBOURS_SCHEMA: dict[str, Any] = {
    "latent": pl.UInt32,
    "rank": pl.UInt32,
    "neighbour": pl.UInt32,
    "cosine": pl.Float32,
}


def writes_to_residual(site: str, manifest: Mapping[str, Any]) -> bool:
    """Return whether what is read at a site is the residual stream, or added to it as it is.

    So are the residual stream itself, a block's output, and that of its attention and MLP; where the block
    normalises these before it adds them (OUTPUT_NORMS), it is the norm's output that is added.
    """
    hookpoint, read_from = parse_site(site)
    if read_from != "hookpoint" or is_block(hookpoint):
        return True
    block, _, module = hookpoint.rpartition(".")
    if module in LAST_PROJECTIONS:
        block, _, module = block.rpartition(".")
    if not is_block(block):
        return False
    for norms in OUTPUT_NORMS:
        if f"{block}.{norms[1]}" in manifest["widths"]:
            return module in norms
    return module in SUBLAYERS


def unembedding(manifest: Mapping[str, Any]) -> Tensor:
    """Return W_U (tokens, width), the weight of the model's output embeddings, in float32, from its files alone.

    Where the model ties it to its input embeddings, it is those. Raises KeyError if the files have neither.
    """
    folder = Path(manifest["folder"])
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with FakeTensorMode():  # the names of the parameters, without their values
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    wanted = [model.get_input_embeddings()] if config.tie_word_embeddings else []
    names = [
        f"{name}.weight"
        for module in [model.get_output_embeddings(), *wanted]
        for name, other in model.named_modules()
        if other is module
    ]
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            files |= dict.fromkeys(weights.keys(), path)
    # Some checkpoints are saved from the base model, whose names are without its prefix.
    names += [name.removeprefix(f"{model.base_model_prefix}.") for name in names]
    for name in names:
        if name in files:
            with safe_open(files[name], framework="pt") as weights:
                return weights.get_tensor(name).float()
    raise KeyError(f"{folder} has no weight named {' or '.join(names)}: {json.dumps(sorted(files)[:5])} …")


def logit_effects(
    decoder: Tensor, latents: Sequence[int], unembedding: Tensor, vocabulary: pl.DataFrame, *, most: int = MOST
) -> pl.DataFrame:
    """Return the `most` largest and smallest entries of W_U · W_dec[latent] for each latent, in EFFECTS_SCHEMA.

    decoder: (num_latents, width); unembedding: (tokens, width). That is the direct effect (Elhage et al. 2021), without
    the gain and the scale of the final norm. `rank` is from 1, the largest (top) or the smallest (bottom) first; of
    equal entries the smaller token id is first. Rows of W_U beyond the vocabulary are padding, and left out.
    """
    unembedding = unembedding[: len(vocabulary)]
    names = vocabulary.sort("token_id")["token"].to_list()
    rows = []
    for first in range(0, len(latents), AT_ONCE):
        chosen = list(latents[first : first + AT_ONCE])
        effects = decoder[chosen].float() @ unembedding.T
        for latent, effect in zip(chosen, effects, strict=True):
            for side, descending in (("top", True), ("bottom", False)):
                order = _first(effect, most, descending)
                rows += [
                    (latent, side, rank, token, names[token], float(effect[token]))
                    for rank, token in enumerate(order, 1)
                ]
    return pl.DataFrame(rows, schema=EFFECTS_SCHEMA, orient="row")


def decoder_neighbours(decoder: Tensor, latents: Sequence[int], *, most: int = MOST) -> pl.DataFrame:
    """Return the `most` other latents whose decoder directions have the largest cosine with each latent's.

    decoder: (num_latents, width). In NEIGHBOURS_SCHEMA; of equal cosines the smaller latent is first. Directions of
    norm 0 are nobody's neighbours and have none.
    """
    norms = decoder.norm(dim=1)
    unit = F.normalize(decoder.float(), dim=1)
    rows = []
    for first in range(0, len(latents), AT_ONCE):
        chosen = [latent for latent in latents[first : first + AT_ONCE] if norms[latent] > 0]
        cosines = unit[chosen] @ unit.T
        cosines[:, norms == 0] = -torch.inf
        for latent, cosine in zip(chosen, cosines, strict=True):
            cosine[latent] = -torch.inf
            near = [other for other in _first(cosine, most, True) if cosine[other] > -torch.inf]
            rows += [(latent, rank, other, float(cosine[other])) for rank, other in enumerate(near, 1)]
    return pl.DataFrame(rows, schema=NEIGHBOURS_SCHEMA, orient="row")


def _first(values: Tensor, most: int, descending: bool) -> list[int]:
    """Return the places of the `most` largest (or smallest) values, of equal ones the smaller place first."""
    edge = values.topk(min(most, len(values)), largest=descending).values[-1]
    near = (values >= edge if descending else values <= edge).nonzero().flatten()
    order = values[near].sort(descending=descending, stable=True).indices[:most]
    return [int(place) for place in near[order]]
