"""Twins: the same study of something that can't have thinking patterns, or has no thinking, to hold findings against.

What a twin has of its own is made here: weights drawn at random for a model or an SAE, or the traces' words in another
order. All else is the study's, and everything after it goes the same way as for the study itself.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from . import files, models
from .config import SAE_FILES
from .errors import InputError

TWINS = {
    "random_sae": "directions drawn at random in place of the SAE’s",
    "random_model": "weights drawn at random in place of the model’s",
    "base_model": "the model before its adapter",
    "shuffled_text": "the traces’ words in another order",
}
"""Who else reads, as the config names them, and what is otherwise there."""


def random_model(manifest: Mapping[str, Any], folder: Path, seed: int, log: logging.Logger) -> dict[str, Any]:
    """Write a manifest's model with random weights to `folder`; return its manifest.

    Each weight is drawn from the normal distribution with its tensor's mean and variance, embeddings too (Heap et al.
    2025, arXiv 2501.17727, "re-randomized"), so that states are about as large as the model's own.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    models.check_files(manifest)
    dtype = AutoConfig.from_pretrained(manifest["folder"], trust_remote_code=False).dtype or torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        manifest["folder"], dtype=dtype, use_safetensors=True, trust_remote_code=False
    )
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            values = weight.float()
            drawn = torch.randn(values.shape, generator=chance) * values.std(correction=0) + values.mean()
            weight.copy_(drawn.to(weight.dtype))
    hashes = models.save(model, Path(manifest["folder"]), folder)
    log.info("%s, all its weights drawn at random", manifest["name"])
    name = f"{manifest['name']}, random weights"
    return {**manifest, "name": name, "folder": str(folder), "files": hashes, "seed": seed}


def random_sae(trained: Path, folder: Path, seed: int, log: logging.Logger) -> None:
    """Write an SAE of the same shape as that in `trained`, none of whose directions is learned, to `folder`.

    A latent's direction is drawn at random from the sphere, and read and written along; b_dec is the trained one's, so
    that what is read is centred alike, and there is no other bias. So sparsify's are before training.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from .saes import formats, record

    record.check(files.read_json(trained / record.INFO), trained)
    config, weights = formats.read_config(trained), load_file(trained / SAE_FILES[1])
    if "k" not in config:
        raise InputError(
            "config: twins: random_sae needs an SAE with a fixed number of active latents, but those of this one are"
            " the ones above its thresholds, which random directions have none of; remove that twin."
        )
    encoder, bias, decoder, b_dec = formats.TENSORS
    chance = torch.Generator().manual_seed(seed)
    drawn = torch.randn(weights[decoder].shape, generator=chance)
    drawn /= drawn.norm(dim=1, keepdim=True)
    made = {encoder: drawn, bias: torch.zeros(len(drawn)), decoder: drawn.clone(), b_dec: weights[b_dec].float()}
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(trained / SAE_FILES[0], folder / SAE_FILES[0])
    save_file(made, folder / SAE_FILES[1])
    files.let_read(folder / SAE_FILES[1])
    info = {"source": "random", "seed": seed, "d_in": drawn.shape[1], "num_latents": len(drawn), "k": config["k"]}
    info |= {"files": {name: files.sha256(folder / name) for name in SAE_FILES}}
    files.write_json(info, folder / record.INFO)
    log.info("%d latents at random, k = %d", len(drawn), config["k"])


def shuffled(traces: pl.LazyFrame, matches: pl.LazyFrame, vocabulary: pl.LazyFrame) -> pl.DataFrame:
    """Return traces with what was written in another order: words and patterns' matches whole, segments apart.

    The last token, which was never read, stays. Orders are by trace and condition, the same each time.
    """
    of = dict(vocabulary.select("token_id", "text").collect().iter_rows())
    kept = {
        key: group.select("start", "end").rows()
        for key, group in matches.filter(kind="pattern").collect().group_by("trace_id", "condition")
    }
    rows = []
    for trace in traces.collect().iter_rows(named=True):
        prompt, ids = len(trace["prompt_ids"]), trace["generated_ids"]
        joined = {place - prompt for start, end in kept.get((trace["trace_id"], trace["condition"]), [])
                  for place in range(start + 1, end)}  # fmt: skip
        joined |= {place for place, (a, b) in enumerate(pairwise(ids), 1) if _one_word(of[a], of[b])}
        chance = np.random.default_rng([trace["trace_id"], *trace["condition"].encode()])
        order: list[int] = []
        for part in trace["segments"]:
            if part["segment"] == "prompt":
                continue
            start, end = part["start"] - prompt, min(part["end"] - prompt, len(ids) - 1)
            units = _units(range(start, end), joined)
            order += [place for unit in chance.permutation(len(units)) for place in units[unit]]
        written = [ids[place] for place in order] + ids[len(order) :]
        rows.append(trace | {"generated_ids": written, "text": "".join(of[token] for token in written)})
    return pl.DataFrame(rows, schema=traces.collect_schema())


def _one_word(before: str, after: str) -> bool:
    """Return whether two tokens' texts belong to one word: a blank to what follows, bytes to their character."""
    blank = before.isspace() and "\n" not in before
    return (after[:1].isalnum() and (blank or before[-1:].isalnum())) or "\ufffd" in before[-1:] + after[:1]


def _units(places: Sequence[int], joined: set[int]) -> list[list[int]]:
    """Return places in runs: one that is `joined` goes with the one before it."""
    units: list[list[int]] = []
    for place in places:
        if place in joined and units:
            units[-1].append(place)
        else:
            units.append([place])
    return units
