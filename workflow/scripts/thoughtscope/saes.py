"""Room 4, SAEs: k-sparse autoencoders in sparsify's format, fetched or trained, and applied exactly.

A k-SAE (Gao et al. 2024, "Scaling and evaluating sparse autoencoders") keeps the k largest pre-activations:
z = TopK(ReLU(W_enc (x - b_dec) + b_enc)), x̂ = W_decᵀ z + b_dec.
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import files, hub, sites
from .config import SAE_FILES, is_commit, layer_of
from .devices import halving, is_out_of_memory, loading, release_memory
from .errors import InputError
from .job import every_few_seconds

CHUNK_VALUES = 2**27
"""Pre-activations held at a time while encoding: 0.5 GB of float32."""

BOUND_WEIGHTS = 2**23
"""Size of an encoder's matrix from which bounds in bfloat16 pay: at 2^23 1 to 1.9 times as fast, on a CPU."""

CANDIDATES = 3
"""Candidates for a token's top k, in multiples of k: where 2 prove 5% of tokens (random, 4,096 wide), 3 prove 95%."""

BFLOAT16_UNIT = 2.0**-8
"""Rounding to bfloat16 (8 significant bits, to nearest) changes a number by at most this share of it."""

UNDERFLOW = 2.0**-50
"""Added to norms, so that a bound stays one where numbers under 2^-126 are flushed to 0, as matrix units do."""


@dataclass(frozen=True)
class Encoder:
    """The encoder of a k-SAE, in float32: weight (latents, d_in), bias (latents,), b_dec (d_in,)."""

    weight: Tensor
    bias: Tensor
    b_dec: Tensor
    k: int

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the k largest activations of each row of x (tokens, d_in), descending, and their latents.

        Both are (tokens, k), and what sparsify's `SparseCoder.encode` gives in float32, rounding and ties aside. A
        large encoder where the hardware multiplies bfloat16 is first bounded in bfloat16. The dense pre-activations
        or bounds exist only for as many tokens at a time as CHUNK_VALUES allows.
        """
        bounded = self.weight.numel() >= BOUND_WEIGHTS and _multiplies_bfloat16(x.device)
        encode = self._encode_bounded if bounded else self._encode_dense
        chunks = x.float().split(max(1, CHUNK_VALUES // self.weight.shape[0]))
        values, indices = zip(
            *(halving(lambda rows: encode(rows - self.b_dec), chunk) for chunk in chunks), strict=True
        )
        return torch.cat(values), torch.cat(indices)

    def _encode_dense(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode centred states x (tokens, d_in) by all their pre-activations in float32."""
        top = F.relu(F.linear(x, self.weight, self.bias)).topk(self.k, dim=-1)
        return top.values, top.indices

    def _encode_bounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode centred states x (tokens, d_in) by the float32 pre-activations of those with the highest bounds.

        No other latent's is above the lowest of those bounds; where the k-th best activation is, that proves it the
        k-th best of all. Tokens without proof are encoded densely.
        """
        highest, candidates = self._bounds(x).topk(min(CANDIDATES * self.k, len(self.weight)), dim=-1)
        candidates = candidates.sort(dim=-1).values  # as a CSR matrix has them
        starts = torch.arange(0, candidates.numel() + 1, candidates.shape[1], device=x.device)
        biases, size = self.bias[candidates].flatten(), (len(x), len(self.weight))
        chosen = torch.sparse_csr_tensor(starts, candidates.flatten(), biases, size, check_invariants=False)
        exact = torch.sparse.sampled_addmm(chosen, x, self.weight.T).values().view_as(candidates)
        values, order = F.relu(exact).topk(self.k, dim=-1)
        indices = candidates.gather(-1, order)
        unproven = ~(values[:, -1] >= (1 + BFLOAT16_UNIT) * highest[:, -1].float())  # NaN proves nothing
        if unproven.any():
            values[unproven], indices[unproven] = self._encode_dense(x[unproven])
        return values, indices

    def _bounds(self, x: Tensor) -> Tensor:
        """Return y (tokens, latents), bfloat16, such that no float32 pre-activation is above y + BFLOAT16_UNIT |y|.

        With x̃ and w̃ the bfloat16 roundings of a centred state x and a row w of the encoder, and n = d_in,

            w·x = w̃·x̃ + w̃·(x - x̃) + (w - w̃)·x ≤ w̃·x̃ + ‖w̃‖ ‖x - x̃‖ + ‖w - w̃‖ ‖x‖    (Cauchy-Schwarz).

        A float32 sum of n products, in any order, is off by at most γ ‖w‖ ‖x‖, γ = nu / (1 - nu), u = 2^-24 (Higham
        2002, "Accuracy and stability of numerical algorithms", 3.1). Pre-activations in float32 have the one error, the
        product of w̃ and x̃ the other: `_margin` m covers both. With the bias b,

            w·x + b ≤ w̃·x̃ + ‖w̃‖ (‖x - x̃‖ + m ‖x‖) + ‖w - w̃‖ ‖x‖ + b + m |b|    (all rounding but y's included).

        The terms after the first are four more columns of both factors, rounded up, so that one product sums it all.
        y is that sum rounded to bfloat16.
        """
        rounded, norm = x.bfloat16(), _norms(x)
        one = torch.ones_like(rounded[:, :1])
        columns = [_up(_norms(x - rounded) + _margin(x) * norm), _up(norm), one, one]
        return F.linear(torch.cat([rounded, *columns], dim=-1), self._bound_weight)

    @cached_property
    def _bound_weight(self) -> Tensor:
        """The encoder's rows for `_bounds`, bfloat16, (latents, d_in + 4): w̃, ‖w̃‖, ‖w - w̃‖, b + m |b| in two parts."""
        parts, size = [], max(1, CHUNK_VALUES // self.weight.shape[1])
        for weight, bias in zip(self.weight.split(size), self.bias.unsqueeze(-1).split(size), strict=True):
            rounded, above = weight.bfloat16(), bias + _margin(weight) * bias.abs()
            columns = [_up(_norms(rounded)), _up(_norms(weight - rounded)), above.bfloat16()]
            parts.append(torch.cat([rounded, *columns, _up(above - above.bfloat16())], dim=-1))
        return torch.cat(parts)


def _margin(rows: Tensor) -> float:
    """Return m of `_bounds`: half as much again as the two sums over a row and four columns may be off, as a share."""
    return 1.5 * (rows.shape[-1] + 4) * 2 * 2.0**-24


def _norms(rows: Tensor) -> Tensor:
    """Return upper bounds of the norms of rows, float32, (rows, 1), with room for the rounding of their products."""
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=torch.float32)
    return (1 + _margin(rows)) * norms + UNDERFLOW


def _up(values: Tensor) -> Tensor:
    """Return values in bfloat16, none smaller than it was."""
    return (values + 2 * BFLOAT16_UNIT * values.abs()).bfloat16()


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether bounds in bfloat16 are to be had: on a processor that multiplies it itself.

    A GPU's matrix units add up in ways of their own, which the bound doesn't cover; its float32 is fast enough.
    """
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def read_config(folder: str | Path) -> dict[str, Any]:
    """Return the `cfg.json` of an SAE in `folder`, checked to be a TopK autoencoder."""
    config = files.read_json(Path(folder) / "cfg.json")
    if config.get("transcode"):
        raise InputError(f"SAE {folder}: cfg.json says it is a transcoder; only autoencoders are read.")
    if config.get("activation", "topk") != "topk":
        raise InputError(f"SAE {folder}: its activation is {config['activation']!r}; only 'topk' is read.")
    if config.get("skip_connection"):
        raise InputError(f"SAE {folder}: cfg.json says it has a skip connection; only plain autoencoders are read.")
    return config


def load_encoder(folder: str | Path, device: torch.device) -> Encoder:
    """Load the encoder of the SAE in `folder`; the decoder matrix stays on disk."""
    config = read_config(folder)
    # "exact" rests on it, whatever the environment says of TF32
    torch.set_float32_matmul_precision("highest")
    file = str(Path(folder) / "sae.safetensors")
    with loading("the SAE's encoder"), safe_open(file, framework="pt", device=str(device)) as weights:
        names = ("encoder.weight", "encoder.bias", "b_dec")
        weight, bias, b_dec = (weights.get_tensor(name).float() for name in names)
    return Encoder(weight, bias, b_dec, config["k"])


@dataclass(frozen=True)
class Decoder:
    """The decoder of a k-SAE, in float32: weight (latents, d_in), b_dec (d_in,)."""

    weight: Tensor
    b_dec: Tensor

    def decode(self, activations: Tensor, latents: Tensor) -> Tensor:
        """Return the reconstructions x̂ (tokens, d_in) of what `Encoder.encode` gives, both (tokens, k)."""
        return F.embedding_bag(latents, self.weight, per_sample_weights=activations, mode="sum") + self.b_dec


def load_decoder(folder: str | Path, device: torch.device) -> Decoder:
    """Load the decoder of the SAE in `folder`."""
    read_config(folder)
    file = str(Path(folder) / "sae.safetensors")
    with loading("the SAE's decoder"), safe_open(file, framework="pt", device=str(device)) as weights:
        weight, b_dec = (weights.get_tensor(name).float() for name in ("W_dec", "b_dec"))
    return Decoder(weight, b_dec)


def check_width(folder: str | Path, hookpoint: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Check that the SAE in `folder` is as wide as its module's output; return its config."""
    config = read_config(folder)
    width = manifest["widths"][hookpoint]
    if config["d_in"] != width:
        raise InputError(
            f"SAE for {hookpoint} reads vectors of width {config['d_in']}, but that module of {manifest['name']} puts"
            f" out {width}; choose an SAE trained on this model and hookpoint."
        )
    return config


def fetch(
    source: Mapping[str, Any], hookpoint: str, manifest: Mapping[str, Any], folder: str | Path, log: logging.Logger
) -> None:
    """Copy one hookpoint's SAE from the hub or a local folder into `folder`, with `info.json` about its origin.

    The small `cfg.json` is fetched and checked before the weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    info: dict[str, Any] = {"source": source["source"], "name": source.get("name") or source.get("path")}
    for name in SAE_FILES:
        if source["source"] == "hub":
            path = _from_hub(source, f"{hookpoint}/{name}")
            info["revision"] = path.parent.parent.name
        else:
            path = Path(source["path"]) / hookpoint / name
        with files.replacing(folder / name) as temporary:
            shutil.copyfile(path, temporary)
        if name == "cfg.json":
            config = check_width(folder, hookpoint, manifest)
    if source["source"] == "hub" and not is_commit(source["revision"]):
        for sibling in folder.parent.glob("*/info.json"):
            other = files.read_json(sibling)
            if other.get("name") == info["name"] and other["revision"] != info["revision"]:
                raise InputError(
                    f"config: sae.revision: {source['name']} has moved from {other['revision']} to {info['revision']}"
                    f" since {sibling.parent.name} was fetched; pin one of the two."
                )
        log.warning("%s isn't pinned; this run uses commit %s. To pin it: 'sae.revision: %s'",
                    source["name"], info["revision"], info["revision"])  # fmt: skip
    info |= {
        "d_in": config["d_in"],
        "num_latents": config["num_latents"] or config["d_in"] * config["expansion_factor"],
    }
    info |= {"k": config["k"], "sha256": files.sha256(folder / "sae.safetensors")}
    files.write_json(info, folder / "info.json")
    log.info("%s: %d latents, k = %d", hookpoint, info["num_latents"], info["k"])


def _from_hub(source: Mapping[str, Any], file: str) -> Path:
    import huggingface_hub

    revision = source["revision"] or "main"
    try:
        return Path(huggingface_hub.hf_hub_download(source["name"], file, revision=revision))
    except huggingface_hub.errors.RemoteEntryNotFoundError:
        listing = huggingface_hub.HfApi().list_repo_files(source["name"], revision=revision)
        known = sorted(name.removesuffix("/cfg.json") for name in listing if name.endswith("/cfg.json"))
        raise InputError(
            f"config: sae.hookpoint: {source['name']} has no SAE for {file.rpartition('/')[0]}; it has:"
            f" {', '.join(known)}."
        ) from None
    except Exception as error:
        raise hub.failure("sae.name", f"{file} of {source['name']!r}", error) from None


def training_texts(problems: pl.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return texts to train on: plain text as it is, or question and solution as the conversation they would be."""
    texts = []
    for question, solution, text in problems.select("question", "solution", "text").iter_rows():
        if text is not None:
            texts.append(text)
        elif solution is not None:
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": solution}]
            texts.append(
                tokenizer.apply_chat_template(turns, tokenize=False)
                if tokenizer.chat_template
                else f"{question}\n{solution}\n"
            )
    return texts


def pack(texts: list[str], tokenizer: PreTrainedTokenizerBase, sequences: int, context: int) -> Tensor:
    """Tokenize texts and join them into `sequences` rows of `context` token ids each.

    Raises InputError when there is too little text.
    """
    ids: list[int] = []
    for text in texts:
        ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= sequences * context:
            break
    if len(ids) < sequences * context:
        raise InputError(
            f"config: sae.text gives {len(ids)} tokens, but sae.tokens and sae.heldout_tokens ask for"
            f" {sequences * context}; give more text (sae.text.size) or ask for fewer tokens."
        )
    return torch.tensor(ids[: sequences * context]).view(sequences, context)


class _Sequences(Dataset):
    """Rows of token ids for sparsify's Trainer, which reads them in order; reports how far it got."""

    def __init__(self, ids: Tensor, log: logging.Logger) -> None:
        self.ids, self.tick, self.started = ids, every_few_seconds(log.info), time.monotonic()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        seen = index * self.ids.shape[1]
        rate = seen / (time.monotonic() - self.started)
        self.tick(f"training: {seen} of {self.ids.numel()} tokens, {rate:.0f} tokens/s")
        return {"input_ids": self.ids[index]}


def train(
    problems: pl.DataFrame,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    hookpoint: str,
    folder: str | Path,
    k: int,
    num_latents: int,
    tokens: int,
    heldout_tokens: int,
    context: int,
    batch_size: int,
    optimizer: str,
    lr: float | None,
    seed: int,
    log: logging.Logger,
) -> None:
    """Train a k-SAE on the output of `hookpoint` with sparsify's Trainer; write it to `folder`, with `info.json`.

    `info.json` holds the settings and, over held-out text that training hasn't seen, what `evaluate` measures.
    """
    # sparsify chooses its kernels when it is imported; Triton's need a GPU.
    if not torch.cuda.is_available():
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    from sparsify import SparseCoder, SparseCoderConfig, TrainConfig, Trainer

    train_rows, heldout_rows = max(1, tokens // context), max(1, heldout_tokens // context)
    ids = pack(training_texts(problems, tokenizer), tokenizer, train_rows + heldout_rows, context)
    sites.cut_after(model, layer_of(hookpoint))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"tokens": train_rows * context, "context": context, "batch_size": batch_size}
    settings |= {"optimizer": optimizer, "lr": lr, "seed": seed}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        config = TrainConfig(
            SparseCoderConfig(num_latents=num_latents, k=k),
            batch_size=batch_size,
            hookpoints=[hookpoint],
            optimizer=optimizer,
            lr=lr,
            init_seeds=[seed],
            log_to_wandb=False,
            save_every=2**31,  # only at the end; its optimizer state is thrown away with the scratch folder
            save_dir=scratch,
            run_name="sae",
        )
        started = time.monotonic()
        _fit(lambda parts: Trainer(replace(config, micro_acc_steps=parts), _Sequences(ids[:train_rows], log), model),
             batch_size * context, log)  # fmt: skip
        seconds = time.monotonic() - started
        trained = Path(scratch) / "sae" / hookpoint
        # fit() allows TF32 for the whole process; what is measured is float32.
        torch.set_float32_matmul_precision("highest")
        sae = SparseCoder.load_from_disk(trained, device=str(model.device))
        metrics = evaluate(sae, _outputs(model, hookpoint, ids[train_rows:]), context)
        for name in SAE_FILES:
            (trained / name).replace(folder / name)
    files.write_json(
        {"source": "train", "d_in": sae.d_in, "num_latents": sae.num_latents, "k": k, "train": settings}
        | {"heldout": metrics, "sha256": files.sha256(folder / "sae.safetensors")},
        folder / "info.json",
    )
    log.info(
        "trained on %d tokens in %.0f s (%.0f tokens/s); held out: FVU %.3f, L0 %.1f, %.1f%% dead",
        settings["tokens"], seconds, settings["tokens"] / seconds,
        metrics["fvu"], metrics["l0"], 100 * metrics["dead_share"],
    )  # fmt: skip


MOST_PARTS = 16
"""Parts of a training step to try at most: what then doesn't fit isn't the SAE's pre-activations."""


def _fit(trainer: Callable[[int], Any], most_parts: int, log: logging.Logger) -> None:
    """Train, each step in as many parts as fit into the GPU's memory; `trainer` makes sparsify's Trainer for so many.

    sparsify scales each part by the variance of the whole batch and the sum by the number of parts: the gradient points
    the same way, and its length makes no difference to signum, muon or (but for its ε) adam.
    """
    parts = 1
    while True:
        try:
            return trainer(parts).fit()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        parts *= 2
        if parts > min(most_parts, MOST_PARTS):
            raise InputError(
                "training doesn't fit into the GPU's memory; lower sae.batch_size, sae.context or sae.num_latents, or"
                " use a GPU with more."
            )
        release_memory()
        log.warning("out of GPU memory; starting training again with each step's tokens in %d parts", parts)


@torch.inference_mode()
def _outputs(model: PreTrainedModel, hookpoint: str, ids: Tensor) -> Tensor:
    """Return the outputs of a module for rows of token ids, float32, shape (rows · context, width)."""
    states: list[Tensor] = []
    handle = sites.read(model, hookpoint, lambda state: states.append(state.float().flatten(0, 1)))
    for rows in ids.split(16):
        model.base_model(input_ids=rows.to(model.device), use_cache=False)
    handle.remove()
    return torch.cat(states)


@torch.inference_mode()
def evaluate(sae: Any, x: Tensor, context: int) -> dict[str, Any]:
    """Measure a sparsify SparseCoder on x (rows · context, d_in).

    FVU = Σ‖x - x̂‖² / Σ‖x - x̄‖², sums in float64 over all tokens, not averages of batches; L0: mean number of active
    latents; dead_share: share of latents that fire on no token. Sinks (position 0 of each sequence, and norms over
    sites.SINK_NORM_RATIO times the sequence's median) are left out, as they would make up most of the variance;
    `fvu_with_sinks` counts them.
    """
    x_hat, fired, active = [], torch.zeros(sae.num_latents, dtype=torch.bool), []
    for chunk in x.split(max(1, CHUNK_VALUES // sae.num_latents)):
        top_acts, top_indices, _ = sae.encode(chunk)
        x_hat.append(sae.decode(top_acts, top_indices))
        active.append((top_acts > 0).sum(-1))
        fired[top_indices[top_acts > 0].cpu()] = True
    keep = ~torch.cat([sites.sinks(rows) for rows in x.norm(dim=-1).view(-1, context)])
    residual = torch.cat(x_hat) - x
    return {
        "tokens": len(x),
        "sink_share": 1 - keep.float().mean().item(),
        "fvu": fvu(x[keep], residual[keep]),
        "fvu_with_sinks": fvu(x, residual),
        "l0": torch.cat(active)[keep].double().mean().item(),
        "dead_share": 1 - fired.double().mean().item(),
    }


def fvu(x: Tensor, residual: Tensor) -> float:
    """Return the fraction of variance unexplained: Σ‖residual‖² / Σ‖x - x̄‖², in float64."""
    x = x.double()
    return (residual.double().square().sum() / (x - x.mean(0)).square().sum()).item()
