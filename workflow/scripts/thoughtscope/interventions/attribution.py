"""Room 7, interventions: what ablations would do, of all latents of a site at once, to first order.

With J the log-odds of what is to come at a pattern less those at the places compared to (see `ablations`) and g_t its
gradient by the site's state at token t, taking latent f away lowers J by about Σ_t a_t g_t·d_f (attribution patching;
Marks et al. 2024, arXiv 2403.19647). With `steps` above 1 the gradient is the mean over as many states between x less
its reconstruction and x (integrated gradients, Sundararajan et al. 2017).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import sites
from ..config import layer_of, parse_site
from ..evidence.links import WINDOWS
from ..frames import Schema, complete, keys
from ..job import every_few_seconds
from ..statistics import mean_over_traces
from . import forced, targets
from .ablations import Seen, see

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..saes.coder import SparseCoder

SCHEMA = Schema(
    "a pattern, a window of it and a latent active in a trace that was read (every second one, as ablations have the"
    " others), by falling size within each window",
    pattern=(pl.String, "the pattern"),
    window=(pl.Enum([name for name in WINDOWS if name != "at"]), "`before`: what is to come is a word of the pattern;"
            " `after`: the token that comes"),
    **keys("latent"),
    traces=(pl.UInt32, "traces with the pattern that were read"),
    active_traces=(pl.UInt32, "traces of those in which it is active"),
    predicted=(pl.Float64, "log-odds that its ablation would take at the pattern, beyond the places compared to, to"
                           " first order; the mean over traces"),
    low=(pl.Float64, "95 % interval of that over traces (Hall 1992): lower end"),
    high=(pl.Float64, "95 % interval of that: upper end"),
)  # fmt: skip


def attribution(
    traces: pl.DataFrame,
    matches: pl.DataFrame,
    vocabulary: pl.LazyFrame,
    *,
    model: PreTrainedModel,
    sae: SparseCoder,
    site: str,
    traces_each: int,
    steps: int,
    tokens_before: int,
    tokens_after: int,
    log: logging.Logger,
) -> pl.DataFrame:
    """Return the predicted effect of every active latent on every pattern, from up to `traces_each` traces.

    traces and matches are of the condition under study; read is every second trace, and ablated are the others, so that
    what is chosen by its prediction isn't tried on what it was chosen by.
    """
    traces = targets.half(traces, 0)
    classes = targets.token_classes(vocabulary)
    places = matches.filter(pl.col("kind") == "pattern")
    windows = {
        (pattern, window): (targets.spans_of(places, pattern), words if window == "before" else None)
        for pattern in places["name"].unique().sort()
        for words in [torch.from_numpy(targets.first_tokens(traces, places, pattern, model.config.vocab_size))]
        for window in SCHEMA["window"].categories
    }
    scores: dict[tuple[str, str], list[np.ndarray]] = {name: [] for name in windows}
    started, read, tick = time.monotonic(), 0, every_few_seconds(log.info)
    for trace in traces.iter_rows(named=True):
        if all(len(rows) == traces_each for rows in scores.values()):
            break
        text, wanted = targets.text_of(trace), {}
        for (pattern, window), (spans, words) in windows.items():
            if len(scores[pattern, window]) < traces_each:
                own = spans.get(trace["trace_id"], [])
                found = targets.pairs(text, own, window, classes, tokens_before, tokens_after)
                if found.at:
                    wanted[pattern, window] = found, words
        if not wanted:
            continue
        one = see(trace["trace_id"], text, model, sae, site)
        for name, gradient in zip(wanted, gradients(model, site, one, list(wanted.values()), sae, steps), strict=True):
            scores[name].append(_of_latents(one, gradient, sae))
        read += 1
        tick(f"{read} traces, {sum(map(len, scores.values()))} gradients of {traces_each * len(windows)} at most")
    log.info("%d traces, %.0f s", read, time.monotonic() - started)
    frames = [_table(pattern, window, np.stack(rows)) for (pattern, window), rows in scores.items() if rows]
    return pl.concat([pl.DataFrame(schema=SCHEMA), *frames])


Wanted = tuple[targets.Pairs, Tensor | None]
"""Places of a window in a trace; of `before`, which tokens of the vocabulary begin the pattern, bool, (vocabulary,)."""


def gradients(
    model: PreTrainedModel, site: str, one: Seen, wanted: Sequence[Wanted], sae: SparseCoder, steps: int
) -> list[Tensor]:
    """Return the gradient of J of each window by the states at the site, (tokens, width) each, float32."""
    states = one.trace.states.unsqueeze(0)
    if steps == 1:
        return _gradients_at(model, site, one, states, wanted)
    missing = [(1 - (step + 0.5) / steps) * sae.decode(one.codes) for step in range(steps)]
    found = [_gradients_at(model, site, one, states - part, wanted) for part in missing]
    return [torch.stack(of_window).mean(0) for of_window in zip(*found, strict=True)]


def _gradients_at(
    model: PreTrainedModel, site: str, one: Seen, states: Tensor, wanted: Sequence[Wanted]
) -> list[Tensor]:
    """Return `gradients` where the states at the site are `states` (1, tokens, width): one pass ahead, many back."""
    ids = one.trace.ids.unsqueeze(0)
    leaf = states.to(one.trace.entering.dtype, copy=True).requires_grad_()
    found = []
    # On a processor PyTorch's fused attention takes ten times as long back as the plain products do.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        with (
            sites.starting_at(model, layer_of(parse_site(site)[0]), one.trace.entering.unsqueeze(0)),
            sites.replacing(model, site, lambda _: leaf),
        ):
            output = model.base_model(input_ids=ids, use_cache=False)
        for pairs, words in wanted:
            places, count = torch.tensor(pairs.at + pairs.matched, device=ids.device), len(pairs.at)
            with sites.ending_with(model, output):
                log_p = model(input_ids=ids, use_cache=False, logits_to_keep=places).logits[0].float().log_softmax(-1)
            if words is None:
                said, others = forced.of_token(log_p, ids[0, places + 1])
            else:
                members = words.to(log_p.device)
                said, others = log_p[:, members].logsumexp(-1), log_p[:, ~members].logsumexp(-1)
            value = said - others
            j = value[:count].mean() - value[count:].mean()
            (gradient,) = torch.autograd.grad(j, leaf, retain_graph=True)
            found.append(gradient[0].float())
    return found


def _of_latents(one: Seen, gradient: Tensor, sae: SparseCoder) -> np.ndarray:
    """Return Σ_t a_t g_t·d of each latent over the tokens that count, float64, (latents,)."""
    rows = one.counted.nonzero().squeeze(-1)
    scores = torch.zeros(sae.latents, dtype=torch.float64, device=gradient.device)
    for part in rows.split(256):
        active = one.codes.latents[part]
        along = torch.einsum("tkw,tw->tk", sae.direction(active).float(), gradient[part])
        scores.index_add_(0, active.flatten(), (one.codes.activations[part] * along).double().flatten())
    return scores.cpu().numpy()


def _table(pattern: str, window: str, scores: np.ndarray) -> pl.DataFrame:
    """Return the rows of one window from scores (traces, latents)."""
    active = (scores != 0).sum(axis=0)
    latents = np.flatnonzero(active)
    mean = mean_over_traces(scores[:, latents])
    row = {"pattern": pattern, "window": window, "latent": latents, "traces": len(scores)}
    row |= {"active_traces": active[latents], "predicted": mean.value, "low": mean.low, "high": mean.high}
    return complete(pl.DataFrame(row), SCHEMA).sort(pl.col("predicted").abs(), "latent", descending=[True, False])
