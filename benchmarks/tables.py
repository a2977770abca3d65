"""Time and memory of the tables of one site over all traces, on synthetic blocks of activations.

    .venv/bin/python benchmarks/tables.py [--traces 100 1000] [--tokens 400] [--k 32] [--latents 65536]

Half the traces are each of two conditions. Latents' frequencies follow Zipf's law, so that hundreds recur and are
tested. Each table is made in a process of its own, so that its peak memory is its own. The exponent says how the
processor's time grows between the two last numbers of traces: 1 is in proportion.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import claims
import numpy as np
import polars as pl
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from thoughtscope import dispatch

CONFIG = yaml.safe_load((Path(__file__).parents[1] / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
ANALYSIS = {name: key["default"] for name, key in CONFIG["properties"]["analysis"]["properties"].items()}
CONDITIONS = ["reason", "direct"]
PROMPT = 100
WORDS = 2000
BLOCK = 50
SITE = "s"

STUDIED = {"condition": CONDITIONS[0]}
PATTERNS, REASON_WORDS = (CONFIG["properties"][name]["default"] for name in ("patterns", "reason_words"))
WINDOW = "window_before window_after shifts alpha include_sinks"
TABLES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "frequencies": ("recurrence", "features", "include_sinks", {}),
    "histogram": ("recurrence", "activations", "histogram_bins include_sinks", {}),
    "top_activations": ("recurrence", "activations vocabulary", "top_activations include_sinks", {}),
    "relevant_latents": ("recurrence", "features vocabulary", "top_latents include_sinks", {}),
    "recurrence": ("recurrence", "relevant=relevant_latents", "", {"inferences": 0}),
    "top_tokens": ("recurrence", "activations recurrence vocabulary", "top_tokens include_sinks", {}),
    "sinks": ("recurrence", "activations vocabulary", "", {}),
    "matches": ("matches", "traces vocabulary", "", {"patterns": json.dumps(PATTERNS), "reason_words": REASON_WORDS}),
    "pattern_counts": ("matches", "matches traces", "", {"patterns": json.dumps(PATTERNS)}),
    "controls": ("controls", "features traces", "top_latents min_traces include_sinks", {"conditions": CONDITIONS}),
    "presence": (
        "presence", "activations traces", "min_excess include_sinks", {"conditions": CONDITIONS}
    ),
    "pattern_tests": (
        "patterns", "activations traces matches vocabulary", "tokens_before tokens_after min_share include_sinks",
        {"patterns": json.dumps(PATTERNS), **STUDIED},
    ),
    "headline": ("headline", "pattern_tests presence traces", "", STUDIED),
    "candidates": (
        "candidates", "features controls relevant=relevant_latents headline", "min_traces alpha max_sink_share",
        {"site": SITE, **STUDIED},
    ),
    "contrasts": ("controls", "features traces sinks candidates", "include_sinks", {"conditions": CONDITIONS}),
    "outcomes": ("outcomes", "features traces sinks candidates", "include_sinks", STUDIED),
    "reason_scores": (
        "reason", "activations traces matches candidates=controls", WINDOW, {"reason_words": REASON_WORDS, **STUDIED}
    ),
    "lexicality": (
        "lexicality", "activations traces candidates matches vocabulary", "max_typed include_sinks", STUDIED
    ),
    "verdict": (
        "verdict", "candidates fit presence pattern_tests lexicality headline",
        "alpha min_excess min_share max_fvu max_sink_share max_typed max_twins min_effect",
        {"site": SITE, "readers": []},
    ),
}  # fmt: skip
"""Each table's module, inputs, and params: those of the config's `analysis`, and others."""


def make(folder: Path, count: int, tokens: int, k: int, latents: int) -> None:
    """Write `count` traces of each condition in blocks, the vocabulary, and how well the SAE fits."""
    from thoughtscope.readings import activations, features  # not where tables are measured: these load torch
    from thoughtscope.traces import generate as traces

    vocabulary = pl.DataFrame({"token_id": range(WORDS)}, schema={"token_id": pl.UInt32}).with_columns(
        text=pl.format(" w{}", "token_id"), token=pl.format("␣w{}", "token_id")
    )
    names = ["Wait", "maybe", "hmm", "first", "therefore", "let me", "alternatively", "4 + 5 = 9"]
    texts = vocabulary["text"].to_list()
    texts[100 : 100 + len(names)] = [f" {name}" for name in names]
    vocabulary.with_columns(text=pl.Series(texts)).write_parquet(folder / "vocabulary.parquet")
    pl.DataFrame(
        {"hookpoint": ["s"], "condition": [None], "site": ["s"], "used": [True], "fvu": [0.2], "fvu_low": [0.1],
         "fvu_high": [0.3]}, schema_overrides={"condition": pl.String},
    ).write_parquet(folder / "fit.parquet")  # fmt: skip
    weights = 1 / np.arange(1, latents + 1) ** 0.9
    edges = np.cumsum(weights / weights.sum())
    for condition in CONDITIONS:
        for first in range(0, count, BLOCK):
            chance = np.random.default_rng([CONDITIONS.index(condition), first])
            rows, table = [], []
            for trace in range(first, min(first + BLOCK, count)):
                ids = (chance.pareto(1.0, tokens) * 20).astype(int) % WORDS
                half = PROMPT + tokens // 2
                cuts = [("prompt", 0, PROMPT), ("think", PROMPT, half), ("answer", half, PROMPT + tokens)]
                table.append(
                    dict.fromkeys(traces.SCHEMA)
                    | {"trace_id": trace, "condition": condition, "prompt_ids": [0] * PROMPT,
                       "generated_ids": ids.tolist(), "correct": bool(trace % 2),
                       "finish_reason": "stop" if trace % 3 else "length",
                       "segments": [dict(zip(("segment", "start", "end"), cut, strict=True)) for cut in cuts]}
                )  # fmt: skip
                chosen = np.minimum(np.searchsorted(edges, chance.random((tokens - 1, k))), latents - 1)
                strength = chance.gamma(2.0, 1.0, (tokens - 1, k)) * (1 + chosen % 7)
                rows.append(
                    pl.DataFrame(
                        {"trace_id": trace, "condition": condition,
                         "position": np.repeat(np.arange(tokens - 1) + PROMPT, k), "token_id": np.repeat(ids[:-1], k),
                         "segment": np.repeat(np.where(np.arange(tokens - 1) < tokens // 2, "think", "answer"), k),
                         "sink": False, "latent": chosen.ravel(), "activation": strength.ravel()}
                    ).unique(["position", "latent"], keep="first", maintain_order=True)
                )  # fmt: skip
            block = pl.concat(rows).select(*activations.SCHEMA).cast(activations.SCHEMA)
            name = f"{condition}-{first:06d}.parquet"
            block.write_parquet(folder / f"activations-{name}")
            features.summarize(block).write_parquet(folder / f"features-{name}")
            pl.DataFrame(table, schema=traces.SCHEMA).write_parquet(folder / f"traces-{name}")


def run(name: str, folder: Path, count: int) -> None:
    """Make one table over the first `count` traces of each condition, from those made before; print what it took."""
    module, inputs, keys, params = TABLES[name]
    conditions = CONDITIONS[:1] if "condition" in params else CONDITIONS
    blocks = {
        kind: [folder / f"{kind}-{each}-{first:06d}.parquet" for each in conditions for first in range(0, count, BLOCK)]
        for kind in ("activations", "features", "traces")
    }
    given = {}
    for text in inputs.split():
        argument, _, table = text.partition("=")
        made = folder / f"{count}" / f"{table or argument}.parquet"
        given[argument] = pl.scan_parquet(
            blocks.get(argument) or (made if made.exists() else folder / f"{argument}.parquet")
        )
        if name == "headline" and argument in TABLES:
            given[argument] = given[argument].with_columns(site=pl.lit(SITE))
    settings = {key: ANALYSIS[key] for key in keys.split()} | params
    settings |= {"inferences": count} if "inferences" in params else {}
    function = dispatch.function(f"evidence.{module}.{name}")
    started, used = time.perf_counter(), time.process_time()
    table = function(**given, **settings)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    (folder / f"{count}").mkdir(exist_ok=True)
    table.write_parquet(folder / f"{count}" / f"{name}.parquet")
    # Not getrusage's, which begins at the peak of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 2**20
    print(json.dumps({"seconds": seconds, "cpu": cpu, "gigabytes": peak, "rows": len(table)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, nargs="+", default=[100, 1000])
    for name, default in {"tokens": 400, "k": 32, "latents": 65536}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="+", default=list(TABLES), help="tables; what they are made from comes first")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run[0], Path(options.run[1]), int(options.run[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), max(options.traces) // 2, options.tokens, options.k, options.latents)
        print(f"{'table':16}", *(f"{f'{count:,} traces':>28}" for count in options.traces), f"{'exponent':>9}")
        totals, peak = np.zeros((2, len(options.traces))), 0.0
        for name in options.only:
            took = []
            for count in options.traces:
                command = [sys.executable, __file__, "--run", name, folder, str(count // 2)]
                took.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            cells = [f"{each['seconds']:7.1f} s {each['gigabytes']:5.2f} GB {each['rows']:8,}" for each in took]
            times = [each["seconds"] for each in took], [each["cpu"] for each in took]
            totals += times
            peak = max([peak, *(each["gigabytes"] for each in took)])
            print(f"{name:16}", *(f"{cell:>28}" for cell in cells), _exponent(options.traces, times[1]), flush=True)
        print(f"{'all':16}", *(f"{f'{total:.1f} s':>28}" for total in totals[0]), _exponent(options.traces, totals[1]))
    largest, seconds = options.traces[-1], float(totals[0][-1])
    claims.claim(f"all tables of a site, {largest:,} traces", seconds, at_most=240 * max(1, largest / 1000), unit=" s")
    claims.claim(f"all tables of a site, {largest:,} traces: peak memory of a job", peak, at_most=4, unit=" GB")
    if len(options.traces) > 1:
        exponent = float(_exponent(options.traces, totals[1]))
        claims.claim("exponent of the time of all tables in the number of traces", exponent, at_most=1.1)


def _exponent(traces: list[int], seconds: Any) -> str:
    if len(traces) < 2:
        return ""
    return f"{math.log(seconds[-1] / seconds[-2]) / math.log(traces[-1] / traces[-2]):9.2f}"


if __name__ == "__main__":
    main()
