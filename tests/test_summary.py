"""The summary, against numbers worked out by hand."""

import polars as pl

from thoughtscope.evidence.checks import BY_NAME
from thoughtscope.evidence.headline import SCHEMA as HEADLINE
from thoughtscope.evidence.verdict import SCHEMA
from thoughtscope.frames import complete
from thoughtscope.report import summary
from thoughtscope.traces import generate as traces


def trace(trace_id, condition, written, finish, correct):
    row = dict.fromkeys(traces.SCHEMA)
    return row | {"trace_id": trace_id, "condition": condition, "generated_ids": list(range(written)),
                  "finish_reason": finish, "correct": correct}  # fmt: skip


def judged(*verdicts):
    """A verdict's table of latents 7, 5, 4, 3; an undecided one is so for its link, and 90 traces would decide it."""
    rows = []
    for latent, (verdict, removed) in zip((7, 5, 4, 3), verdicts, strict=True):
        row = dict.fromkeys(BY_NAME, "pass") | {"latent": latent, "original": True, "verdict": verdict}
        if verdict == "undecided":
            row |= {"pattern_linked": "undecided", "pattern_linked_needs": 90, "needs": 90}
        elif removed is None:
            row |= {"pattern": "planning", "window": "before"}
        rows.append(row | {"removed_by": removed})
    return complete(pl.DataFrame(rows, infer_schema_length=None), SCHEMA)


def written(verdicts):
    """The summary of a study of four problems, with reflection in all traces."""
    matches = pl.DataFrame({"kind": "pattern", "name": "reflection", "condition": "reason", "trace_id": range(4)})
    of_headline = complete(pl.DataFrame({"latent": [7], "links": 2, "family": 1}), HEADLINE)
    written = [(10, "stop", True), (20, "stop", False), (30, "length", None), (60, "length", True)]
    rows = [trace(index, "reason", *row) for index, row in enumerate(written)]
    rows += [trace(index, "direct", 2, "stop", False) for index in range(4)]
    recurrence = pl.DataFrame(
        {"scope": ["generated"] * 3, "condition": ["reason", "direct", "reason"], "latent": [7, 7, 9],
         "traces": [3, 1, 2], "of": [4] * 3, "mean_rank": [1.0, 2.0, 1.5]}
    )  # fmt: skip
    tokens = pl.DataFrame(
        {"scope": ["generated"] * 3, "condition": ["reason"] * 3, "latent": [7, 7, 9], "token_id": [1, 2, 3],
         "token": ["␣wait", "|`", "so"], "max": [2.0, 1.0, 3.0]}
    )  # fmt: skip
    layers = pl.DataFrame(
        {"site": ["layers.1.mlp"] * 2, "condition": ["direct", "reason"], "scope": ["generated"] * 2,
         "active": [11, 12], "relevant": [3, 4], "recurring": [1, 2], "peaks": [1.25, 3.5], "sinks": [0, 2]}
    )  # fmt: skip
    gate = pl.DataFrame(
        {"hookpoint": ["layers.1.mlp"] * 3, "condition": [None, None, "reason"], "place": ["site", "below", "site"],
         "site": ["layers.1.mlp", "layers.0.mlp", "layers.1.mlp"], "used": [True, False, True],
         "fvu": [0.8123, 0.9, 0.5]}
    )  # fmt: skip
    return summary.write(
        experiment="x", manifest={"name": "tiny", "num_layers": 4}, traces=pl.DataFrame(rows, schema=traces.SCHEMA),
        saes={"layers.1.mlp": {"num_latents": 48, "k": 4}}, gate=gate, layers=layers,
        recurrence={"layers.1.mlp": recurrence}, top_tokens={"layers.1.mlp": tokens},
        verdicts={"layers.1.mlp": verdicts}, matches=matches, headline=of_headline, truth=None, effects={}, cost={},
        twins=None,
        seeds={},
        conditions=["reason", "direct"], top_latents=10, min_traces=2, alpha=0.05, max_fvu=0.7, include_sinks=False,
    )  # fmt: skip


FOUND = [("no", "not_merely_lexical"), ("thinking pattern", None), ("undecided", None), ("no", "not_a_sink")]


def test_summary():
    text = written(judged(*FOUND))
    lines = text.splitlines()
    assert lines[2] == "tiny, 4 layers"
    assert "- reason: 4 traces, 120 tokens written (median 25), 2 truncated, 2 of 3 graded answers correct" in lines
    assert "- direct: 4 traces, 8 tokens written (median 2), 0 truncated, 0 of 4 graded answers correct" in lines
    headline = next(line for line in lines if line.startswith("Of 4 candidate latents, "))
    assert headline.endswith(
        "1 passes all 8 checks, 1 is undecided, 2 removed, by the first they fail: 1 active on sink tokens; 1 a token"
        " detector."
    )
    assert any(line.startswith("| 7 ") and "no: a token detector" in line for line in lines)
    of_site = [line for line in lines if "latents active" in line]
    assert of_site[0].startswith("- reason: 12 latents active, 4 among the top of some trace, 2 of at least 2")
    assert of_site[0].endswith("peak on 3.5 tokens; 2 sinks")
    assert "On these traces, FVU 0.81 at its site (read), 0.90 one block below" in lines
    warned = [line for line in lines if line.startswith("- WARNING: ")]
    assert len(warned) == 1
    assert "layers.1.mlp: the SAE leaves 81% of the variance unexplained (FVU 0.812" in warned[0]
    assert of_site[1].startswith("- direct: 11")
    assert any("3/4" in line and "1/4" in line and "`␣wait \\|'`" in line for line in lines)
    assert any("2/4" in line and "0/4" in line and "`so`" in line for line in lines)
    # What is left open, and what would decide it, with the command; before the checks are named.
    at = lines.index("## What it would take")
    assert lines[at + 2].startswith(
        "1 latent is undecided. If traces went on like the 4 there are, about 90 a condition"
    )
    assert "`snakemake --cores all --config inferences=90`" in lines[at + 2]
    assert lines[at + 4 : at + 7] == [
        "- pattern linked: 1 latent undecided: decided at about 90 traces",
        "- verdict: 1 latent undecided: decided at about 90 traces",
        "",
    ]
    assert lines[at + 7].startswith("Checks, in this order: ")


def test_a_summary_says_what_would_decide_a_latent_and_what_it_is_linked_to():
    """Of latents 7 and 9 only the first is judged."""
    for verdict, cell in ((("undecided", None), "undecided (about 90 traces would decide it)"),
                          (("thinking pattern", None), "thinking pattern (planning: leads to it)")):  # fmt: skip
        lines = written(judged(verdict, *FOUND[1:])).splitlines()
        assert [line.strip(" |").endswith(cell) for line in lines if line.startswith(("| 7 ", "| 9 "))] == [True, False]


def test_a_summary_of_too_small_a_study_says_so_first():
    """Four problems can't tell anything; what passed nevertheless is said as ever."""
    lines = written(judged(*[("undecided", None)] * 3, FOUND[0])).splitlines()
    assert lines[2].startswith("This study is too small to find a thinking pattern: it has 4 problems")
    assert lines[4] == "tiny, 4 layers"
    assert (
        "The study is too small to find a thinking pattern; of 4 candidate latents, 3 are undecided, 1 removed,"
        in next(line for line in lines if "candidate" in line)
    )
    assert not any("none passes" in line for line in lines)
    at = lines.index("- pattern linked: 3 latents undecided: half decided at about 90 traces, all at about 90")
    assert lines.index("## What it would take") < at
    partly = judged(*[("undecided", None)] * 3, FOUND[0]).with_columns(
        pattern_linked_needs=pl.Series([90, None, 1000, None]), needs=pl.lit(None)
    )
    assert [line for line in written(partly).splitlines() if " undecided (of" in line] == [
        "- pattern linked: 3 latents undecided (of 2 it can be said what would decide it): half decided at about 90"
        " traces, all at about 1,000",
        "- verdict: 3 latents undecided (of none it can be said what would decide it)",
    ]
    decided = written(judged(*[FOUND[0]] * 4))
    assert "What it would take" not in decided
