"""The summary, against numbers worked out by hand."""

import polars as pl

from thoughtscope.report import summary
from thoughtscope.traces import generate as traces


def trace(trace_id, condition, written, finish, correct):
    row = dict.fromkeys(traces.SCHEMA)
    return row | {"trace_id": trace_id, "condition": condition, "generated_ids": list(range(written)),
                  "finish_reason": finish, "correct": correct}  # fmt: skip


def test_summary():
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
    verdicts = pl.DataFrame(
        {"latent": [7, 5, 4, 3], "original": [True, True, True, False],
         "verdict": ["no", "thinking pattern", "undecided", "no"],
         "removed_by": ["not_merely_lexical", None, None, "not_a_sink"]}
    )  # fmt: skip
    text = summary.write(
        experiment="x", manifest={"name": "tiny", "num_layers": 4}, traces=pl.DataFrame(rows, schema=traces.SCHEMA),
        saes={"layers.1.mlp": {"num_latents": 48, "k": 4}}, gate=gate, layers=layers,
        recurrence={"layers.1.mlp": recurrence}, top_tokens={"layers.1.mlp": tokens},
        verdicts={"layers.1.mlp": verdicts},
        conditions=["reason", "direct"], top_latents=10, min_traces=2, max_fvu=0.7, include_sinks=False,
    )  # fmt: skip
    lines = text.splitlines()
    assert "- reason: 4 traces, 120 tokens written (median 25), 2 truncated, 2 of 3 graded answers correct" in lines
    assert "- direct: 4 traces, 8 tokens written (median 2), 0 truncated, 0 of 4 graded answers correct" in lines
    headline = next(line for line in lines if line.startswith("Of 4 recurring latents, "))
    assert headline.endswith(
        "1 passes all 6 checks, 1 is undecided, 2 removed, by the first they fail: 1 active on sink tokens; 1 a token"
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
