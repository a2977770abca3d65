"""Room 6, evidence: activation inside and outside windows of tokens, and what circular shifts of them give by chance.

A pattern's window is its tokens, with some before and after. Whether a latent is more active inside than outside is
tested against circular shifts of all windows within each segment of each trace: they keep how windows and activations
are clustered, and in which segments, and break how they are aligned. (What both owe to a fixed place within a segment,
such as its start, isn't told apart; `alike` tells.) Zeros count: where a latent isn't active it has activation 0.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from ..config import SEGMENTS
from ..frames import CELLS_AT_ONCE, LATENTS_AT_ONCE, ROWS_AT_ONCE, counted
from ..statistics import MIN_TOKENS, MIN_TRACES, Floats

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """One condition's generated tokens that count (those that were read), trace after trace."""

    trace_ids: Integers
    trace: Integers
    """Each token's trace, 0 to traces - 1."""
    starts: Integers
    """Each trace's first token, and the number of tokens at the end."""
    run: Integers
    """Each token's segment of its trace, within which windows are shifted."""
    run_starts: Integers
    segment: Integers
    """Each token's kind of segment, an index of SEGMENTS."""
    positions: Integers
    token_ids: Integers
    active: pl.LazyFrame
    """A row a token and active latent: row (index of the token), latent, activation."""

    @property
    def lengths(self) -> Integers:
        """Tokens of each trace."""
        return np.diff(self.starts)

    @property
    def run_lengths(self) -> Integers:
        """Tokens of each segment of each trace."""
        return np.diff(self.run_starts)

    def per_trace(self, values: Floats) -> Floats:
        """Sum values (tokens,) within each trace, (traces,)."""
        return np.bincount(self.trace, weights=values, minlength=len(self.trace_ids)).astype(float)

    @cached_property
    def mass(self) -> Floats:
        """All latents' activation on each token."""
        sums = self.active.group_by("row").agg(pl.col("activation").cast(pl.Float64).sum()).collect(engine="streaming")
        mass = np.zeros(len(self.trace))
        mass[sums["row"].to_numpy()] = sums["activation"].to_numpy()
        return mass

    def _spans(self, matches: pl.DataFrame, before: int, after: int) -> Iterator[tuple[int, int]]:
        """Yield the tokens of each match (trace_id, start, end), with so many around it: the first, and one behind."""
        index = {int(trace_id): row for row, trace_id in enumerate(self.trace_ids)}
        for trace_id, start, end in matches.select("trace_id", "start", "end").unique().iter_rows():
            row = index.get(trace_id)
            if row is not None:
                low, high = self.starts[row], self.starts[row + 1]
                first, last = low + np.searchsorted(self.positions[low:high], [start - before, end + after])
                yield int(first), int(last)

    def windows(self, matches: pl.DataFrame, before: int, after: int) -> NDArray[np.bool_]:
        """Return which tokens are in a window of the matches (trace_id, start, end), shape (tokens,)."""
        mask = np.zeros(len(self.trace), dtype=bool)
        for first, last in self._spans(matches, before, after):
            mask[first:last] = True
        return mask

    def beside(self, matches: pl.DataFrame, before: int, after: int) -> tuple[NDArray[np.bool_], ...]:
        """Return which tokens are before, in and after matches (trace_id, start, end), each (tokens,).

        Up to `before` and `after` tokens from one, within its segment, those in any match left out.
        """
        edges = np.zeros((3, len(self.trace) + 1), dtype=np.int64)
        for first, last in self._spans(matches, 0, 0):
            if first == last:  # none of its tokens counts
                continue
            earliest, latest = self.run_starts[self.run[first]], self.run_starts[self.run[last - 1] + 1]
            for window, (begin, stop) in enumerate(
                ((max(earliest, first - before), first), (first, last), (last, min(latest, last + after)))
            ):
                edges[window, begin] += 1
                edges[window, stop] -= 1
        earlier, inside, later = np.cumsum(edges, axis=1)[:, :-1] > 0
        return earlier & ~inside, inside, later & ~inside

    @cached_property
    def _sizes(self) -> dict[int, int]:
        """On how many tokens each latent is active."""
        counts = self.active.group_by("latent").agg(pl.len()).collect(engine="streaming")
        return dict(counts.iter_rows())

    def parts(self, latents: Sequence[int], alike: "Layout | None" = None) -> Iterator["Activations"]:
        """Yield what the latents do on the tokens, some latents at a time; one part at least.

        So many that they are no more than LATENTS_AT_ONCE, or have no more than CELLS_AT_ONCE numbers of a trace, and
        about ROWS_AT_ONCE activations, here and in the layout `alike` together, whose parts are of the same latents.
        """
        names = np.array(sorted(latents), dtype=np.int64)
        sizes = dict(self._sizes)
        for latent, size in (alike._sizes if alike else {}).items():
            sizes[latent] = sizes.get(latent, 0) + size
        before = np.cumsum([0, *(sizes.get(latent, 0) for latent in names[:-1])])
        most = max(LATENTS_AT_ONCE, CELLS_AT_ONCE // max(1, len(self.trace_ids)))
        group = np.stack([before[: len(names)] // ROWS_AT_ONCE, np.arange(len(names)) // most])
        for part in np.split(names, np.flatnonzero(np.diff(group).any(axis=0)) + 1):
            rows = self.active.filter(pl.col("latent").is_in(part.tolist())).collect(engine="streaming")
            columns = np.searchsorted(part, rows["latent"].to_numpy())
            values = rows["activation"].to_numpy().astype(np.float64)
            shape = (len(self.trace), len(part))
            yield Activations(self, part, sparse.csr_array((values, (rows["row"].to_numpy(), columns)), shape=shape))

    def each(self, latents: Sequence[int]) -> Iterator[tuple[int, Floats]]:
        """Yield each of some latents, in order, with its activation on every token, (tokens,)."""
        for part in self.parts(latents):
            for column, latent in enumerate(part.latents):
                yield int(latent), part.by_latent[:, [column]].toarray().ravel()


@dataclass(frozen=True)
class Activations:
    """What some latents do on the tokens of a layout."""

    layout: Layout
    latents: Integers
    values: sparse.csr_array
    """(tokens, latents)."""

    @cached_property
    def by_latent(self) -> sparse.csc_array:
        """The values, column by column."""
        return sparse.csc_array(self.values)

    @property
    def switched_on(self) -> "Activations":
        """The same with 1 for every activation."""
        values = self.values
        ones = sparse.csr_array((np.ones_like(values.data), values.indices, values.indptr), shape=values.shape)
        return Activations(self.layout, self.latents, ones)

    def per_trace(self, weights: NDArray[Any]) -> Floats:
        """Sum weighted activations within each trace: (traces, latents), from weights (tokens,)."""
        of_token, cell = self._cells
        shape = (len(self.layout.trace_ids), len(self.latents))
        sums = np.bincount(cell, weights=weights[of_token] * self.values.data, minlength=shape[0] * shape[1])
        return np.asarray(sums, dtype=float).reshape(shape)

    @cached_property
    def _cells(self) -> tuple[Integers, Integers]:
        """Each activation's token, and its place in a table (traces, latents)."""
        of_token = np.repeat(np.arange(len(self.layout.trace)), np.diff(self.values.indptr))
        return of_token, self.layout.trace[of_token] * len(self.latents) + self.values.indices

    def shifted_sums(self, weights: Floats, shifts: Integers, columns: Integers | slice) -> Floats:
        """Return Σ weight · activation over all tokens, weights shifted circularly within each segment of a trace.

        weights: (tokens,); shifts: (shifts, runs), how far; the result is (shifts, columns).
        """
        layout, inside = self.layout, np.flatnonzero(weights)
        values = self.by_latent[:, columns]
        if len(inside) == 0 or values.nnz == 0:
            return np.zeros((len(shifts), values.shape[1]))
        if values.nnz < len(inside):
            # Few activations: look up the weight that each one meets, which was shifted there from so far before it.
            of, low = layout.run[values.indices], layout.run_starts[layout.run[values.indices]]
            met = weights[low + (values.indices - low - shifts[:, of]) % layout.run_lengths[of]] * values.data
            firsts = np.flatnonzero(np.diff(values.indptr))
            sums = np.zeros((len(shifts), values.shape[1]))
            sums[:, firsts] = np.add.reduceat(met, values.indptr[firsts], axis=1)
            return sums
        of, low = layout.run[inside], layout.run_starts[layout.run[inside]]
        moved = low + (inside - low + shifts[:, of]) % layout.run_lengths[of]
        masks = sparse.csr_array(
            (np.tile(weights[inside], len(shifts)), moved.ravel(), np.arange(len(shifts) + 1) * len(inside)),
            shape=(len(shifts), len(layout.trace)),
        )
        return np.asarray((masks @ values).todense(), dtype=float)


def testable(layout: Layout) -> list[int]:
    """Return the latents that are active on MIN_TOKENS tokens and in MIN_TRACES traces at least."""
    of_row = pl.LazyFrame({"row": np.arange(len(layout.trace)), "trace": layout.trace})
    counts = (
        layout.active.with_columns(pl.col("row").cast(pl.Int64))
        .join(of_row, on="row")
        .group_by("latent")
        .agg(tokens=pl.len(), traces=pl.col("trace").n_unique())
        .filter(pl.col("tokens") >= MIN_TOKENS, pl.col("traces") >= MIN_TRACES)
    )
    return counts.select(pl.col("latent").sort()).collect(engine="streaming")["latent"].to_list()


def lay_out(activations: pl.LazyFrame, traces: pl.LazyFrame, condition: str, include_sinks: bool) -> Layout:
    """Lay out one condition's generated tokens: those that were read, without sinks unless included."""
    written = (
        traces.filter(pl.col("condition") == condition)
        .select(
            "trace_id",
            token_id=pl.col("generated_ids").list.head(pl.col("generated_ids").list.len() - 1),
            start=pl.col("prompt_ids").list.len(),
            cuts=pl.col("segments").list.eval(pl.element().struct.field("start")),
            names=pl.col("segments").list.eval(
                pl.element().struct.field("segment").cast(pl.Enum(SEGMENTS)).to_physical()
            ),
        )
        .sort("trace_id")
        .collect()
    )
    tokens = (
        written.lazy()
        .drop("cuts", "names")
        .explode("token_id", empty_as_null=False)
        .with_columns(position=pl.col("start") + pl.int_range(pl.len(), dtype=pl.UInt32).over("trace_id"))
    )
    rows = activations.filter(pl.col("condition") == condition, pl.col("segment") != "prompt")
    if not include_sinks:
        flagged = rows.filter("sink").select("trace_id", "position").unique()
        tokens = tokens.join(flagged, on=["trace_id", "position"], how="anti", maintain_order="left")
    table = tokens.collect().with_row_index("row")
    trace_ids = written["trace_id"].to_numpy().astype(np.int64)
    trace = np.searchsorted(trace_ids, table["trace_id"].to_numpy())
    starts = np.searchsorted(trace, np.arange(len(trace_ids) + 1))
    positions = table["position"].to_numpy().astype(np.int64)
    part, segment = np.zeros((2, len(positions)), dtype=np.int64)
    for row, (cuts, names) in enumerate(written.select("cuts", "names").iter_rows()):
        of_trace = slice(starts[row], starts[row + 1])
        part[of_trace] = np.searchsorted(cuts, positions[of_trace], side="right")
        segment[of_trace] = np.asarray(names)[part[of_trace] - 1]
    changes = np.flatnonzero((np.diff(trace) != 0) | (np.diff(part) != 0)) + 1
    run_starts = np.concatenate([[0], changes, [len(positions)]]) if len(positions) else np.zeros(1, dtype=np.int64)
    return Layout(
        trace_ids=trace_ids,
        trace=trace,
        starts=starts,
        run=np.repeat(np.arange(len(run_starts) - 1), np.diff(run_starts)),
        run_starts=run_starts,
        segment=segment,
        positions=positions,
        token_ids=table["token_id"].to_numpy().astype(np.int64),
        active=counted(rows, include_sinks)
        .join(table.lazy().select("trace_id", "position", "row"), on=["trace_id", "position"])
        .select("row", "latent", "activation"),
    )


SHIFTS_AT_ONCE = 100
"""Shifts whose masks are held at a time."""

FIRST_SHIFTS = 1000
"""Shifts for every latent; more only for those that fewer than ENOUGH of these exceed."""

ENOUGH = 10
"""Exceeding shifts after which a p value is known well enough (Besag and Clifford 1991)."""


class Shifted(NamedTuple):
    """What shifts say of latents, each (latents,)."""

    p: Floats
    """One-sided: (1 + exceeding) / (1 + shifts)."""
    shifts: Integers
    """How many shifts that is from."""


def shift_p(
    run_lengths: Integers,
    observed: Floats,
    scale: Floats,
    statistic: Callable[[Integers, Integers], Floats],
    shifts: int,
    seed: int,
) -> Shifted:
    """Return the p of each latent's observed statistic.

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
        drawn = chance.integers(0, np.maximum(run_lengths, 1), size=(count, len(run_lengths)))
        values = statistic(drawn, columns)
        # Rounding must not make a tie an exceedance or the contrary.
        exceeding[columns] += (values >= observed[columns] - 1e-9 * scale[columns]).sum(axis=0)
        used[columns] += count
        if used.max() >= min(FIRST_SHIFTS, shifts):
            columns = columns[exceeding[columns] < ENOUGH]
    return Shifted(np.where(np.isfinite(observed), (1 + exceeding) / (1 + used), np.nan), used)


def enough_shifts(shifts: int, tests: int, alpha: float) -> int:
    """Return how many shifts to draw at most: `shifts`, or as many as let a single one of `tests` reach q < alpha."""
    return max(shifts, math.ceil(tests / alpha) + 1)
