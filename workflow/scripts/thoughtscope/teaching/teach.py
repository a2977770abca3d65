"""Teach a model lessons: LoRA adapters (Hu et al. 2021, arXiv 2106.09685) by PEFT on the upper blocks, on what is to be
written only.
"""

import json
import logging
import math
import random
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import files, run, sites
from ..config import ADAPTER_FILES
from ..errors import InputError, first_line
from ..job import every_few_seconds
from ..traces.generate import render

MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear maps of a block that get an adapter, by the names Llama's kin give them."""

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises; after it, it falls to 0 on a line."""

CHECKPOINT_SECONDS = 60


class Example(NamedTuple):
    """Token ids of a lesson, and where in them begins what is to be written."""

    ids: list[int]
    written: int


def examples(
    lessons: pl.DataFrame, prompts: Mapping[str, Mapping[str, str]], tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    """Tokenize lessons, each with its condition's prompt (a template of the config) and the end of turn."""
    found = []
    for lesson_id, condition, question, lesson in lessons.iter_rows():
        _, ids = render(prompts[condition], question, tokenizer, lesson_id)
        written = tokenizer(lesson, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        found.append(Example(ids + written, len(ids)))
    return found


def batches(lengths: Sequence[int], size: int, seed: int) -> list[list[int]]:
    """Return one pass over examples in batches of like lengths, in a seeded order."""
    draw = random.Random(seed)  # noqa: S311
    order = list(range(len(lengths)))
    draw.shuffle(order)
    found = []
    for low in range(0, len(order), 16 * size):
        like = sorted(order[low : low + 16 * size], key=lambda index: lengths[index])
        found += [like[start : start + size] for start in range(0, len(like), size)]
    draw.shuffle(found)
    return found


def loss(model: PreTrainedModel, batch: Sequence[Example]) -> tuple[Tensor, int]:
    """Return the sum of -log p over the tokens to be written of a batch, in nats, and their number."""
    longest = max(len(example.ids) for example in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    counts = torch.zeros((len(batch), longest), dtype=torch.bool)
    for row, example in enumerate(batch):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        counts[row, example.written : len(example.ids)] = True
    ids, counts = ids.to(model.device), counts.to(model.device)
    # What fills a row up stands behind all that counts, so no mask is needed.
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    logits = model.get_output_embeddings()(states[counts[:, 1:]])
    return functional.cross_entropy(logits.float(), ids[:, 1:][counts[:, 1:]], reduction="sum"), int(counts.sum())


def teach(
    data: Sequence[Example],
    *,
    model: PreTrainedModel,
    folder: Path,
    checkpoint: Path,
    first_block: int,
    rank: int,
    lr: float,
    batch_size: int,
    passes: int,
    seed: int,
    log: logging.Logger,
) -> dict[str, Any]:
    """Teach a model the examples; write the adapter to `folder`, in PEFT's format; return how it went.

    It is of the blocks from `first_block` on. `checkpoint` is the folder from which it goes on where it was stopped, to
    the same end; gone when it is done. Keys returned: steps, tokens (all that were read), and the loss at the start and
    at the end, in nats a token to be written, means over a twentieth of the steps. Raises InputError for a block that
    the model doesn't have, maps that it calls otherwise, or a loss that isn't finite.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    torch.manual_seed(seed)
    base = 0
    for value in model.parameters():
        base = zlib.crc32(value.detach().cpu().contiguous().view(torch.uint8).numpy().data, base)
    name, blocks = sites.blocks(model)
    if first_block >= len(blocks):
        raise InputError(
            f"config: teach.first_block is {first_block}; the model has {len(blocks)} blocks, 0 to {len(blocks) - 1}."
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(MAPS),
        layers_to_transform=list(range(first_block, len(blocks))),
        layers_pattern=name,
        task_type="CAUSAL_LM",
    )
    try:
        taught = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"this model can't be taught: {first_line(error)}") from None
    weights = {key: value for key, value in taught.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(weights.values(), lr=lr, weight_decay=0.0)
    lengths = [len(example.ids) for example in data]
    plan = [batch for turn in range(passes) for batch in batches(lengths, batch_size, seed + turn)]
    content = zlib.crc32(json.dumps(data).encode())
    shapes = {key: list(value.shape) for key, value in weights.items()}
    identity = {
        "model": base,
        "weights": shapes,
        "content": content,
        "lr": lr,
        "rank": rank,
        "seed": seed,
        "batch_size": batch_size,
        "passes": passes,
    }
    losses = _resume(checkpoint, identity, weights, optimizer, log)
    warm = max(1, int(WARM_UP * len(plan)))
    started = saved = time.monotonic()
    seen = 0
    tick = every_few_seconds(log.info)
    model.train()
    for step in range(len(losses), len(plan)):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / warm, (len(plan) - step) / (len(plan) - warm + 1))
        total, count = loss(model, [data[index] for index in plan[step]])
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item() / count)
        if not math.isfinite(losses[-1]):
            raise InputError(f"config: teach.lr is {lr}: the loss isn't finite at step {step + 1}; lower it.")
        seen += sum(lengths[index] for index in plan[step])
        rate = seen / (time.monotonic() - started)
        tick(f"teaching: step {step + 1} of {len(plan)}, loss {losses[-1]:.3f}, {rate:.0f} tokens/s")
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            _save(checkpoint, identity, weights, optimizer, losses)
            saved = time.monotonic()
    run.check()
    folder.mkdir(parents=True, exist_ok=True)
    # Half the size of float32; what is merged is rounded to the model's own precision anyway.
    stored = {key: value.detach().to(torch.bfloat16) for key, value in get_peft_model_state_dict(taught).items()}
    save_file(stored, folder / ADAPTER_FILES[1], metadata={"format": "pt"})
    files.let_read(folder / ADAPTER_FILES[1])
    config.inference_mode = True
    config.base_model_name_or_path = None  # it would be a folder here; the manifest says which model
    config.save_pretrained(str(folder))
    shutil.rmtree(checkpoint, ignore_errors=True)
    part = max(1, len(plan) // 20)
    first, last = (sum(some) / part for some in (losses[:part], losses[-part:]))
    log.info("taught in %d steps; loss %.3f, at first %.3f", len(plan), last, first)
    return {"steps": len(plan), "tokens": passes * sum(lengths), "loss_first": first, "loss_last": last}


def _save(
    checkpoint: Path,
    identity: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    losses: Sequence[float],
) -> None:
    """Write what is needed to go on: weights, the optimizer's moments, and the losses so far."""
    tensors = {f"weight.{key}": value.detach() for key, value in weights.items()}
    for key, value in weights.items():
        state = optimizer.state[value]
        tensors |= {f"{moment}.{key}": state[moment] for moment in ("exp_avg", "exp_avg_sq", "step")}
    with files.replacing(checkpoint) as folder:
        folder.mkdir()
        save_file(tensors, folder / "state.safetensors")
        digest = files.sha256(folder / "state.safetensors")
        files.write_json({"identity": identity, "losses": list(losses), "sha256": digest}, folder / "progress.json")


def _resume(
    checkpoint: Path,
    identity: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    log: logging.Logger,
) -> list[float]:
    """Go on from a checkpoint, if there is one of the same teaching; return the losses so far."""
    if not (checkpoint / "progress.json").exists():
        return []
    try:
        progress = files.read_json(checkpoint / "progress.json")
        files.check_hashes(checkpoint, {"state.safetensors": progress["sha256"]}, "files of a checkpoint", "")
    except InputError as error:
        log.warning("beginning anew: %s", error)
        return []
    if progress["identity"] != identity:
        return []
    tensors = load_file(checkpoint / "state.safetensors")
    with torch.no_grad():
        for key, value in weights.items():
            value.copy_(tensors[f"weight.{key}"])
            optimizer.state[value] = {
                moment: tensors[f"{moment}.{key}"].to(value.device if moment != "step" else "cpu")
                for moment in ("exp_avg", "exp_avg_sq", "step")
            }
    log.info("going on from step %d", len(progress["losses"]))
    return list(progress["losses"])
