"""Time and memory of all tables of one site, on synthetic blocks.

    .venv/bin/python benchmarks/tables.py [--traces 1000] [--tokens 400] [--k 32] [--latents 65536]

Half the traces are each of two conditions. Latents' frequencies follow Zipf's law, so that hundreds recur and are
tested. Tables of half the traces are made first, then of all: the ratio says how time grows. Each run is a process of
its own, so that peak memory is its own, and prints what was the peak so far after each table.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from thoughtscope.evidence import controls, patterns, verdict
from thoughtscope.evidence import recurrence as evidence
from thoughtscope.readings import activations, features
from thoughtscope.traces import generate as traces

SCHEMA = yaml.safe_load((Path(__file__).parents[1] / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8"))
CONDITIONS = ["reason", "direct"]
PROMPT = 100
WORDS = 2000


def make(folder: Path, count: int, tokens: int, k: int, latents: int) -> None:
    """Write blocks of 50 traces of each condition."""
    vocabulary = pl.DataFrame({"token_id": range(WORDS)}, schema={"token_id": pl.UInt32}).with_columns(
        text=pl.format(" w{}", "token_id"), token=pl.format("␣w{}", "token_id")
    )
    names = ["Wait", "maybe", "hmm", "first", "therefore", "let me", "alternatively", "4 + 5 = 9"]
    texts = vocabulary["text"].to_list()
    texts[100 : 100 + len(names)] = [f" {name}" for name in names]
    vocabulary.with_columns(text=pl.Series(texts)).write_parquet(folder / "vocabulary.parquet")
    weights = 1 / np.arange(1, latents + 1) ** 0.9
    edges = np.cumsum(weights / weights.sum())
    for condition in CONDITIONS:
        for first in range(0, count, 50):
            chance = np.random.default_rng([CONDITIONS.index(condition), first])
            rows, table = [], []
            for trace in range(first, min(first + 50, count)):
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
            name = f"{condition}-{first:05d}.parquet"
            block.write_parquet(folder / f"activations-{name}")
            features.summarize(block).write_parquet(folder / f"features-{name}")
            pl.DataFrame(table, schema=traces.SCHEMA).write_parquet(folder / f"traces-{name}")


def run(folder: Path, count: int) -> None:
    """Make every table over all traces below `count`, one after the other, and print each one's seconds."""

    def scan(kind: str, conditions: list[str]) -> pl.LazyFrame:
        return pl.scan_parquet(
            [folder / f"{kind}-{c}-{first:05d}.parquet" for c in conditions for first in range(0, count, 50)]
        )

    vocabulary, settings = pl.scan_parquet(folder / "vocabulary.parquet"), {"include_sinks": False}
    lexicon, words = (json.dumps(SCHEMA["properties"][name]["default"]) for name in ("patterns", "reason_words"))
    every, studied = CONDITIONS, CONDITIONS[:1]
    fit = pl.LazyFrame({"hookpoint": ["s"], "condition": [None], "site": ["s"], "used": [True], "fvu": [0.2],
                        "fvu_low": [0.1], "fvu_high": [0.3]},
                       schema_overrides={"condition": pl.String})  # fmt: skip
    window = {"condition": "reason", "window_before": 1, "window_after": 2, "shifts": 10_000, "alpha": 0.05}
    made: dict[str, pl.DataFrame] = {}

    def table(name: str, function, *inputs: pl.LazyFrame, **params) -> None:
        started = time.perf_counter()
        made[name] = function(*inputs, **params)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        seconds = time.perf_counter() - started
        print(f"  {name}: {seconds:.1f} s, {len(made[name])} rows, peak so far {peak:.1f} GB", flush=True)

    table("frequencies", evidence.frequencies, scan("features", every), **settings)
    table("histogram", evidence.histogram, scan("activations", every), histogram_bins=50, **settings)

    def relevant(frame: pl.LazyFrame) -> pl.DataFrame:
        return evidence.relevant_latents(frame, vocabulary, top_latents=10, **settings)

    # A block at a time, as the workflow does.
    blocks = [frame for kind in every for frame in map(pl.scan_parquet, sorted(folder.glob(f"features-{kind}-*")))]
    half, few = len(blocks) // 2, count // 50
    table("relevant", lambda *frames: pl.concat([relevant(frame) for frame in frames]),
          *blocks[:few], *blocks[half : half + few])  # fmt: skip
    table("recurrence", evidence.recurrence, made["relevant"].lazy(), inferences=count)
    table(
        "top_tokens",
        evidence.top_tokens,
        scan("activations", every),
        made["recurrence"].lazy(),
        vocabulary,
        top_tokens=70,
        **settings,
    )
    table("sinks", evidence.sinks, scan("activations", every), vocabulary)
    table("matches", patterns.matches, scan("traces", every), vocabulary, patterns=lexicon, reason_words=words)
    table("controls", controls.controls, scan("features", every), scan("traces", every), top_latents=10, min_traces=2,
          conditions=CONDITIONS, **settings)  # fmt: skip
    candidates, sinks, matches = (made[name].lazy() for name in ("controls", "sinks", "matches"))
    table("contrasts", controls.contrasts, scan("features", every), scan("traces", every), sinks, candidates,
          conditions=CONDITIONS, **settings)  # fmt: skip
    table("outcomes", controls.outcomes, scan("features", studied), scan("traces", studied), sinks, candidates,
          condition="reason", **settings)  # fmt: skip
    inputs = scan("activations", studied), scan("traces", studied)
    table("pattern_tests", patterns.pattern_tests, *inputs, matches, candidates, patterns=lexicon, **window, **settings)
    table(
        "reason_scores", patterns.reason_scores, *inputs, matches, candidates, reason_words=words, **window, **settings
    )
    table(
        "lexicality",
        patterns.lexicality,
        *inputs,
        candidates,
        vocabulary,
        condition="reason",
        max_top_3=0.8,
        **settings,
    )
    tests = [made[name].lazy() for name in ("pattern_tests", "lexicality", "outcomes")]
    table("verdict", verdict.verdict, candidates, fit, *tests,
          min_traces=2, alpha=0.05, min_excess=0.5, min_link=0.5, max_fvu=0.7, max_sink_share=0.5, max_top_3=0.8,
          max_length_auroc=0.8)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"traces": 1000, "tokens": 400, "k": 32, "latents": 65536}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--run", nargs=2)
    options = parser.parse_args()
    if options.run:
        run(Path(options.run[0]), int(options.run[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options.traces // 2, options.tokens, options.k, options.latents)
        seconds = []
        for count in (options.traces // 4, options.traces // 2):
            print(f"{2 * count} traces:", flush=True)
            started = time.perf_counter()
            subprocess.run([sys.executable, __file__, "--run", folder, str(count)], check=True)
            seconds.append(time.perf_counter() - started)
            print(f"  all tables: {seconds[-1]:.0f} s", flush=True)
        print(f"twice the traces took {seconds[1] / seconds[0]:.2f} times as long")


if __name__ == "__main__":
    main()
