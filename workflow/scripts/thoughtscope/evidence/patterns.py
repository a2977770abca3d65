"""Room 7, evidence: what a latent responds to. Thinking patterns in the text, and activation inside and outside them.

A pattern's window is its tokens, with some before and after. Whether a latent is more active inside than outside is
tested against circular shifts of all windows within each segment of each trace: they keep how windows and activations
are clustered, and in which segments, and break how they are aligned. (What both owe to a fixed place within a segment,
such as its start, isn't told apart.) Zeros count: a token on which a latent isn't active has activation 0.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from .recurrence import complete, latents_of
from ..statistics import MIN_TOKENS, Floats, fdr, percentiles, resamples

MATCHES_SCHEMA: dict[str, Any] = {
    "trace_id": pl.UInt32,
    "condition": pl.String,
    "kind": pl.Enum(["pattern", "reason_word"]),
    "name": pl.String,
    "entry": pl.String,
    "start": pl.UInt32,
    "end": pl.UInt32,
    "text": pl.String,
}
"""Columns of the matches: where in a trace a pattern's (or a reasoning word's) entry is; positions are half-open."""


def expression(entry: str) -> re.Pattern[str]:
    """Return the regular expression of a lexicon's entry.

    `/…/` is one already, searched as it is written. Other entries are words or phrases: whole words, any white space
    between them, in any case, unless the entry has a capital, which must then be there.
    """
    if len(entry) > 2 and entry.startswith("/") and entry.endswith("/"):
        return re.compile(entry[1:-1])
    words = r"\s+".join(map(re.escape, entry.split()))
    return re.compile(rf"(?<!\w){words}(?!\w)", 0 if any(map(str.isupper, entry)) else re.IGNORECASE)


def matches(traces: pl.LazyFrame, vocabulary: pl.LazyFrame, *, patterns: str, reason_words: str) -> pl.DataFrame:
    """Return where in what the model wrote each pattern and each reasoning word is, in MATCHES_SCHEMA.

    `patterns` is the config's section as JSON, `reason_words` its list. Entries are matched on the text and mapped to
    the tokens that carry it; each reasoning word is a `name` of its own. Matches of one pattern may overlap.
    """
    lexicon = [
        ("pattern", name, entry, expression(entry))
        for name, entries in json.loads(patterns).items()
        for entry in entries
    ] + [("reason_word", entry, entry, expression(entry)) for entry in json.loads(reason_words)]
    text_of = dict(vocabulary.select("token_id", "text").collect().iter_rows())
    rows = []
    columns = ["trace_id", "condition", "prompt_ids", "generated_ids"]
    for trace_id, condition, prompt, written in traces.select(columns).collect().iter_rows():
        pieces = [text_of[token] for token in written]
        ends = np.cumsum([len(piece) for piece in pieces])
        text = "".join(pieces)
        for kind, name, entry, wanted in lexicon:
            for match in wanted.finditer(text):
                if match.end() == match.start():
                    continue
                # The tokens that hold the first and the last character.
                first, last = np.searchsorted(ends, [match.start(), match.end() - 1], side="right") + len(prompt)
                rows.append((trace_id, condition, kind, name, entry, first, last + 1, match.group()))
    return pl.DataFrame(rows, schema=MATCHES_SCHEMA, orient="row")


def pattern_counts(matches: pl.LazyFrame, traces: pl.LazyFrame, *, patterns: str) -> pl.DataFrame:
    """Return how often each pattern is in each trace.

    Columns: trace_id, condition, pattern, matches, tokens (the trace's, written), per_100_tokens.
    """
    names = pl.LazyFrame({"pattern": list(json.loads(patterns))}, schema={"pattern": pl.String})
    found = (
        matches.filter(pl.col("kind") == "pattern")
        .group_by("trace_id", "condition", pl.col("name").alias("pattern"))
        .agg(matches=pl.struct("start", "end").n_unique())
    )
    return (
        traces.select("trace_id", "condition", tokens=pl.col("generated_ids").list.len())
        .join(names, how="cross")
        .join(found, on=["trace_id", "condition", "pattern"], how="left")
        .with_columns(pl.col("matches").fill_null(0))
        .with_columns(per_100_tokens=100 * pl.col("matches") / pl.col("tokens"))
        .select("trace_id", "condition", "pattern", "matches", "tokens", "per_100_tokens")
        .sort("condition", "trace_id", "pattern")
        .collect()
    )


@dataclass(frozen=True)
class Design:
    """One condition's generated tokens that count, trace after trace, and what the latents tested do on them.

    activations: (tokens, latents), sparse; mass: all latents' activation on each token; trace: each token's trace, 0 to
    traces - 1; starts: each trace's first token, and the number of tokens at the end; run, run_starts: the same for the
    segments of traces, within which windows are shifted.
    """

    latents: NDArray[np.int64]
    trace_ids: NDArray[np.int64]
    activations: sparse.csr_array
    mass: Floats
    trace: NDArray[np.int64]
    starts: NDArray[np.int64]
    run: NDArray[np.int64]
    run_starts: NDArray[np.int64]
    positions: NDArray[np.int64]
    token_ids: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each trace."""
        return np.diff(self.starts)

    @cached_property
    def by_latent(self) -> sparse.csc_array:
        """The activations, column by column."""
        return sparse.csc_array(self.activations)

    @property
    def run_lengths(self) -> NDArray[np.int64]:
        """Tokens of each segment of each trace."""
        return np.diff(self.run_starts)

    def per_trace(self, weights: NDArray[Any]) -> Floats:
        """Sum weighted activations within each trace: (traces, latents), from weights (tokens,)."""
        inside = np.flatnonzero(weights)
        chosen = sparse.csr_array(
            (weights[inside], (self.trace[inside], inside)), shape=(len(self.trace_ids), len(self.trace))
        )
        return np.asarray((chosen @ self.activations).todense(), dtype=float)

    def windows(self, found: pl.DataFrame, before: int, after: int) -> NDArray[np.bool_]:
        """Return which tokens are in a window of the matches `found` (trace_id, start, end), shape (tokens,)."""
        mask = np.zeros(len(self.trace), dtype=bool)
        index = {int(trace_id): row for row, trace_id in enumerate(self.trace_ids)}
        for trace_id, start, end in found.select("trace_id", "start", "end").iter_rows():
            row = index.get(trace_id)
            if row is not None:
                low, high = self.starts[row], self.starts[row + 1]
                first, last = np.searchsorted(self.positions[low:high], [start - before, end + after])
                mask[low + first : low + last] = True
        return mask


def design(
    activations: pl.LazyFrame, traces: pl.LazyFrame, latents: Sequence[int], condition: str, include_sinks: bool
) -> Design:
    """Lay out one condition's generated tokens (those that were read; without sinks unless included) and `latents`."""
    written = (
        traces.filter(pl.col("condition") == condition)
        .select(
            "trace_id",
            token_id=pl.col("generated_ids").list.head(pl.col("generated_ids").list.len() - 1),
            start=pl.col("prompt_ids").list.len(),
            cuts=pl.col("segments").list.eval(pl.element().struct.field("start")),
        )
        .sort("trace_id")
        .collect()
    )
    tokens = (
        written.lazy()
        .drop("cuts")
        .explode("token_id", empty_as_null=False)
        .with_columns(position=pl.col("start") + pl.int_range(pl.len(), dtype=pl.UInt32).over("trace_id"))
    )
    rows = activations.filter(pl.col("condition") == condition, pl.col("segment") != "prompt")
    if not include_sinks:
        flagged = rows.filter("sink").select("trace_id", "position").unique()
        tokens = tokens.join(flagged, on=["trace_id", "position"], how="anti", maintain_order="left")
        rows = rows.filter(~pl.col("sink"))
    table = tokens.collect().with_row_index("row")
    active = (
        rows.select("trace_id", "position", "latent", "activation")
        .join(table.lazy().select("trace_id", "position", "row"), on=["trace_id", "position"])
        .collect()
    )
    mass = np.zeros(len(table))
    sums = active.group_by("row").agg(pl.col("activation").cast(pl.Float64).sum())
    mass[sums["row"].to_numpy()] = sums["activation"].to_numpy()
    names = np.array(sorted(latents), dtype=np.int64)
    tested = active.filter(pl.col("latent").is_in(names.tolist()))
    matrix = sparse.csr_array(
        (
            tested["activation"].to_numpy().astype(np.float64),
            (tested["row"].to_numpy(), np.searchsorted(names, tested["latent"].to_numpy())),
        ),
        shape=(len(table), len(names)),
    )
    trace_ids = written["trace_id"].to_numpy().astype(np.int64)
    trace = np.searchsorted(trace_ids, table["trace_id"].to_numpy())
    starts = np.searchsorted(trace, np.arange(len(trace_ids) + 1))
    positions = table["position"].to_numpy().astype(np.int64)
    segment = np.zeros(len(positions), dtype=np.int64)
    for row, cuts in enumerate(written["cuts"].to_list()):
        mine = slice(starts[row], starts[row + 1])
        segment[mine] = np.searchsorted(cuts, positions[mine], side="right")
    changes = np.flatnonzero((np.diff(trace) != 0) | (np.diff(segment) != 0)) + 1
    run_starts = np.concatenate([[0], changes, [len(positions)]]) if len(positions) else np.zeros(1, dtype=np.int64)
    run = np.repeat(np.arange(len(run_starts) - 1), np.diff(run_starts))
    return Design(
        names, trace_ids, matrix, mass, trace, starts, run, run_starts, positions,
        table["token_id"].to_numpy().astype(np.int64),
    )  # fmt: skip


SHIFTS_AT_ONCE = 100
"""Shifts whose masks are held at a time."""

FIRST_SHIFTS = 1000
"""Shifts for every latent; more only for those that fewer than ENOUGH of these exceed."""

ENOUGH = 10
"""Exceeding shifts after which a p value is known well enough (Besag and Clifford 1991)."""


def shifted_sums(
    layout: Design, weights: Floats, shifts: NDArray[np.int64], columns: NDArray[np.int64] | slice
) -> Floats:
    """Return Σ weight · activation over all tokens with the weights shifted circularly within each segment of a trace.

    shifts: (shifts, runs), how far; weights: (tokens,); the result is (shifts, columns).
    """
    inside = np.flatnonzero(weights)
    activations = layout.by_latent[:, columns]
    if len(inside) == 0 or activations.nnz == 0:
        return np.zeros((len(shifts), activations.shape[1]))
    if activations.nnz < len(inside):
        # Few activations: look up the weight that each one meets, which was shifted there from so far before it.
        of, low = layout.run[activations.indices], layout.run_starts[layout.run[activations.indices]]
        met = weights[low + (activations.indices - low - shifts[:, of]) % layout.run_lengths[of]] * activations.data
        firsts = np.flatnonzero(np.diff(activations.indptr))
        sums = np.zeros((len(shifts), activations.shape[1]))
        sums[:, firsts] = np.add.reduceat(met, activations.indptr[firsts], axis=1)
        return sums
    of, low = layout.run[inside], layout.run_starts[layout.run[inside]]
    moved = low + (inside - low + shifts[:, of]) % layout.run_lengths[of]
    masks = sparse.csr_array(
        (np.tile(weights[inside], len(shifts)), moved.ravel(), np.arange(len(shifts) + 1) * len(inside)),
        shape=(len(shifts), len(layout.trace)),
    )
    return np.asarray((masks @ activations).todense(), dtype=float)


def shift_p(
    layout: Design,
    observed: Floats,
    scale: Floats,
    statistic: Callable[[NDArray[np.int64], NDArray[np.int64]], Floats],
    shifts: int,
    seed: int,
) -> tuple[Floats, NDArray[np.int64]]:
    """Return the one-sided p of each latent and how many shifts it is from: (1 + exceeding) / (1 + shifts).

    `statistic(shifts, columns)` gives the statistic (shifts, columns) under shifts (shifts, runs); `scale` is the size
    of the terms it is a difference of, to which its rounding is relative. All latents see FIRST_SHIFTS shifts; those
    that fewer than ENOUGH of them exceed see more, up to `shifts`.
    """
    chance = np.random.default_rng(seed)
    exceeding = np.zeros(len(observed))
    used = np.zeros(len(observed), dtype=np.int64)
    columns = np.flatnonzero(np.isfinite(observed))
    while len(columns) and used.max() < shifts:
        count = min(SHIFTS_AT_ONCE, shifts - int(used.max()))
        # A shift of 0 is one of the possible ones, as a permutation test counts the identity.
        drawn = chance.integers(0, np.maximum(layout.run_lengths, 1), size=(count, len(layout.run_lengths)))
        values = statistic(drawn, columns)
        # Rounding must not make a tie an exceedance or the contrary.
        exceeding[columns] += (values >= observed[columns] - 1e-9 * scale[columns]).sum(axis=0)
        used[columns] += count
        if used.max() >= min(FIRST_SHIFTS, shifts):
            columns = columns[exceeding[columns] < ENOUGH]
    p = np.where(np.isfinite(observed), (1 + exceeding) / (1 + used), np.nan)
    return p, used


def enough_shifts(shifts: int, tests: int, alpha: float) -> int:
    """Return how many shifts to draw at most: `shifts`, or as many as let a single one of `tests` reach q < alpha."""
    return max(shifts, math.ceil(tests / alpha) + 1)


PATTERNS_SCHEMA = {
    "latent": pl.UInt32,
    "pattern": pl.String,
    "traces": pl.UInt32,
    "active_traces": pl.UInt32,
    "active_tokens": pl.UInt32,
    "tokens_inside": pl.UInt32,
    "rate_inside": pl.Float64,
    "rate_outside": pl.Float64,
    "mean_inside": pl.Float64,
    "mean_outside": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,
    "shifts": pl.UInt32,
    "family": pl.String,
    "note": pl.String,
}


def pattern_tests(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    matches: pl.LazyFrame,
    candidates: pl.LazyFrame,
    *,
    patterns: str,
    condition: str,
    before: int,
    after: int,
    shifts: int,
    alpha: float,
    include_sinks: bool,
) -> pl.DataFrame:
    """Compare each candidate latent's activation inside and outside each pattern's windows; a row a latent and pattern.

    Columns:

    - traces: those with tokens both inside and outside (none: no number, and a note), over which all that follows is;
      active_traces: those of them in which the latent is active at all; active_tokens: where it is active;
      tokens_inside
    - rate_inside, rate_outside: share of a trace's tokens it is active on; mean_inside, mean_outside: its mean
      activation on them; each the mean over traces
    - difference: mean_inside - mean_outside; low, high: 95 % bootstrap interval over traces
    - p: one-sided, from circular shifts of the windows; q: Benjamini-Hochberg over `family`; shifts: how many were
      seen, at most `shifts`, or as many more as let a single latent reach q < `alpha`
    """
    names = sorted(json.loads(patterns))
    layout = design(activations, traces, latents_of(candidates), condition, include_sinks)
    found = matches.filter(pl.col("kind") == "pattern", pl.col("condition") == condition).collect()
    active = sparse.csr_array(
        (np.ones_like(layout.activations.data), layout.activations.indices, layout.activations.indptr),
        shape=layout.activations.shape,
    )
    masks = {name: layout.windows(found.filter(pl.col("name") == name), before, after) for name in names}
    sizes = {name: np.bincount(layout.trace[mask], minlength=len(layout.trace_ids)) for name, mask in masks.items()}
    testable = [name for name in names if ((sizes[name] > 0) & (sizes[name] < layout.lengths)).any()]
    most_shifts = enough_shifts(shifts, len(testable) * len(layout.latents), alpha)
    frames = []
    for number, name in enumerate(names):
        mask, inside = masks[name], sizes[name]
        table = pl.DataFrame({"latent": layout.latents}, schema={"latent": pl.UInt32}).with_columns(
            pattern=pl.lit(name)
        )
        if name not in testable:
            note = "all tokens are inside its windows" if mask.any() else "in no trace"
            frames.append(table.with_columns(traces=pl.lit(0, pl.UInt32), note=pl.lit(note)))
            continue
        both = (inside > 0) & (inside < layout.lengths)
        count, outside = int(both.sum()), layout.lengths - inside
        per_inside = np.where(both, 1 / np.maximum(inside, 1), 0.0)
        per_outside = np.where(both, 1 / np.maximum(outside, 1), 0.0)
        means_inside = layout.per_trace(mask * per_inside[layout.trace])[both]
        means_outside = layout.per_trace((~mask) * per_outside[layout.trace])[both]
        differences = means_inside - means_outside
        scale = means_inside.mean(axis=0) + means_outside.mean(axis=0)
        # What rounding leaves of two equal means is no difference.
        observed = np.where(np.abs(differences.mean(axis=0)) > 1e-12 * scale, differences.mean(axis=0), 0.0)
        # mean inside - mean outside = Σ_inside a (1/inside + 1/outside) - Σ a / outside, linear in what is inside.
        weight = mask * (per_inside + per_outside)[layout.trace] / count
        constant = layout.per_trace(per_outside[layout.trace]).sum(axis=0) / count

        def under_shifts(
            drawn: NDArray[np.int64],
            columns: NDArray[np.int64],
            weight: Floats = weight,
            constant: Floats = constant,
        ) -> Floats:
            return shifted_sums(layout, weight, drawn, columns) - constant[columns]

        p, used = shift_p(layout, observed, scale + constant, under_shifts, most_shifts, seed=number)
        low, high = percentiles(resamples(count) @ differences / count)
        switched = replace(layout, activations=active)
        rates = [
            switched.per_trace(side * per_side[layout.trace])[both].mean(axis=0)
            for side, per_side in ((mask, per_inside), (~mask, per_outside))
        ]
        on = switched.per_trace(both[layout.trace].astype(float))
        frames.append(
            table.with_columns(
                traces=pl.lit(count, pl.UInt32), active_traces=(on > 0).sum(axis=0), active_tokens=on.sum(axis=0),
                tokens_inside=pl.lit(int(inside[both].sum()), pl.UInt32), rate_inside=rates[0], rate_outside=rates[1],
                mean_inside=means_inside.mean(axis=0), mean_outside=means_outside.mean(axis=0),
                difference=observed, low=low, high=high, p=p, shifts=used,
            )
        )  # fmt: skip
    result = pl.concat(frames, how="diagonal_relaxed") if frames else pl.DataFrame(schema=PATTERNS_SCHEMA)
    result = complete(result, PATTERNS_SCHEMA)
    family = f"{len(layout.latents) * len(testable)} tests: recurring latents x patterns that occur"
    q = pl.Series(fdr(result["p"].fill_null(np.nan).to_numpy())).fill_nan(None)
    return result.with_columns(q=q, family=pl.lit(family)).sort("latent", "pattern")


ENTROPY_POWER = 0.7
"""α of ReasonScore (Galichin et al. 2025)."""

REASON_SCHEMA = {
    "latent": pl.UInt32,
    "score": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "mean_inside": pl.Float64,
    "mean_outside": pl.Float64,
    "entropy": pl.Float64,
    "least_without_a_word": pl.Float64,
    "that_word": pl.String,
    "p": pl.Float64,
    "q": pl.Float64,
    "shifts": pl.UInt32,
    "family": pl.String,
    "note": pl.String,
}


def reason_scores(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    matches: pl.LazyFrame,
    candidates: pl.LazyFrame,
    *,
    reason_words: str,
    condition: str,
    before: int,
    after: int,
    shifts: int,
    alpha: float,
    include_sinks: bool,
) -> pl.DataFrame:
    """Return each candidate latent's ReasonScore (Galichin et al. 2025, arXiv 2503.18878, eqs. 4 to 7).

    μ⁺ and μ⁻ are mean activations (zeros included) inside and outside the windows of all reasoning words R, μ_r inside
    those of word r; p_r = μ_r / Σ_r μ_r, H = -Σ p_r ln p_r / ln |R|; the score is (μ⁺ / Σμ⁺) H^0.7 - μ⁻ / Σμ⁻, the sums
    over all of the SAE's latents. Columns: score; low, high (95 % bootstrap over traces); mean_inside, mean_outside
    (μ⁺, μ⁻); entropy (H); least_without_a_word (the least score when one word is left out) and that_word; p, one-sided,
    from circular shifts; q over `family`; shifts; note, where no word occurs.
    """
    words = json.loads(reason_words)
    layout = design(activations, traces, latents_of(candidates), condition, include_sinks)
    found = matches.filter(pl.col("kind") == "reason_word", pl.col("condition") == condition).collect()
    masks = np.stack(
        [layout.windows(found.filter(pl.col("name") == word), before, after) for word in words]
        or [np.zeros(len(layout.trace), dtype=bool)]
    )
    family = f"{len(layout.latents)} recurring latents"
    table = pl.DataFrame({"latent": layout.latents}, schema={"latent": pl.UInt32})
    union = np.asarray(masks.any(axis=0))
    if not union.any() or union.all():
        note = "all tokens are inside the windows" if union.any() else "no reasoning word in any trace"
        return complete(table.with_columns(note=pl.lit(note), family=pl.lit(family)), REASON_SCHEMA)
    everything = np.column_stack([layout.per_trace(np.ones(len(layout.trace))), _per_trace(layout, layout.mass)])

    def sums(mask: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Per trace: activations inside with the mass of all latents as last column, and the number of tokens."""
        weights = mask.astype(float)
        inside = np.column_stack([layout.per_trace(weights), _per_trace(layout, layout.mass * weights)])
        return inside, _per_trace(layout, weights)

    of_union, of_words = sums(union), [sums(mask) for mask in masks]
    ones = np.ones((1, len(layout.trace_ids)))

    def score(weights: Floats, inside: tuple[Floats, Floats], words: Sequence[tuple[Floats, Floats]]) -> Floats:
        return _reason_score(
            weights @ inside[0], weights @ inside[1], weights @ everything, weights @ layout.lengths.astype(float),
            [(weights @ sums_of[:, :-1], weights @ count) for sums_of, count in words],
        )  # fmt: skip

    observed = score(ones, of_union, of_words)[0]
    low, high = percentiles(score(resamples(len(layout.trace_ids)), of_union, of_words))
    without = np.stack(
        [
            score(
                ones,
                sums(np.asarray(np.delete(masks, index, axis=0).any(axis=0))),
                of_words[:index] + of_words[index + 1 :],
            )[0]
            for index in range(len(words))
        ]
        if len(words) > 1
        else [np.full(len(observed), np.nan)]
    )
    least = np.where(np.isnan(without), np.inf, without)
    of_mass = replace(layout, activations=sparse.csr_array(layout.mass[:, None]))
    total, tokens = ones @ everything, ones @ layout.lengths.astype(float)

    def under_shifts(drawn: NDArray[np.int64], columns: NDArray[np.int64]) -> Floats:
        mass = shifted_sums(of_mass, union.astype(float), drawn, slice(None))
        inside = np.column_stack([shifted_sums(layout, union.astype(float), drawn, columns), mass])
        of_each = [
            (shifted_sums(layout, mask.astype(float), drawn, columns), np.array([float(mask.sum())])) for mask in masks
        ]
        known = np.append(columns, len(layout.latents))
        return _reason_score(inside, np.array([float(union.sum())]), total[:, known], tokens, of_each)

    scale = (everything.sum(axis=0) / everything.sum(axis=0)[-1])[:-1]
    most_shifts = enough_shifts(shifts, len(layout.latents), alpha)
    p, used = shift_p(layout, observed, scale, under_shifts, most_shifts, seed=0)
    inside, outside = of_union[0].sum(axis=0)[:-1], everything.sum(axis=0)[:-1]
    count = int(union.sum())
    result = table.with_columns(
        score=observed, low=low, high=high, mean_inside=inside / count,
        mean_outside=(outside - inside) / (len(union) - count),
        entropy=_entropy([(ones @ of[0][:, :-1], ones @ of[1]) for of in of_words])[0],
        least_without_a_word=np.where(np.isfinite(least.min(axis=0)), least.min(axis=0), np.nan),
        that_word=pl.Series([words[index] for index in least.argmin(axis=0)], dtype=pl.String),
        p=p, shifts=used, family=pl.lit(family),
    )  # fmt: skip
    result = complete(result, REASON_SCHEMA)
    q = pl.Series(fdr(result["p"].fill_null(np.nan).to_numpy())).fill_nan(None)
    return result.with_columns(q=q).sort("latent")


def _reason_score(
    inside: Floats, tokens_inside: Floats, total: Floats, tokens: Floats, words: Sequence[tuple[Floats, Floats]]
) -> Floats:
    """Return scores (rows, latents) from sums (rows, latents + 1), whose last column is the mass of all latents.

    Those of words are without that column.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = inside / tokens_inside[:, None]
        negative = (total - inside) / (tokens - tokens_inside)[:, None]
        entropy = _entropy(words)
        return positive[:, :-1] / positive[:, -1:] * entropy**ENTROPY_POWER - negative[:, :-1] / negative[:, -1:]


def _entropy(words: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Return H of each latent, (rows, latents): 0 where it is active in no window, 1 if there is but one word."""
    if len(words) < 2:
        return np.ones_like(words[0][0])  # as in the authors' code: one word can't be spread over
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.stack([np.where(count[:, None] > 0, sums / count[:, None], 0.0) for sums, count in words])
        shares = np.nan_to_num(means / means.sum(axis=0))
        terms: Floats = np.where(shares > 0, -shares * np.log(shares), 0.0)
    return np.asarray(terms.sum(axis=0) / np.log(len(words)))


def _per_trace(layout: Design, values: Floats) -> Floats:
    return np.bincount(layout.trace, weights=values, minlength=len(layout.trace_ids)).astype(float)


LEXICALITY_SCHEMA = {
    "latent": pl.UInt32,
    "tokens": pl.UInt32,
    "types": pl.UInt32,
    "top_1": pl.Float64,
    "top_3": pl.Float64,
    "top_10": pl.Float64,
    "entropy": pl.Float64,
    "types_90": pl.UInt32,
    "eta_squared": pl.Float64,
    "eta_squared_by_chance": pl.Float64,
    "top_tokens": pl.String,
    "lexical": pl.Boolean,
}


def lexicality(
    activations: pl.LazyFrame,
    traces: pl.LazyFrame,
    candidates: pl.LazyFrame,
    vocabulary: pl.LazyFrame,
    *,
    condition: str,
    max_top_3: float,
    include_sinks: bool,
) -> pl.DataFrame:
    """Return how much each candidate latent's activation is a matter of which token it is on.

    Columns: tokens (it is active on) and types (of these); top_1, top_3, top_10: share of its activation mass on so
    many types; entropy of the mass over types, in units of ln(all types in the traces); types_90: the fewest types that
    hold 90 % of the mass; eta_squared: share of the variance of its activation (zeros included) between token types
    (Fisher's η², between over total sum of squares), and what chance alone would give, (types - 1) / (tokens - 1);
    top_tokens: its first three types; lexical: a token detector, top_3 at least `max_top_3` (null below
    MIN_TOKENS tokens). Null where it is active on no token.
    """
    layout = design(activations, traces, latents_of(candidates), condition, include_sinks)
    labels = dict(vocabulary.select("token_id", "token").collect().iter_rows())
    kinds, kind = np.unique(layout.token_ids, return_inverse=True)
    of_type = np.bincount(kind, minlength=len(kinds)).astype(float)
    chosen = sparse.csr_array((np.ones(len(kind)), (kind, np.arange(len(kind)))), shape=(len(kinds), len(kind)))
    mass = sparse.csc_array(chosen @ layout.activations)  # (types, latents)
    squares = np.asarray(layout.activations.multiply(layout.activations).sum(axis=0)).ravel()
    tokens = len(kind)
    rows = []
    for column, latent in enumerate(layout.latents):
        part = slice(mass.indptr[column], mass.indptr[column + 1])
        order = np.lexsort((mass.indices[part], -mass.data[part]))
        values, types = mass.data[part][order], mass.indices[part][order]
        row: dict[str, Any] = {"latent": latent, "types": len(values)}
        if len(values):
            share = values / values.sum()
            total = squares[column] - values.sum() ** 2 / tokens
            between = (values**2 / of_type[types]).sum() - values.sum() ** 2 / tokens
            row |= {
                "top_1": share[:1].sum(), "top_3": share[:3].sum(), "top_10": share[:10].sum(),
                "entropy": float(-(share * np.log(share)).sum() / np.log(len(kinds))) if len(kinds) > 1 else 0.0,
                "types_90": int(np.searchsorted(np.cumsum(share), 0.9 - 1e-12) + 1),
                "eta_squared": between / total if total > 1e-12 * squares[column] else None,
                "eta_squared_by_chance": (len(kinds) - 1) / (tokens - 1) if tokens > 1 else None,
                "top_tokens": " ".join(labels[int(kinds[index])] for index in types[:3]),
            }  # fmt: skip
        rows.append(row)
    active = np.bincount(layout.activations.indices, minlength=len(layout.latents))
    table = complete(
        pl.DataFrame(rows, schema_overrides=LEXICALITY_SCHEMA, infer_schema_length=None), LEXICALITY_SCHEMA
    )
    enough = pl.col("tokens") >= MIN_TOKENS
    return (
        table.with_columns(tokens=pl.Series(active, dtype=pl.UInt32))
        .with_columns(lexical=pl.when(enough).then(pl.col("top_3") >= max_top_3))
        .sort("latent")
    )
