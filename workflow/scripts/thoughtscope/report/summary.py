"""The run in a page of text: what was run, what recurs where, and where to look."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ..config import parse_site
from ..evidence.checks import BY_NAME, VERDICTS, asked
from ..evidence.fit import gate_warnings
from ..evidence.matches import written
from ..evidence.recurrence import leading_latents, leading_tokens
from ..saes.record import sparsity
from . import needs, words
from .effects import sentences as of_effects
from .truth import Truth, rows, sentences
from .seeds import sentences as of_seeds
from .twins import sentences as of_twins

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
    matches: pl.DataFrame,
    headline: pl.DataFrame,
    truth: Truth | None,
    effects: Mapping[str, pl.DataFrame],
    cost: Mapping[str, pl.DataFrame],
    twins: pl.DataFrame | None,
    seeds: Mapping[str, pl.DataFrame],
    conditions: Sequence[str],
    top_latents: int,
    min_traces: int,
    alpha: float,
    max_fvu: float,
    include_sinks: bool,
) -> str:
    """Return the summary as Markdown that also reads well on a terminal. Counts are of generated tokens."""
    judged, of_studied = pl.concat(verdicts.values()), len(traces.filter(condition=conditions[0]))
    too_small = None
    if not (judged["verdict"].cast(pl.String) == VERDICTS[0]).any():
        too_small = needs.too_small(
            traces=of_studied, conditions=conditions, matches=matches, headline=headline, alpha=alpha
        )
    lines = [f"# {experiment}", ""]
    if too_small:
        lines += [too_small, ""]
    lines += [f"{manifest['name']}, {manifest['num_layers']} layers", ""]
    for row in written(traces, conditions):
        lines.append(
            f"- {row['condition']}: {row['traces']} traces, {row['tokens']} tokens written (median"
            f" {row['median']:.0f}), {row['truncated']} truncated,"
            f" {row['correct']} of {row['graded']} graded answers correct"
        )
    lines += [f"- WARNING: {line}" for line in gate_warnings(gate, max_fvu)]
    if truth:
        lines += ["", "## What was put in, and what was found", "", *(f"- {text}" for text in sentences(truth))]
        lines += _states(truth)
    if twins is not None:
        lines += ["", "## Would a twin do as well?", "", *(f"- {text}" for text in of_twins(twins))]
    if seeds:
        lines += ["", "## Would another seed of the SAEs do?", "", *(f"- {text}" for text in of_seeds(seeds))]
    if effects:
        lines += ["", "## Does the model use them?", "", *(f"- {text}" for text in of_effects(effects, cost, alpha))]
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
        lines += [words.headline(verdicts[site], too_small=too_small is not None), ""]
        lines += _leaders(table, top_tokens[site], conditions, verdicts[site])
    lines += _what_it_takes(needs.needed(judged), of_studied)
    lines += [
        "",
        f"Checks, in this order: {', '.join(check.label for check in asked(judged))};",
        "thresholds are under `analysis` in the config, each check's number and note in a site's verdict.parquet.",
        "",
        f"Look at: results/{experiment}/plots/ (pictures), results/{experiment}/tables/ (parquet),",
        f"results/{experiment}/traces/ (what the model wrote).",
        "",
    ]
    return "\n".join(lines)


def _states(truth: Truth) -> list[str]:
    """Return lines of a Markdown table of the states that were put in; none where none was."""
    table = [["state", "probe", "latents that mark it", "called", "found by", "F1"]]
    for row in rows(truth):
        numbers = [f"{row[name]:.2f}" if row[name] is not None else "-" for name in ("probe", "by_f1")]
        named = f"{row['by']} at {row['by_at']}" if row["by_at"] else "-"
        table.append([row["state"], numbers[0], str(row["marking"]), str(row["called"]), named, numbers[1]])
    return ["", *_table(table)] if len(table) > 1 else []


def _about(info: Mapping[str, Any], read_from: str) -> str:
    text = f"SAE: {info['num_latents']} latents, {sparsity(info)}"
    if heldout := info.get("heldout"):
        text += f"; held out: FVU {heldout['fvu']:.3f}, L0 {heldout['l0']:.1f}, {heldout['dead_share']:.1%} dead"
    if read_from != "hookpoint":
        text += f"; read off its site, from the {read_from}"
    return text


def _gate(gate: pl.DataFrame, hookpoint: str) -> list[str]:
    """Return in a line what the site gate found for an SAE."""
    rows = gate.filter(pl.col("condition").is_null(), pl.col("fvu").is_not_null(), hookpoint=hookpoint)
    fits = [
        f"{row['fvu']:.2f} {words.PLACES[row['place']]}{' (read)' if row['used'] else ''}"
        for row in rows.iter_rows(named=True)
    ]
    return [f"On these traces, FVU {', '.join(fits)}"] if fits else []


def _what_it_takes(rows: Sequence[needs.Needed], traces: int) -> list[str]:
    """Return lines that say for each check how many traces would decide what it leaves open."""
    advice = needs.advice(rows, traces)
    if advice is None:
        return []
    lines = ["", "## What it would take", "", advice, ""]
    for row in rows:
        text = f"- {row.check}: {words.counted(row.undecided, 'latent')} undecided"
        if row.known < row.undecided:
            text += f" (of {row.known or 'none'} it can be said what would decide it)"
        if row.known == 1:
            text += f": decided at about {row.half:,} traces"
        elif row.known:
            text += f": half decided at about {row.half:,} traces, all at about {row.all:,}"
        lines.append(text)
    return lines


def _verdict(row: Mapping[str, Any] | None) -> str:
    """Return the verdict in a table's cell: why not, what it is linked to, or what would decide it."""
    if row is None:
        return "-"
    if row["removed_by"]:
        return f"no: {BY_NAME[row['removed_by']].fails}"
    more = words.link(row["pattern"], row["window"]) if row["verdict"] == VERDICTS[0] else needs.in_words(row)
    return f"{row['verdict']}{f' ({more})' if more else ''}"


def _leaders(table: pl.DataFrame, tokens: pl.DataFrame, conditions: Sequence[str], verdict: pl.DataFrame) -> list[str]:
    """Return lines of a Markdown table of the latents that recur most in any condition, and the verdict on each."""
    found = {row["latent"]: row for row in verdict.iter_rows(named=True)}
    names = leading_latents(table, "generated", LISTED)
    table, tokens = table.filter(scope="generated"), leading_tokens(tokens, "generated")
    rows = [["latent", *conditions, "most active on", "verdict"]]
    for latent in names:
        counts = dict(table.filter(latent=latent).select("condition", pl.format("{}/{}", "traces", "of")).iter_rows())
        total = table["of"][0]
        shown = " ".join(tokens.filter(latent=latent)["token"].head(5)).replace("|", "\\|").replace("`", "'")
        counted = [counts.get(condition, f"0/{total!s}") for condition in conditions]
        rows.append([str(latent), *counted, f"`{shown}`", _verdict(found.get(latent))])
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, its columns aligned; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines
