"""Room 9, report: a study as the report has it, read from the files of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from .. import files
from ..config import REPORT_PICTURES, REPORT_PICTURES_ACROSS, REPORT_TABLES, parse_site, traces_of
from ..evidence.matches import written
from .provenance import problem_set
from ..evidence.verdict import leading


@dataclass(frozen=True)
class Site:
    """What the page shows of a site: its SAE's info.json, and its tables and pictures by name."""

    name: str
    info: Mapping[str, Any]
    tables: Mapping[str, pl.DataFrame]
    pictures: Mapping[str, Path]

    @cached_property
    def latents(self) -> list[int]:
        """The leading latents, which have a row and a dashboard: those that the dashboards' tables are of."""
        return self.leaders["latent"].to_list()

    @cached_property
    def leaders(self) -> pl.DataFrame:
        """Their rows in the verdict."""
        shown = self.tables["latent_histograms"]["latent"].n_unique()
        return leading(self.tables["verdict"], shown)


@dataclass(frozen=True)
class Study:
    """What the page is made from. `settings` is the config with its defaults, `config` its text as the user gave it."""

    experiment: str
    conditions: Sequence[str]
    settings: Mapping[str, Any]
    config: str
    manifest: Mapping[str, Any]
    problems: Mapping[str, Any]
    traces: pl.DataFrame
    matches: pl.DataFrame
    gate: pl.DataFrame
    layers: pl.DataFrame
    sites: Sequence[Site]
    pictures: Mapping[str, Path]
    neuronpedia: str | None

    @property
    def model(self) -> str:
        """The model's name, without the requirement that stands behind it in brackets where it is from a wheel."""
        return str(self.manifest["name"]).partition(" (")[0]

    @property
    def studied(self) -> str:
        """The condition under study."""
        return self.conditions[0]

    @cached_property
    def run(self) -> list[dict[str, Any]]:
        """A row a condition: what `evidence.written` counts."""
        return written(self.traces, self.conditions)

    def pooled_gate(self, site: str) -> pl.DataFrame:
        """Return the site gate's rows of a site's SAE over all conditions, the best fit first."""
        mine = self.gate.filter(pl.col("hookpoint") == parse_site(site)[0], pl.col("condition").is_null())
        return mine.sort("fvu", nulls_last=True)


def load(
    results: Path,
    *,
    conditions: Sequence[str],
    sites: Sequence[str],
    blocks: Sequence[str],
    settings: Mapping[str, Any],
    config: str,
    neuronpedia: str | None,
) -> Study:
    """Read what the page is made from, from the folder results/{experiment}."""
    tables, plots = results / "tables", results / "plots"
    traces = [results / "traces" / condition / f"{block}.parquet" for condition in conditions for block in blocks]
    return Study(
        experiment=results.name,
        conditions=conditions,
        settings=settings,
        config=config,
        manifest=files.read_json(results / "model.json"),
        problems=problem_set(results / "problems.parquet", sum(len(traces_of(block)) for block in blocks)),
        traces=pl.concat([pl.read_parquet(path) for path in traces]),
        matches=pl.read_parquet(tables / "matches.parquet"),
        gate=pl.read_parquet(tables / "site_gate.parquet"),
        layers=pl.read_parquet(tables / "layers.parquet"),
        sites=[
            Site(
                name=site,
                info=files.read_json(results / "saes" / parse_site(site)[0] / "info.json"),
                tables={name: pl.read_parquet(tables / site / f"{name}.parquet") for name in REPORT_TABLES},
                pictures={name: plots / site / f"{name}.png" for name in REPORT_PICTURES},
            )
            for site in sites
        ],
        pictures={name: plots / f"{name}.png" for name in REPORT_PICTURES_ACROSS},
        neuronpedia=neuronpedia,
    )
