"""Room 4, SAEs: training on the spot, with sparsify's Trainer, and what new SAEs are worth on held-out text."""

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import files, run, sites
from ..config import SAE_FILES, layer_of
from ..devices import is_out_of_memory, release_memory
from ..errors import InputError
from ..job import every_few_seconds
from . import record
from .coder import CHUNK_VALUES
from .text import sequences_of, token_ids


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


TOGETHER_BYTES = 8e9
"""Memory that SAEs trained in one pass over the text may take; the study's three of 65,536 latents take 7.2 GB."""

FLOATS_A_WEIGHT = {"signum": 3, "adam": 4, "muon": 3}
"""What training keeps of a weight, by optimizer, in float32: itself, its gradient and the optimizer's state."""

MOST_PARTS = 16
"""Parts of a training step to try at most: what then doesn't fit isn't the SAE's pre-activations."""


def train(
    problems: pl.DataFrame,
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folders: Mapping[str, Path],
    widths: Mapping[str, int],
    k: int,
    num_latents: int,
    tokens: int,
    heldout_tokens: int,
    context: int,
    batch_size: int,
    optimizer: str,
    lr: float | None,
    seed: int,
    requested: Mapping[str, Any],
    log: logging.Logger,
) -> None:
    """Train a k-SAE on the output of each hookpoint with sparsify's Trainer; write them to `folders`, by hookpoint.

    One pass over the text trains as many as TOGETHER_BYTES hold. Each becomes what it would be alone: all start from
    the same seed, and loss, gradient and optimizer state are each one's own. `widths`: of the hookpoints' outputs.
    `info.json` beside each holds `requested`, by which the workflow knows it again, the settings and, over held-out
    text that training hasn't seen, what `evaluate` measures.
    """
    # sparsify chooses its kernels when it is imported; Triton's need a GPU.
    if not torch.cuda.is_available():
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    from sparsify import SparseCoder, SparseCoderConfig, TrainConfig, Trainer

    train_rows, heldout_rows = sequences_of(tokens, heldout_tokens, context)
    rows = train_rows + heldout_rows
    ids = torch.tensor(token_ids(problems, tokenizer, rows * context, requested.get("text", {}))).view(rows, context)
    settings: dict[str, Any] = {"tokens": train_rows * context, "context": context, "batch_size": batch_size}
    settings |= {"optimizer": optimizer, "lr": lr, "seed": seed}
    model.config.use_cache = False
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        config = TrainConfig(
            SparseCoderConfig(num_latents=num_latents, k=k),
            batch_size=batch_size,
            optimizer=optimizer,
            lr=lr,
            init_seeds=[seed],
            log_to_wandb=False,
            save_every=2**31,  # only at the end; its optimizer state is thrown away with the scratch folder
            save_dir=scratch,
            run_name="sae",
        )

        def trainer(hookpoints: Sequence[str], parts: int) -> Any:
            part = replace(config, hookpoints=list(hookpoints), micro_acc_steps=parts)
            return Trainer(part, _Sequences(ids[:train_rows], log), model)

        bytes_wide = 4 * FLOATS_A_WEIGHT[optimizer] * 2 * num_latents
        deepest_first = sorted(folders, key=layer_of, reverse=True)  # a pass goes no further than its first
        for hookpoints in _passes({hookpoint: bytes_wide * widths[hookpoint] for hookpoint in deepest_first}):
            started = time.monotonic()
            with sites.stopping_after(model, layer_of(hookpoints[0])):
                _fit(trainer, hookpoints, batch_size * context, log)
                seconds = time.monotonic() - started
                outputs = _outputs(model, hookpoints, ids[train_rows:])
            log.info(
                "trained on %d tokens in %.0f s (%.0f tokens/s), SAEs together: %d",
                settings["tokens"], seconds, settings["tokens"] / seconds, len(hookpoints),
            )  # fmt: skip
            # fit() allows TF32 for the whole process; what is measured is float32.
            torch.set_float32_matmul_precision("highest")
            for hookpoint, states in outputs.items():
                trained = Path(scratch) / "sae" / hookpoint
                files.let_read(trained / SAE_FILES[1])
                sae = SparseCoder.load_from_disk(trained, device=str(model.device))
                heldout = evaluate(sae, states, context)
                if not math.isfinite(heldout["fvu"]) or not all(bool(w.isfinite().all()) for w in sae.parameters()):
                    raise InputError(
                        f"config: sae.lr is {lr}: the SAE of {hookpoint} isn't finite after training; set it lower."
                    )
                files.write_json(
                    {"source": "train", "requested": requested}
                    | {"d_in": sae.d_in, "num_latents": sae.num_latents, "k": k, "train": settings}
                    | {"heldout": heldout, "files": {name: files.sha256(trained / name) for name in SAE_FILES}},
                    trained / record.INFO,
                )
                log.info(
                    "%s, held out: FVU %.3f, L0 %.1f, %.1f%% dead",
                    hookpoint, heldout["fvu"], heldout["l0"], 100 * heldout["dead_share"],
                )  # fmt: skip
            run.check()
            for hookpoint in hookpoints:
                for name in (*SAE_FILES, record.INFO):
                    (Path(scratch) / "sae" / hookpoint / name).replace(folders[hookpoint] / name)


def _passes(sizes: Mapping[str, float]) -> list[list[str]]:
    """Share out hookpoints, in order, by the bytes training takes: as many to a pass as TOGETHER_BYTES hold, or one."""
    passes: list[list[str]] = []
    room = 0.0
    for hookpoint, size in sizes.items():
        if size > room:
            passes.append([])
            room = TOGETHER_BYTES
        passes[-1].append(hookpoint)
        room -= size
    return passes


def _fit(
    trainer: Callable[[Sequence[str], int], Any], hookpoints: Sequence[str], most_parts: int, log: logging.Logger
) -> None:
    """Train, together if the GPU's memory holds them, else by halves; a single one's steps in as many parts as fit.

    `trainer` makes sparsify's Trainer for hookpoints and parts. sparsify scales each part by the variance of the whole
    batch and the sum by the number of parts: the gradient points the same way, and its length makes no difference to
    signum, muon or (but for its ε) adam.
    """
    parts = 1
    while True:
        try:
            return trainer(hookpoints, parts).fit()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        release_memory()
        if len(hookpoints) > 1:
            log.warning("out of GPU memory with %d SAEs together; training half of them at a time", len(hookpoints))
            middle = len(hookpoints) // 2
            _fit(trainer, hookpoints[:middle], most_parts, log)
            return _fit(trainer, hookpoints[middle:], most_parts, log)
        parts *= 2
        if parts > min(most_parts, MOST_PARTS):
            raise InputError(
                "training doesn't fit into the GPU's memory; lower sae.batch_size, sae.context or sae.num_latents, or"
                " use a GPU with more."
            )
        log.warning("out of GPU memory; starting training again with each step's tokens in %d parts", parts)


@torch.inference_mode()
def _outputs(model: PreTrainedModel, hookpoints: Iterable[str], ids: Tensor) -> dict[str, Tensor]:
    """Return the outputs of modules for rows of token ids, float32, shape (rows · context, width), by hookpoint."""
    kept: dict[str, list[Tensor]] = {hookpoint: [] for hookpoint in hookpoints}
    with sites.reading(model, kept) as states:
        for rows in ids.split(16):
            model.base_model(input_ids=rows.to(model.device), use_cache=False)
            for hookpoint, of_all_rows in kept.items():
                of_all_rows.append(states[hookpoint].float())
    return {hookpoint: torch.cat(of_all_rows).flatten(0, 1) for hookpoint, of_all_rows in kept.items()}


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
