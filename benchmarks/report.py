"""Size and speed of the report at the original study's dimensions, on made-up traces.

    python benchmarks/report.py [results/taught]

Takes the tables and pictures of a finished run as they are, widens them to so many latents, traces and sites, and makes
up the activations of the traces that the reader holds: 65,536 latents of Zipf-like frequency, k = 32, 400 generated and
60 prompt tokens. Opens each page in Chromium from its file, and waits until a dashboard and a trace can be read.
"""

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from thoughtscope.config import REPORT_PICTURES, REPORT_PICTURES_ACROSS, REPORT_TABLES  # noqa: E402
from thoughtscope.report import dashboards, reader  # noqa: E402
from thoughtscope.report import page as report  # noqa: E402
from thoughtscope.report.study import Study, load  # noqa: E402

PROMPT, WRITTEN, K, LATENTS, LEADING = 60, 400, 32, 65536, 60
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def widened(table: pl.DataFrame, latents: np.ndarray) -> pl.DataFrame:
    """Give a table of latents as many as `latents`, by repeating those it has."""
    known = table["latent"].unique(maintain_order=True).to_list()
    parts = table.partition_by("latent", as_dict=True)
    copies = [
        parts[known[index % len(known)],].with_columns(latent=pl.lit(int(latent), pl.UInt32))
        for index, latent in enumerate(latents)
    ]
    return pl.concat(copies)


def files(results: Path, pattern: str) -> list[str]:
    return sorted(map(str, results.glob(pattern)))


def study_of(results: Path, traces: int, conditions: int, sites: int) -> tuple[Study, np.ndarray]:
    chance = np.random.default_rng(0)
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    given = {
        "manifest": str(results / "model.json"), "problems": str(results / "problems.parquet"),
        "traces": files(results, "traces/*/*.parquet"), "saes": files(results, "saes/trained/*/info.json"),
        "tables": [path for path in files(results, "tables/trained/*/*.parquet") if Path(path).stem in REPORT_TABLES],
        "pictures": [str(results / "plots" / f"{name}.png") for name in REPORT_PICTURES_ACROSS],
        "site_pictures": [
            path for path in files(results, "plots/trained/*/*.png") if Path(path).stem in REPORT_PICTURES
        ],
    } | {name: str(results / "tables" / f"{table}.parquet")
         for name, table in (("matches", "matches"), ("gate", "site_gate"), ("layers", "layers"),
                             ("headline", "trained/headline"), ("found", "found"), ("called", "called"))}  # fmt: skip
    given["truth"] = str(results / "truth.parquet")
    base = load(
        given, experiment=results.name, conditions=config["conditions"], settings=defaults(config), config="",
        neuronpedia=None,
    )  # fmt: skip
    labels = [base.conditions[0], *[f"control_{index}" for index in range(1, conditions)]]
    frequency = 1 / np.arange(1, LATENTS + 1) ** 0.8
    frequency = chance.permutation(frequency / frequency.sum())
    leading = np.sort(np.argsort(-frequency)[:LEADING])
    vocabulary = base.traces["generated_ids"].explode().unique().sort().to_list()
    rows = base.traces.to_dicts()
    table = []
    for condition in labels:
        for trace in range(traces):
            ids = chance.choice(vocabulary, PROMPT + WRITTEN).tolist()
            row = rows[trace % len(rows)] | {"trace_id": trace, "condition": condition}
            parts = [("prompt", 0, PROMPT), ("answer", PROMPT, PROMPT + WRITTEN)]
            row["segments"] = [dict(zip(("segment", "start", "end"), part, strict=True)) for part in parts]
            table.append(row | {"prompt_ids": ids[:PROMPT], "generated_ids": ids[PROMPT:]})
    wide = []
    for index in range(sites):
        site = base.sites[index % len(base.sites)]
        tables = {name: widened(frame, leading) if "latent" in frame.columns and len(frame) else frame
                  for name, frame in site.tables.items()}  # fmt: skip
        strips = [(int(latent), condition, trace, int(chance.integers(1, 40)), float(chance.lognormal()), 9)
                  for latent in leading for condition in labels for trace in range(traces)]  # fmt: skip
        tables["strips"] = pl.DataFrame(strips, schema=dashboards.STRIPS_SCHEMA, orient="row")
        for name in ("controls", "presence") if labels[1:] else ():
            tables[name] = pl.concat(tables[name].with_columns(control=pl.lit(label)) for label in labels[1:])
        wide.append(replace(site, name=f"layers.{4 * index + 1}.mlp", tables=tables))
    prompts = {label: {"user": "{question}"} for label in labels}
    about = {"conditions": labels, "sites": wide, "settings": base.settings | {"prompts": prompts}}
    return replace(base, traces=pl.DataFrame(table, schema=base.traces.schema), **about), frequency


def defaults(config: dict) -> dict:
    """Fill in the schema's defaults, as Snakemake's validate does."""
    from snakemake.utils import validate

    validate(config, str(ROOT / "workflow" / "schemas" / "config.schema.yaml"))
    return config


def made_up(frequency: np.ndarray):
    total = np.cumsum(frequency)

    def read(site: str, condition: str, trace: int) -> pl.DataFrame:
        chance = np.random.default_rng([trace, len(condition), int(site.split(".")[1])])
        tokens = PROMPT + WRITTEN - 1
        latents = np.empty((tokens, K), dtype=np.uint32)
        drawn = np.searchsorted(total, chance.random((tokens, 4 * K)) * total[-1])
        for token, row in enumerate(drawn):  # the first k different ones
            latents[token] = row[np.sort(np.unique(row, return_index=True)[1])[:K]]
        return pl.DataFrame(
            {"position": np.repeat(np.arange(tokens, dtype=np.uint32), K), "latent": latents.ravel(),
             "activation": chance.lognormal(0, 0.8, tokens * K).astype(np.float32),
             "sink": np.repeat(np.arange(tokens) == 0, K)}
        )  # fmt: skip

    return read


def opened(path: Path) -> tuple[float, float]:
    """Return seconds from opening a page until a dashboard can be read, and from there until a trace can."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        started = time.perf_counter()
        page.goto(path.as_uri())
        page.locator("#latents-0 tbody a").first.click()
        page.locator("#dashboard-title").wait_for()
        first = time.perf_counter() - started
        page.keyboard.press("Escape")
        started = time.perf_counter()
        page.locator("#reader-trace").select_option(index=1)
        page.locator(".trace .token").first.wait_for()
        second = time.perf_counter() - started
        browser.close()
    return first, second


def main() -> None:
    results = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "results" / "taught")
    print("traces  conditions  sites  limit MB  size MB  held  made in s  of which parcels s  dashboard s  trace s")
    for traces, conditions, sites, limit in ((32, 1, 3, 10), (32, 3, 3, 10), (500, 3, 6, 10), (500, 3, 6, 60)):
        study, frequency = study_of(results, traces, conditions, sites)
        tokens = reader.Tokens.of(pl.read_parquet(results / "vocabulary.parquet"))
        spent = 0.0

        def timed(parcels):
            nonlocal spent
            while True:
                started = time.perf_counter()
                parcel = next(parcels, None)
                spent += time.perf_counter() - started
                if parcel is None:
                    return
                yield parcel

        started = time.perf_counter()
        names = [site.name for site in study.sites]
        read = made_up(frequency)
        parcels = reader.trace_parcels(study.traces, study.matches, study.conditions, names, read, tokens, {})
        page, held = report.render(
            study, folder=ROOT / "workflow" / "report", parcels=timed(parcels), tokens=tokens, max_megabytes=limit,
            provenance={"rules": None, "stages": [], "hashes": {}, "versions": {"thoughtscope": ""}, "run": "",
                        "settings": ""},
        )  # fmt: skip
        made = time.perf_counter() - started
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "report.html"
            path.write_text(page, encoding="utf-8")
            dashboard, trace = opened(path)
        print(
            f"{traces:6} {conditions:11} {sites:6} {limit:9} {len(page.encode()) / 1e6:8.2f} {len(held):5}"
            f" {made:10.1f} {spent:19.1f} {dashboard:12.2f} {trace:8.2f}"
        )


if __name__ == "__main__":
    main()
