"""The workflow, run by Snakemake on a tiny model as a user would: results, reruns, faults, report."""

import base64
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from conftest import Study, new_study

from thoughtscope import files

POOLED = ["top_activations", "frequencies", "histogram", "recurrence", "top_tokens"]
TESTED = ["presence", "pattern_tests"]  # of all latents
CANDIDATES = ["candidates", "contrasts", "outcomes", "lexicality", "verdict"]  # of those that are judged
TABLES = [*POOLED, "relevant_latents", "sinks", "fit", "controls", "reason_scores", *TESTED, *CANDIDATES]  # of a site
NAMES = ["descriptions", "coherence"]
LATENTS = ["passages", "latent_histograms", "strips", "coactivation", "logit_effects", "neighbours", *NAMES]
JUDGED = ["waterfall", "verdict", "patterns", "outcomes"]  # pictures of the verdict
PICTURES = [*POOLED, *JUDGED]
TEXT = {"matches", "pattern_counts", "plot_pattern_counts"}  # what is in the text, whatever the site
CONDITIONS = ["reason", "bypass"]
FIRST, SECOND = "00000-00001", "00002-00003"
GATE = {"site_gate", "plot_site_gate"}
ACROSS = {"layers", "plot_layers", "summary", "report", "headline"} | GATE  # what compares layers, or counts them all


BOARDS = ["dashboards", "directions", *NAMES]


def of_site(site: str) -> set[str]:
    return {f"{rule} {site}" for rule in [*TABLES, *BOARDS, *[f"plot_{name}" for name in PICTURES]]}


def of_blocks(rules: list[str], site: str, blocks: list[str]) -> set[str]:
    return {f"{rule} {site} {condition} {block}" for rule in rules for condition in CONDITIONS for block in blocks}


def of_generation(blocks: list[str]) -> set[str]:
    return {f"generate {condition} {block}" for condition in CONDITIONS for block in blocks}


def read(site: str, blocks: list[str]) -> set[str]:
    """Jobs that read a site's blocks, and those that make their tables."""
    return of_blocks(["read", "trace_tables"], site, blocks)


SITE = "layers.1.mlp"
READ = f"readings/trained/{SITE}"
EVERYTHING = (
    {"problems", "model", "sae_text", f"train_sae {SITE}"}
    | of_generation([FIRST])
    | read(SITE, [FIRST])
    | of_site(SITE)
    | ACROSS
    | TEXT
)


def judged(site: str) -> set[str]:
    """The verdict, and what shows it."""
    shown = {f"{rule} {site}" for rule in [*BOARDS, *[f"plot_{name}" for name in JUDGED]]}
    return {f"verdict {site}", "summary", "report"} | shown


def counted_anew(site: str) -> set[str]:
    """What follows where the latents of all sites are counted anew, as one error rate is over all of them."""
    return {"headline"} | {f"{rule} {site}" for rule in CANDIDATES} | judged(site)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Study:
    """A complete run of the tiny study; tests that change files copy it, or put back what they changed."""
    study = new_study(tmp_path_factory.mktemp("workflow") / "study", tiny_model)
    run = study.run()
    assert run.jobs == EVERYTHING
    assert "# tiny" in run.output  # the summary ends the run
    assert "results/tiny/plots/" in run.output
    assert re.search(r"^Report: results/tiny/report.html$", run.output, re.M)
    return study


def snapshot(study: Study) -> dict[str, str]:
    """Content of every table and picture, by path."""
    return {
        str(path.relative_to(study.results)): files.sha256(path)
        for folder in ("traces", "readings", "tables", "plots")
        for path in sorted((study.results / folder).rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_results_are_where_the_design_says(done):
    names = {path for path in snapshot(done) if "bypass" not in path}
    tables = ["frequencies", "histograms", "relevant_latents", "top_activations", "top_tokens"]
    assert names == {
        f"traces/reason/{FIRST}.parquet",
        *[f"{READ}/reason/{FIRST}/{name}.parquet" for name in ("activations", "features", "reconstruction")],
        *[f"tables/{name}.parquet" for name in ("layers", "site_gate", "matches", "pattern_counts")],
        "tables/trained/headline.parquet",
        *[f"plots/{name}.png" for name in ("layers", "site_gate", "pattern_counts")],
        *[f"tables/trained/{SITE}/traces/reason/{FIRST}/{name}.parquet" for name in tables],
        *[f"tables/trained/{SITE}/{name}.parquet" for name in [*TABLES, *LATENTS]],
        *[f"plots/trained/{SITE}/{name}.png" for name in PICTURES],
    }  # fmt: skip
    assert {path.name for path in (done.results / "saes" / "trained" / SITE).iterdir()} == {
        "cfg.json", "info.json", "sae.safetensors",
    }  # fmt: skip
    assert not list(done.results.rglob("*.tmp"))


def test_the_tables_follow_from_the_activations(done):
    """Through files and rules: the recurrence table, from the activation files by hand."""
    recurrence = pl.read_parquet(done.results / "tables" / "trained" / SITE / "recurrence.parquet")
    found = {}
    for condition in CONDITIONS:
        rows = pl.read_parquet(done.results / READ / condition / FIRST / "activations.parquet")
        assert set(rows["condition"]) == {condition}
        for trace in (0, 1):
            best = {}
            for row in rows.filter(trace_id=trace).iter_rows(named=True):
                if row["segment"] != "prompt" and not row["sink"]:
                    best[row["latent"]] = max(row["activation"], best.get(row["latent"], 0))
            for latent in sorted(best, key=lambda latent: (-best[latent], latent))[:3]:
                found[condition, latent] = found.get((condition, latent), 0) + 1
    table = recurrence.filter(scope="generated")
    assert {row[:2]: row[2] for row in table.select("condition", "latent", "traces").rows()} == found


def test_activations_are_sparsifys_through_the_whole_workflow(done, tiny_model):
    from sparsify import SparseCoder
    from transformers import AutoModelForCausalLM

    # The tiny study leaves model.dtype at auto: where that is bfloat16, so is this pass.
    from thoughtscope.models import resolve_dtype

    sae = SparseCoder.load_from_disk(done.results / "saes" / "trained" / SITE)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=resolve_dtype("auto"))
    trace = pl.read_parquet(done.results / "traces" / "reason" / f"{FIRST}.parquet").row(0, named=True)
    kept = []
    model.model.layers[1].mlp.register_forward_hook(lambda _m, _i, output: kept.append(output[0].float()))
    ids = trace["prompt_ids"] + trace["generated_ids"][:-1]
    with torch.inference_mode():
        model(torch.tensor([ids]))
        expected = sae.encode(kept[0])
    rows = pl.read_parquet(done.results / READ / "reason" / FIRST / "activations.parquet").filter(trace_id=0)
    dense = torch.zeros(len(ids), sae.num_latents)
    dense[rows["position"].to_torch().long(), rows["latent"].to_torch().long()] = rows["activation"].to_torch()
    reference = torch.zeros(len(ids), sae.num_latents).scatter(-1, expected.top_indices, expected.top_acts)
    # bfloat16 states move with the shape of the batch; what the encoder does with them is tested to 1e-5 elsewhere.
    assert torch.nn.functional.cosine_similarity(dense, reference).min() > 0.99


def test_nothing_to_do_is_said(done):
    assert "Nothing to be done" in done.run("--dry-run").output


def test_reruns_are_exactly_what_an_edit_affects(done):
    """The rerun table: each edit is made, run and undone; after each, both plan and results are checked."""
    before = snapshot(done)

    # A layer is added: its SAE, encodings, tables, pictures, and what compares layers or counts their latents.
    other = "layers.2.mlp"
    added = done.edit(layers=[1, 2])
    expected = {f"train_sae {other}"} | read(other, [FIRST]) | of_site(other) | ACROSS | counted_anew(SITE)
    assert added.plan() == expected
    assert added.run().jobs == expected
    assert added.plan() == set()
    assert added.edit(layers=[2, 1]).plan() == set()  # the order is no edit
    # It is removed: what compares layers, or counts their latents.
    expected = ACROSS | counted_anew(SITE)
    assert done.plan() == expected
    assert done.run().jobs == expected
    assert snapshot(done).items() >= before.items()

    # One block more: its traces and encodings, and what counts them; the first block's pictures stay.
    grown = done.edit(inferences=4)
    expected = of_generation([SECOND]) | read(SITE, [SECOND]) | of_site(SITE) | ACROSS | TEXT
    assert grown.plan() == expected
    assert grown.run().jobs == expected
    assert grown.plan() == set()
    table = pl.read_parquet(grown.results / "tables" / "trained" / SITE / "recurrence.parquet")
    assert set(table["of"]) == {4}
    old = {path: digest for path, digest in before.items() if FIRST in path}
    assert snapshot(grown).items() >= old.items()
    expected = of_site(SITE) | ACROSS | TEXT
    assert done.plan() == expected
    assert done.run().jobs == expected
    assert snapshot(done).items() >= before.items()

    # A plot setting: the pictures that show it.
    sharper = done.edit(plots={"dpi": 80})
    scoped = {f"plot_{name} {SITE}" for name in POOLED} | {"plot_layers"}
    pictures = scoped | {f"plot_{name} {SITE}" for name in JUDGED} | {"plot_site_gate", "plot_pattern_counts"}
    pictures |= {"report"}
    assert sharper.plan() == pictures
    assert done.edit(plots={"latents": 5}).plan() == {
        f"plot_{name} {SITE}" for name in ("recurrence", "top_tokens", "patterns", "outcomes")
    } | {"report"}
    assert done.edit(plots={"tokens": 3}).plan() == {f"plot_top_tokens {SITE}"}
    assert sharper.run().jobs == pictures
    assert done.run().jobs == pictures
    assert snapshot(done).items() >= before.items()

    # An analysis setting: its tables, those of each block among them, and what is made from them.
    blocks = of_blocks(["trace_tables"], SITE, [FIRST])
    assert done.edit(analysis__top_activations=10).plan() == (
        blocks | {f"top_activations {SITE}", f"plot_top_activations {SITE}", "layers", "summary", "report"}
    )
    assert done.edit(analysis__histogram_bins=9).plan() == (blocks | {f"histogram {SITE}", f"plot_histogram {SITE}"})
    assert done.edit(analysis__top_latents=2).plan() == (
        blocks
        | {
            f"{rule} {SITE}"
            for rule in ("relevant_latents", "recurrence", "top_tokens", "plot_recurrence", "plot_top_tokens")
        }
        | {f"{rule} {SITE}" for rule in ("controls", "reason_scores", *CANDIDATES)}
        | judged(SITE)
        | ACROSS - GATE - {"headline"}
    )
    assert done.edit(analysis__include_sinks=True).plan() == (
        blocks | of_site(SITE) - {f"sinks {SITE}", f"fit {SITE}"} | ACROSS - GATE
    )
    assert done.edit(analysis__max_fvu=0.5).plan() == GATE | judged(SITE)
    present, tests, scores = ({f"{rule} {SITE}"} for rule in ("presence", "pattern_tests", "reason_scores"))
    assert done.edit(analysis__min_excess=0.3).plan() == present | counted_anew(SITE)
    assert done.edit(analysis__min_share=0.3).plan() == tests | counted_anew(SITE)
    assert done.edit(patterns={"doubt": ["hm"]}).plan() == TEXT | tests | scores | counted_anew(SITE)
    assert done.edit(analysis__shifts=200).plan() == scores | {"report"}
    # With alpha goes which latents are judged, and how small a p of a score must get.
    assert done.edit(analysis__alpha=0.01).plan() == scores | counted_anew(SITE) - {"headline"}
    lexical = {f"lexicality {SITE}"}
    assert done.edit(analysis__max_typed=0.9).plan() == lexical | judged(SITE)
    assert done.edit(plots={"scope": "all"}).plan() == scoped | {"report"}

    # A setting of the report: the tables of its dashboards, or the page alone.
    boards = {f"{rule} {SITE}" for rule in BOARDS}
    assert done.edit(report={"latents": 2}).plan() == boards | {"report"}
    assert done.edit(report={"max_megabytes": 5}).plan() == {"report"}
    fewer = done.edit(analysis__top_tokens=2)
    expected = (
        blocks
        | {f"{rule} {SITE}" for rule in ("top_tokens", "plot_recurrence", "plot_top_tokens")}
        | {"summary", "report"}
    )
    assert fewer.plan() == expected
    assert fewer.run().jobs == expected
    assert done.run().jobs == expected
    assert snapshot(done).items() >= before.items()

    # Temperature: traces and all that follows; not problems, model or SAE.
    hotter = done.edit(generation__temperature=0.5)
    expected = of_generation([FIRST]) | read(SITE, [FIRST]) | of_site(SITE) | ACROSS | TEXT
    assert hotter.plan() == expected
    hotter.run("--until", "generate")
    traces = f"traces/reason/{FIRST}.parquet"
    assert snapshot(hotter)[traces] != before[traces]
    assert done.run().jobs == expected
    assert snapshot(done).items() >= before.items()
    assert done.plan() == set()

    # Two settings that swap their values are an edit too, though Snakemake compares values without names.
    assert done.edit(generation__seed=12, generation__max_new_tokens=5).plan() == expected

    # How the work is done is no edit; a prompt is one for its condition alone.
    assert done.edit(generation__batch_size=1).plan() == set()
    planned = done.edit(prompts__bypass__user="{question} Now.").plan()
    assert f"generate bypass {FIRST}" in planned
    assert not {job for job in planned if " reason " in job}
    # The same text as a raw prompt goes without the chat template.
    raw = {"reason": {"raw": "{question} Think."}, "bypass": done.config["prompts"]["bypass"]}
    assert f"generate reason {FIRST}" in done.edit(prompts=raw).plan()
    # What an SAE is trained with is an edit for it and what follows, not for the traces.
    planned = done.edit(sae__k=5).plan()
    assert planned == {f"train_sae {SITE}"} | read(SITE, [FIRST]) | of_site(SITE) | ACROSS


def test_reading_off_the_site_stands_beside_the_site(done):
    off = done.edit(sae__read_from="residual_in")
    expected = read(f"{SITE}@residual_in", [FIRST]) | of_site(f"{SITE}@residual_in") | ACROSS
    assert off.plan() == expected
    off.run(f"results/tiny/{READ}@residual_in/reason/{FIRST}/activations.parquet")
    true, other = (
        pl.read_parquet(done.results / read / "reason" / FIRST / "activations.parquet")
        for read in (READ, f"{READ}@residual_in")
    )
    assert true.select("position").n_unique() == other.select("position").n_unique()
    assert not true.equals(other)


def test_changed_problems_are_seen(done):
    path = done.folder / "problems.jsonl"
    text = path.read_text()
    try:
        path.write_text(text.replace("48 clips", "50 clips"))
        planned = done.plan()
    finally:
        path.write_text(text)
    assert "problems" in planned
    assert of_generation([FIRST]) <= planned
    assert not {job for job in planned if job.startswith(("model", "train_sae", "sae_text"))}


def test_a_lost_file_is_made_again_and_nothing_else(done):
    lost = done.results / READ / "reason" / FIRST / "features.parquet"
    before = files.sha256(lost)
    lost.unlink()
    (done.results / "plots" / "trained" / SITE / "histogram.png").unlink()
    assert done.run().jobs == {f"plot_histogram {SITE}"}  # all that the features gave is still there
    done.run(str(lost.relative_to(done.folder)))
    assert files.sha256(lost) == before


def test_report_works_offline_with_pictures_and_captions(done):
    """With those of every trace, which are drawn where they are asked for."""
    pictured = done.edit(plots={"per_trace": True})
    assert pictured.plan() == of_blocks(["plot_traces"], SITE, [FIRST])
    pictured.run()
    drawn = done.results / "plots" / "trained" / SITE / "traces" / "reason" / FIRST
    assert sorted(path.name for path in drawn.iterdir() if path.suffix == ".png") == ["00000.png", "00001.png"]
    report = done.folder / "report.html"
    pictured.run("--report", str(report), http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    page = report.read_text()
    pictures = re.findall(r"data:image/png[^,]*;base64,([A-Za-z0-9+/=]+)", page)
    held = {base64.b64decode(picture) for picture in pictures}
    for path in (done.results / "plots").rglob("*.png"):
        if "layers.2" not in str(path) and SECOND not in str(path) and "@" not in str(path):
            assert path.read_bytes() in held, path
    assert f"In how many traces each leading latent of {SITE} is among the top" in page
    assert "Trace by trace" in page


def test_a_killed_job_leaves_nothing_that_looks_finished(tmp_path, tiny_model):
    """SIGKILL to snakemake and its jobs in mid-generation; the next run makes up for it, and keeps the rest."""
    study = new_study(tmp_path / "killed", tiny_model).edit(
        generation__max_new_tokens=900, generation__temperature=5.0, conditions=["reason"], inferences=4
    )
    process = subprocess.Popen(
        study.command(), cwd=study.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    traces, logs = study.results / "traces" / "reason", study.results / "logs" / "traces" / "reason"
    deadline = time.monotonic() + 300
    # One block is finished and the other under way, whichever came first.
    while not (list(traces.glob("0*.parquet")) and len(list(logs.glob("*.log"))) == 2):
        assert time.monotonic() < deadline
        time.sleep(0.02)
        if process.poll() is not None:
            pytest.fail(process.stdout.read())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (finished,) = traces.glob("0*.parquet")
    digest, stamp = files.sha256(finished), finished.stat().st_mtime_ns
    lost = SECOND if finished.stem == FIRST else FIRST

    quick = study.edit()
    assert quick.snakemake("--unlock").code == 0
    run = quick.run("--until", "generate")
    assert run.jobs - {"problems", "model"} == {f"generate reason {lost}"}
    assert (files.sha256(finished), finished.stat().st_mtime_ns) == (digest, stamp)
    assert len(pl.read_parquet(traces / f"{lost}.parquet")) == 2


def test_a_sae_from_a_path(tmp_path, done):
    """The SAEs one study has trained serve another as a path, with the same activations."""
    study = Study(tmp_path, done.config).edit(
        experiment="other", problems__path=str(done.folder / "problems.jsonl"),
        sae={"source": "path", "path": str(done.results / "saes" / "trained")},
    )  # fmt: skip
    target = f"{READ}/reason/{FIRST}/activations.parquet"
    run = study.run(f"results/other/{target}")
    assert f"fetch_sae {SITE}" in run.jobs
    assert pl.read_parquet(study.results / target).equals(pl.read_parquet(done.results / target))
    info = json.loads((study.results / "saes" / "trained" / SITE / "info.json").read_text())
    assert info["source"] == "path"
