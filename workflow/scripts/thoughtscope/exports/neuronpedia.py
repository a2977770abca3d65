"""A study's leading latents as Neuronpedia's own exports are laid out, which it reads: a folder a site.

Each has release.jsonl, model.jsonl, sourceset.jsonl and source.jsonl, and in features/, activations/ and explanations/
a line a latent, a passage and a rule. Field names and types are those of the database models of its utilities. What a
study doesn't know (neurons, the distribution of all logits) is empty there. Who uploads it puts the own id in place
of CREATOR.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from .. import api
from ..config import layer_of, parse_site
from ..report.dashboards import BANDS
from .saelens import hook_name

STREAM = {"residual_in": "hook_resid_pre", "residual_out": "hook_resid_post"}
"""What TransformerLens calls the residual stream that enters and leaves a block."""

CREATOR = "thoughtscope"
"""Stands for the id of who uploads."""


def neuronpedia(study: api.Study, folder: Path, made: datetime, *, condition: str) -> list[str]:
    """Write the leading latents of a study's sites to `folder`; return the sources' ids.

    made: when; condition: the one under study, which passages are of.
    """
    model = re.sub(r"[^a-z0-9.]+", "-", study.model["name"].split(" (")[0].rpartition("/")[2].lower()).strip("-")
    group, when = re.sub(r"[^a-z0-9]+", "-", study.folder.name.lower()), made.astimezone(UTC).isoformat()
    sources = []
    for site in map(study.site, study.sites):
        hookpoint, read_from = parse_site(site.name)
        suffix = "" if read_from == "hookpoint" else f"__{read_from.replace('_', '-')}"
        source = f"{layer_of(hookpoint)}-{group}{suffix}"
        sources.append(source)
        of_all = {"creatorId": CREATOR, "createdAt": when}
        keys = {"modelId": model, "layer": source}
        out = folder / model / source
        out.mkdir(parents=True)
        name = f"{study.folder.name} (thoughtscope)"
        _lines(out / "release.jsonl", [{"name": group, "description": name, "descriptionShort": name, "urls": [],
                                        "creatorName": CREATOR, "creatorNameShort": CREATOR} | of_all])  # fmt: skip
        about = {"id": model, "instruct": "instruct" in model, "displayNameShort": model, "displayName": model}
        about |= {"layers": study.model["num_layers"], "dimension": study.model["hidden_size"], "updatedAt": when}
        _lines(out / "model.jsonl", [about | of_all])
        said = f"{site.name}, {site.sae['num_latents']:,} latents"
        hook = hook_name(hookpoint, study.model)
        if read_from != "hookpoint":
            hook = f"blocks.{layer_of(hookpoint)}.{STREAM[read_from]}"
        about = {"modelId": model, "name": group, "description": said, "visibility": "PRIVATE", "releaseName": group}
        _lines(out / "sourceset.jsonl", [about | {"creatorName": CREATOR} | of_all])
        traces = study.traces(condition).select(pl.len()).collect().item()
        about = {"id": source, "modelId": model, "setName": group, "visibility": "PRIVATE"}
        about |= {"notes": f"{hook}; traces under {condition}", "dataset": study.folder.name}
        about |= {"num_prompts": traces}
        _lines(out / "source.jsonl", [about | of_all])
        passages = list(_activations(study, site, condition, keys | of_all))
        rows = {"features": _features(study, site, condition, keys | of_all, passages), "activations": passages,
                "explanations": _explanations(site, keys | {"createdAt": when})}  # fmt: skip
        for name, each in rows.items():
            (out / name).mkdir()
            _lines(out / name / "batch-0.jsonl.gz", each)
    return sources


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode("utf-8")
    path.write_bytes(gzip.compress(text, 6, mtime=0) if path.suffix == ".gz" else text)


def _id(*of: Any) -> str:
    """Return an id as Neuronpedia's are, 25 letters and digits, the same for the same thing."""
    return "c" + hashlib.sha256(json.dumps(of).encode()).hexdigest()[:24]


def _of_latents(table: pl.LazyFrame, condition: str | None = None) -> dict[int, list[dict[str, Any]]]:
    rows = table.filter(pl.col("condition") == condition) if condition else table
    return {key[0]: part.to_dicts() for key, part in rows.collect().partition_by("latent", as_dict=True).items()}


def _texts(study: api.Study) -> dict[int, str]:
    """Return each token's text; the label of one that is only part of a character."""
    broken = pl.col("text").str.contains("\ufffd", literal=True)
    return dict(study.vocabulary.select("token_id", pl.when(broken).then("token").otherwise("text")).iter_rows())


def _features(
    study: api.Study,
    site: api.Site,
    condition: str,
    keys: Mapping[str, Any],
    passages: Iterable[Mapping[str, Any]],
) -> Iterable[dict[str, Any]]:
    """Yield a line a latent."""
    text = _texts(study)
    logits, near = (_of_latents(site.table(name)) for name in ("logit_effects", "coactivation"))
    most: dict[str, float] = {}
    for passage in passages:
        most[passage["index"]] = max(most.get(passage["index"], 0.0), passage["maxValue"])
    for latent, (row,) in _of_latents(site.table("latent_histograms"), condition).items():
        bins = len(row["counts"])
        sides = {side: [each for each in logits.get(latent, []) if each["side"] == side] for side in ("top", "bottom")}
        yield {
            **keys, "index": str(latent), "maxActApprox": most.get(str(latent), 0.0), "hasVector": False, "vector": [],
            "vectorLabel": None, "vectorDefaultSteerStrength": None, "hookName": None, "topkCosSimIndices": [],
            "topkCosSimValues": [], "neuron_alignment_indices": [], "neuron_alignment_values": [],
            "neuron_alignment_l1": [], "correlated_neurons_indices": [], "correlated_neurons_pearson": [],
            "correlated_neurons_l1": [],
            "correlated_features_indices": [each["neighbour"] for each in near.get(latent, [])],
            "correlated_features_pearson": [each["phi"] for each in near.get(latent, [])],
            "correlated_features_l1": [],
            "pos_str": [text[each["token_id"]] for each in sides["top"]],
            "pos_values": [each["effect"] for each in sides["top"]],
            "neg_str": [text[each["token_id"]] for each in sides["bottom"]],
            "neg_values": [each["effect"] for each in sides["bottom"]],
            "frac_nonzero": row["tokens_active"] / max(1, row["tokens"]),
            "freq_hist_data_bar_heights": row["counts"],
            "freq_hist_data_bar_values": [row["largest"] * (place + 0.5) / bins for place in range(bins)],
            "logits_hist_data_bar_heights": [], "logits_hist_data_bar_values": [], "decoder_weights_dist": [],
        }  # fmt: skip


def _activations(study: api.Study, site: api.Site, condition: str, keys: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield a line a passage; lossValues: by how much taking the latent away raises the loss at each token (nats)."""
    text = _texts(study)
    quartiles = {latent: rows[0]["quartiles"] for latent, rows in
                 _of_latents(site.table("latent_histograms"), condition).items()}  # fmt: skip
    changes: dict[tuple[int, int], dict[int, float]] = {}
    if "token_effects" in site.tables:
        for latent, trace, position, change in (
            site.table("token_effects").select("latent", "trace_id", "position", "change").collect().iter_rows()
        ):
            changes.setdefault((latent, trace), {})[position] = change
    for row in site.table("passages").collect().iter_rows(named=True):
        latent, start, quarter = row["latent"], row["start"], 4 - BANDS.index(row["band"])
        values = [value or 0.0 for value in row["values"]]  # the last token was never read
        changed = changes.get((latent, row["trace_id"]))
        low, high = (None, None) if quarter == 4 else quartiles[latent][quarter : quarter + 2]
        yield {
            "id": _id(keys["modelId"], keys["layer"], latent, row["band"], row["rank"]),
            "tokens": [text.get(token, "") for token in row["token_ids"]], "index": str(latent), **keys,
            "maxValue": max(values), "maxValueTokenIndex": values.index(max(values)), "minValue": min(values),
            "values": values, "dataSource": row["condition"], "dataIndex": str(row["trace_id"]), "dfaValues": [],
            "dfaTargetIndex": None, "dfaMaxValue": None,
            "lossValues": [] if changed is None else [-changed.get(start + at, 0.0) for at in range(len(values))],
            "logitContributions": None, "binMin": low, "binMax": high, "binContains": None if low is None else 0.25,
            "qualifyingTokenIndex": row["peak"] - start,
        }  # fmt: skip


def _explanations(site: api.Site, keys: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield a line a rule in words, with how well it does."""
    for row in site.table("descriptions").collect().iter_rows(named=True):
        if row["rule"]:
            said = f"precision {_share(row['precision'])}, recall {_share(row['recall'])} on traces not learnt from"
            yield {
                **keys, "id": _id(keys["modelId"], keys["layer"], row["latent"], "rule"), "index": str(row["latent"]),
                "description": row["rule"], "authorId": CREATOR, "embedding": None, "triggeredById": None,
                "typeName": None, "explanationModelName": None, "notes": said,
            }  # fmt: skip


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0%}"
