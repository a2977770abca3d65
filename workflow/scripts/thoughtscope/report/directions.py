"""Room 9, report: what a latent's decoder direction does, and which latents' directions are near it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import models
from ..config import adds, parse_site
from ..evidence.verdict import leading
from ..frames import Schema, keys
from ..matrices import Matrix, blocks, matrices
from ..saes import record

MOST = 10
"""Tokens at each end of a logit effect, and neighbours of a latent."""

AT_ONCE = 256
"""Latents whose logit effects or cosines are held at a time: 256 of 152,000 tokens in float32 are 156 MB."""

Floats = NDArray[np.float32]

LOGIT_EFFECTS_SCHEMA = Schema(
    "a leading latent, side and rank; none where what is read at the site isn't added to the residual stream as it is",
    **keys("latent"),
    side=(pl.Enum(["top", "bottom"]), "the largest or the smallest entries"),
    rank=(pl.UInt32, "from 1, the largest (top) or the smallest (bottom) first; of equal ones the smaller token id"),
    **keys("token_id", "token"),
    effect=(pl.Float32, "its entry of W_U · W_dec: what a unit of the latent adds to its logit directly"),
)

NEIGHBOURS_SCHEMA = Schema(
    "a leading latent and rank; none for a latent whose decoder direction is 0",
    **keys("latent"),
    rank=(pl.UInt32, "from 1, by falling cosine; of equal ones the smaller latent first"),
    neighbour=(pl.UInt32, "the other latent, of all the SAE's"),
    cosine=(pl.Float32, "of the two decoder directions"),
)


def tables(
    manifest: Mapping[str, Any],
    model: Path,
    vocabulary: pl.LazyFrame,
    verdict: pl.LazyFrame,
    sae_weights: Path,
    sae_info: Mapping[str, Any],
    *,
    site: str,
    latents: int,
) -> dict[str, pl.DataFrame]:
    """Return logit effects and decoder neighbours of the `latents` leading latents, from the SAE's file."""
    leaders = leading(verdict.collect(), latents)["latent"].to_list()
    record.check(sae_info, sae_weights.parent, [sae_weights.name])
    decoder = matrices(sae_weights)["W_dec"]
    effects = pl.DataFrame(schema=LOGIT_EFFECTS_SCHEMA)
    if writes_to_residual(site, manifest):
        here = {**manifest, "folder": model}
        models.check_files(here)
        effects = logit_effects(decoder, leaders, unembedding(here), vocabulary.collect())
    return {"logit_effects": effects, "neighbours": decoder_neighbours(decoder, leaders)}


def writes_to_residual(site: str, manifest: Mapping[str, Any]) -> bool:
    """Return whether what is read at a site is the residual stream, or added to it as it is."""
    hookpoint, read_from = parse_site(site)
    return read_from != "hookpoint" or adds(hookpoint, manifest["widths"]) is not None


def unembedding(manifest: Mapping[str, Any]) -> Matrix:
    """Return W_U (tokens, width), the weight of the model's output embeddings, from its files.

    It has one of the names that the manifest's `unembedding` lists. Raises KeyError if the files have none of these.
    """
    weights: dict[str, Matrix] = {}
    for path in sorted(Path(manifest["folder"]).glob("*.safetensors")):
        weights |= matrices(path)
    for name in manifest["unembedding"]:
        if name in weights:
            return weights[name]
    wanted = " or ".join(manifest["unembedding"])
    raise KeyError(f"{manifest['folder']} has no weight named {wanted}: {json.dumps(sorted(weights)[:5])} …")


def logit_effects(
    decoder: Matrix | Floats,
    latents: Sequence[int],
    unembedding: Matrix | Floats,
    vocabulary: pl.DataFrame,
    *,
    most: int = MOST,
) -> pl.DataFrame:
    """Return the `most` largest and smallest entries of W_U · W_dec[latent] for each latent, in LOGIT_EFFECTS_SCHEMA.

    decoder: (num_latents, width); unembedding: (tokens, width). That is the direct effect (Elhage et al. 2021), without
    the gain and the scale of the final norm. Rows of W_U beyond the vocabulary are padding, and left out.
    """
    names = vocabulary.sort("token_id")["token"].to_list()
    rows = []
    for chosen in _parts(latents):
        effects = _products(decoder[chosen], unembedding, min(len(unembedding), len(names)))
        for latent, effect in zip(chosen, effects, strict=True):
            for side, order in (("top", _least(-effect, most)), ("bottom", _least(effect, most))):
                rows += [
                    (latent, side, rank, token, names[token], effect[token]) for rank, token in enumerate(order, 1)
                ]
    return pl.DataFrame(rows, schema=LOGIT_EFFECTS_SCHEMA, orient="row")


def decoder_neighbours(decoder: Matrix | Floats, latents: Sequence[int], *, most: int = MOST) -> pl.DataFrame:
    """Return the `most` other latents whose decoder directions have the largest cosine with each latent's.

    decoder: (num_latents, width). In NEIGHBOURS_SCHEMA. Directions of norm 0 are nobody's neighbours and have none.
    """
    norms = np.concatenate([np.linalg.norm(rows, axis=1) for _, rows in blocks(decoder, len(decoder))])
    rows = []
    for part in _parts(latents):
        chosen = [latent for latent in part if norms[latent] > 0]
        cosines = _products(decoder[chosen] / norms[chosen, None], decoder, len(decoder))
        np.divide(cosines, norms, out=cosines, where=norms > 0)
        cosines[:, norms == 0] = -np.inf
        for latent, cosine in zip(chosen, cosines, strict=True):
            cosine[latent] = -np.inf
            near = [other for other in _least(-cosine, most) if cosine[other] > -np.inf]
            rows += [(latent, rank, other, cosine[other]) for rank, other in enumerate(near, 1)]
    return pl.DataFrame(rows, schema=NEIGHBOURS_SCHEMA, orient="row")


def _parts(latents: Sequence[int]) -> Iterator[list[int]]:
    return (list(latents[first : first + AT_ONCE]) for first in range(0, len(latents), AT_ONCE))


def _products(vectors: Floats, matrix: Matrix | Floats, count: int) -> Floats:
    """Return the products of vectors (n, width) with a matrix's first `count` rows, shape (n, count)."""
    products = np.empty((len(vectors), count), dtype=np.float32)
    for where, rows in blocks(matrix, count):
        products[:, where] = vectors @ rows.T
    return products


def _least(values: Floats, most: int) -> list[int]:
    """Return the places of the `most` smallest values, of equal ones the smaller place first."""
    last = min(most, len(values)) - 1
    near = np.flatnonzero(values <= np.partition(values, last)[last])
    return near[np.argsort(values[near], kind="stable")][:most].tolist()
