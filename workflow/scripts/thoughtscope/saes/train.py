"""Room 4, SAEs: training on the spot, with sparsify's Trainer, and what a new SAE is worth on held-out text."""

import logging
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import files, sites
from ..config import SAE_FILES, layer_of
from ..devices import is_out_of_memory, release_memory
from ..errors import InputError
from ..job import every_few_seconds
from .coder import CHUNK_VALUES


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
