"""The run in a page of text: what was run, what recurs where, and where to look."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ..config import parse_site
from ..evidence.fit import gate_warnings
from ..evidence.matches import written
from ..evidence.recurrence import leading_latents, leading_tokens
from .words import PLACES, headline
from ..evidence.checks import BY_NAME, CHECKS

LISTED = 5
"""Latents listed for each site."""


def write(
    *,
    experiment: str,
    manifest: Mapping[str, Any],
    traces: pl.DataFrame,
    saes: Mapping[str, Mapping[str, Any]],
    gate: pl.DataFrame,
    layers: pl.DataFrame,
    recurrence: Mapping[str, pl.DataFrame],
    top_tokens: Mapping[str, pl.DataFrame],
    verdicts: Mapping[str, pl.DataFrame],
    conditions: Sequence[str],
    top_latents: int,
    min_traces: int,
    max_fvu: float,
    include_sinks: bool,
) -> str:
    """Return the summary as Markdown that also reads well on a terminal. Counts are of generated tokens."""
    lines = [f"# {experiment}", "", f"{manifest['name']}, {manifest['num_layers']} layers", ""]
    for row in written(traces, conditions):
        lines.append(
            f"- {row['condition']}: {row['traces']} traces, {row['tokens']} tokens written (median"
            f" {row['median']:.0f}), {row['truncated']} truncated,"
            f" {row['correct']} of {row['graded']} graded answers correct"
        )
    lines += [f"- WARNING: {line}" for line in gate_warnings(gate, max_fvu)]
    lines += [
        "",
        f"Recurring latents: among the top {top_latents} of a trace by maximum activation on generated tokens"
        f" (sinks {'counted' if include_sinks else 'left out'}).",
    ]
    for site, table in recurrence.items():
        hookpoint, read_from = parse_site(site)
        lines += ["", f"## {site}", "", _about(saes[hookpoint], read_from), *_gate(gate, hookpoint), ""]
        rows = {row["condition"]: row for row in layers.filter(site=site, scope="generated").iter_rows(named=True)}
        for row in (rows[condition] for condition in conditions if condition in rows):
            lines.append(
                f"- {row['condition']}: {row['active']} latents active, {row['relevant']} among the top of some trace,"
                f" {row['recurring']} of at least {min_traces}; a trace's top peak on {row['peaks']:.1f} tokens;"
                f" {row['sinks']} sinks"
            )
        lines.append("")
        lines += [headline(verdicts[site]), ""]
        lines += _leaders(table, top_tokens[site], conditions, verdicts[site])
    lines += [
        "",
        f"Checks, in this order: {', '.join(check.label for check in CHECKS)};",
        "thresholds are under `analysis` in the config, each check's number and note in a site's verdict.parquet.",
        "",
        f"Look at: results/{experiment}/plots/ (pictures), results/{experiment}/tables/ (parquet),",
        f"results/{experiment}/traces/ (what the model wrote).",
        "",
    ]
    return "\n".join(lines)


def _about(info: Mapping[str, Any], read_from: str) -> str:
    text = f"SAE: {info['num_latents']} latents, k = {info['k']}"
    if heldout := info.get("heldout"):
        text += f"; held out: FVU {heldout['fvu']:.3f}, L0 {heldout['l0']:.1f}, {heldout['dead_share']:.1%} dead"
    if read_from != "hookpoint":
        text += f"; read off its site, from the {read_from}"
    return text


def _gate(gate: pl.DataFrame, hookpoint: str) -> list[str]:
    """Return in a line what the site gate found for an SAE."""
    rows = gate.filter(pl.col("condition").is_null(), pl.col("fvu").is_not_null(), hookpoint=hookpoint)
    fits = [
        f"{row['fvu']:.2f} {PLACES[row['place']]}{' (read)' if row['used'] else ''}"
        for row in rows.iter_rows(named=True)
    ]
    return [f"On these traces, FVU {', '.join(fits)}"] if fits else []


def _leaders(table: pl.DataFrame, tokens: pl.DataFrame, conditions: Sequence[str], verdict: pl.DataFrame) -> list[str]:
    """Return lines of a Markdown table of the latents that recur most in any condition, and the verdict on each."""
    found = {row["latent"]: row for row in verdict.iter_rows(named=True)}
    names = leading_latents(table, "generated", LISTED)
    table, tokens = table.filter(scope="generated"), leading_tokens(tokens, "generated")
    rows = [["latent", *conditions, "most active on", "verdict"]]
    for latent in names:
        counts = dict(table.filter(latent=latent).select("condition", pl.format("{}/{}", "traces", "of")).iter_rows())
        total = table["of"][0]
        words = " ".join(tokens.filter(latent=latent)["token"].head(5)).replace("|", "\\|").replace("`", "'")
        row = found.get(latent)
        why = f"no: {BY_NAME[row['removed_by']].fails}" if row and row["removed_by"] else row["verdict"] if row else "-"
        counted = [counts.get(condition, f"0/{total!s}") for condition in conditions]
        rows.append([str(latent), *counted, f"`{words}`", why])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines
