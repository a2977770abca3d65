"""Room 9, report: a study as the report has it, read from the files of a run."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from .. import files, paths
from ..config import parse_site
from ..evidence.checks import Check, asked
from ..evidence.matches import written
from ..evidence.verdict import leading
from .provenance import problem_set
from .truth import Truth


@dataclass(frozen=True)
class Site:
    """What the page shows of a site: its SAE's info.json, and its tables and pictures by name."""

    name: str
    info: Mapping[str, Any]
    tables: Mapping[str, pl.DataFrame]
    pictures: Mapping[str, str]

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
    headline: pl.DataFrame
    sites: Sequence[Site]
    pictures: Mapping[str, str]
    neuronpedia: str | None
    truth: Truth | None
    """What is known of a taught model; none of any other."""
    effects: Mapping[str, pl.DataFrame]
    """What taking latents away did, by site; nothing where none was."""
    cost: Mapping[str, pl.DataFrame]
    """What reconstructions in place of states cost the model, by site, likewise."""
    steered: Mapping[str, pl.DataFrame]
    """What steering by latents changed, by site, likewise."""
    attribution: Mapping[str, pl.DataFrame]
    """What gradients predict of taking latents away, by site, likewise."""
    token_effects: Mapping[str, pl.DataFrame]
    """What taking latents away changed token by token, by site, likewise."""
    token_changes: Mapping[str, pl.DataFrame]
    """Which tokens latents make likelier when they are held high, by site, likewise."""
    responses: Mapping[str, pl.DataFrame]
    """What cues put into other text, or left out, do to latents, by site, likewise."""
    weighted_tests: Mapping[str, pl.DataFrame]
    """The link tests with each match weighted by how likely it was, by site, likewise."""
    stable_patterns: pl.DataFrame | None
    """How likely the model was to write each pattern where it did; none without interventions."""
    twins: pl.DataFrame | None
    """How much the twins have of what is found; none without twins."""
    seeds: Mapping[str, pl.DataFrame]
    """What another seed of the SAEs has of their latents, by site; nothing without one."""

    @property
    def model(self) -> str:
        """The model's name, without the requirement that stands in it in brackets where it is from a wheel."""
        return re.sub(r" \(.*?\)", "", str(self.manifest["name"]))

    @property
    def studied(self) -> str:
        """The condition under study."""
        return self.conditions[0]

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        """The checks that candidates were put to."""
        return asked(pl.concat(site.tables["verdict"] for site in self.sites))

    @cached_property
    def run(self) -> list[dict[str, Any]]:
        """A row a condition: what `evidence.written` counts."""
        return written(self.traces, self.conditions)

    def pooled_gate(self, site: str) -> pl.DataFrame:
        """Return the site gate's rows of a site's SAE over all conditions, the best fit first."""
        of_sae = self.gate.filter(pl.col("hookpoint") == parse_site(site)[0], pl.col("condition").is_null())
        return of_sae.sort("fvu", nulls_last=True)


def load(
    given: Mapping[str, Any],
    *,
    experiment: str,
    conditions: Sequence[str],
    settings: Mapping[str, Any],
    config: str,
    neuronpedia: str | None,
) -> Study:
    """Read what the page is made from, from the files that rule report names; what each is of, its path says.

    given: `manifest`, `problems`, `traces` (by condition and block), `matches`, `gate`, `layers`, `headline`, `saes`
    (the info.json of each), `pictures` (across sites), `tables` and `site_pictures`, site after site in the order of
    the page; of a taught model `truth`, `found` and `called`; where latents were taken away `effects`, `cost`,
    `attribution`, `token_effects`, `token_changes`, `responses`, `weighted_tests` and `stable_patterns`;
    where traces were steered `steered`, site after site; with twins `twins`; and with SAEs of another seed `seeds`.
    """
    traces = files.read_parquet(given["traces"])
    infos = paths.by("hookpoint", paths.SAE_INFO, given["saes"])
    pictures = _by_site(paths.SITE_PICTURE, "picture", given["site_pictures"])
    return Study(
        experiment=experiment,
        conditions=conditions,
        settings=settings,
        config=config,
        manifest=files.read_json(given["manifest"]),
        problems=problem_set(given["problems"], traces["trace_id"].n_unique()),
        traces=traces,
        sites=[
            Site(
                name=site,
                info=files.read_json(infos[parse_site(site)[0]]),
                tables={name: files.read_parquet(path) for name, path in tables.items()},
                pictures=pictures[site],
            )
            for site, tables in _by_site(paths.SITE_TABLE, "table", given["tables"]).items()
        ],
        pictures=paths.by("picture", paths.STUDY_PICTURE, given["pictures"]),
        neuronpedia=neuronpedia,
        effects=of_sites(given, "effects"),
        cost=of_sites(given, "cost"),
        steered=of_sites(given, "steered"),
        attribution=of_sites(given, "attribution"),
        token_effects=of_sites(given, "token_effects"),
        token_changes=of_sites(given, "token_changes"),
        responses=of_sites(given, "responses"),
        weighted_tests=of_sites(given, "weighted_tests"),
        stable_patterns=files.read_parquet(given["stable_patterns"]) if "stable_patterns" in given else None,
        twins=files.read_parquet(given["twins"]) if "twins" in given else None,
        seeds=of_sites(given, "seeds"),
        truth=truth_of(given, settings["teach"], len(traces.filter(condition=conditions[0]))),
        **{name: files.read_parquet(given[name]) for name in ("matches", "gate", "layers", "headline")},
    )


def truth_of(given: Mapping[str, Any], teach: Mapping[str, Any] | None, traces: int) -> Truth | None:
    """Read what is known of a taught model from the files that a rule names; traces: of the condition under study."""
    if teach is None:
        return None
    tables = {name: files.read_parquet(given[name]) for name in ("truth", "found", "called")}
    return Truth(kind=teach["kind"], traces=traces, **tables)


def of_sites(given: Mapping[str, Any], name: str) -> dict[str, pl.DataFrame]:
    """Read a table of each site from the files that a rule names, by site; nothing where it names none."""
    listed = paths.by("site", paths.SITE_TABLE, given.get(name, []))
    return {site: files.read_parquet(path) for site, path in listed.items()}


def _by_site(pattern: str, name: str, listed: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return files by site, and by what they are called at the level `name`."""
    found: dict[str, dict[str, str]] = {}
    for path in listed:
        level = paths.parse(pattern, path)
        found.setdefault(level["site"], {})[level[name]] = path
    return found
