"""Twins: what is drawn at random is of the same shape, what is shuffled holds the same words, and both are counted."""

import json
import logging
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import REPO, new_study
from safetensors.torch import load_file
from scipy import stats

import thoughtscope
from thoughtscope import files, models, twins, vocabulary
from thoughtscope.errors import InputError
from thoughtscope.evidence import checks, matches
from thoughtscope.evidence.twins import COMPARED, against_twins, ratio_of_counts
from thoughtscope.report import twins as in_words
from thoughtscope.saes import formats

LOG = logging.getLogger("test")
SITE = "layers.1.mlp"


def test_a_model_of_random_weights(manifest, model, tmp_path):
    made = twins.random_model(manifest, tmp_path / "a", 0, LOG)
    again = twins.random_model(manifest, tmp_path / "b", 0, LOG)
    other = twins.random_model(manifest, tmp_path / "c", 1, LOG)
    assert made["files"] == again["files"]
    assert made["files"]["model.safetensors"] != other["files"]["model.safetensors"]
    drawn = models.load_model(made, "float32")  # which compares the hashes
    assert {name: weight.shape for name, weight in drawn.named_parameters()} == {
        name: weight.shape for name, weight in model.named_parameters()
    }
    for (name, weight), random in zip(model.named_parameters(), drawn.parameters(), strict=True):
        if weight.ndim < 2:
            continue
        size = weight.std() / np.sqrt(weight.numel())
        assert abs(random.mean() - weight.mean()) < 5 * size, name
        assert random.std() == pytest.approx(weight.std().item(), rel=0.2), name
        assert abs(torch.corrcoef(torch.stack([weight.flatten(), random.flatten()]))[0, 1]) < 0.2, name
    kept = {path.name for path in Path(manifest["folder"]).iterdir()}
    assert kept <= {path.name for path in (tmp_path / "a").iterdir()}  # tokenizer and all
    assert models.load_tokenizer(made)("a cat")["input_ids"] == models.load_tokenizer(manifest)("a cat")["input_ids"]


@pytest.fixture(scope="module")
def read(tiny_model, tmp_path_factory):
    """A study that three twins read as well."""
    study = new_study(tmp_path_factory.mktemp("twins") / "study", tiny_model).edit(
        inferences=6, block_size=3, generation__max_new_tokens=40, patterns={"vowel": ["/[aeiou]/"]},
        analysis__min_traces=1, analysis__tokens_before=1, analysis__tokens_after=1,
    )  # fmt: skip
    study.run()
    study = study.edit(twins=["random_sae", "random_model", "shuffled_text"])
    study.run()
    return study


def test_an_sae_of_random_directions(read):
    trained, random = (read.results / "saes" / reader / SITE for reader in ("trained", "random_sae"))
    of, drawn = (load_file(folder / "sae.safetensors") for folder in (trained, random))
    assert {name: weight.shape for name, weight in drawn.items()} == {name: weight.shape for name, weight in of.items()}
    assert torch.equal(drawn["b_dec"], of["b_dec"])
    assert torch.equal(drawn["encoder.weight"], drawn["W_dec"])
    assert not drawn["encoder.bias"].any()
    assert torch.allclose(drawn["W_dec"].norm(dim=1), torch.ones(len(drawn["W_dec"])))
    largest = (drawn["W_dec"] @ (of["W_dec"] / of["W_dec"].norm(dim=1, keepdim=True)).T).abs().max()
    assert largest < 0.8  # of 48 x 48 pairs of directions in 32 dimensions chance makes some .7
    assert formats.load(random, torch.device("cpu")).k == formats.load(trained, torch.device("cpu")).k


def test_a_damaged_sae_makes_no_twin(read, tmp_path):
    folder = shutil.copytree(read.results / "saes" / "trained" / SITE, tmp_path / "sae")
    (folder / "cfg.json").write_text((folder / "cfg.json").read_text().replace('"k": 4', '"k": 5'))
    with pytest.raises(InputError, match=r"cfg\.json"):
        twins.random_sae(folder, tmp_path / "made", 0, LOG)
    assert not (tmp_path / "made").exists()


WORDS = re.compile(r"\w+")


def test_shuffled_text_has_the_same_words_elsewhere(tokenizer, tiny_model):
    size = json.loads((Path(tiny_model) / "config.json").read_text())["vocab_size"]
    table = vocabulary.table(tokenizer, size)
    texts = ["Hmm, let me check: 12 plus 3 is 15, so wait a bit and check again. I see.", "The answer is 15, wait."]
    rows = []
    for trace_id in range(4):
        parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        cuts = np.cumsum([3, *map(len, parts)]).tolist()
        segments = [{"segment": name, "start": start, "end": end} for name, start, end in
                    zip(("prompt", "think", "answer"), [0, *cuts], cuts, strict=False)]  # fmt: skip
        rows.append({"trace_id": trace_id, "condition": "reason", "prompt_ids": [1, 2, 3],
                     "generated_ids": [*parts[0], *parts[1]], "text": "".join(texts),
                     "segments": segments})  # fmt: skip
    traces = pl.DataFrame(rows)
    lexicon = json.dumps({"checking": ["let me check", "wait"]})

    def found(of):
        return matches.matches(of.lazy(), table.lazy(), patterns=lexicon, reason_words=[])

    there = found(traces)
    made = twins.shuffled(traces.lazy(), there.lazy(), table.lazy())
    assert made.schema == traces.schema
    assert made.equals(twins.shuffled(traces.lazy(), there.lazy(), table.lazy()))
    text_of = dict(table.select("token_id", "text").iter_rows())
    for before, after in zip(traces.iter_rows(named=True), made.iter_rows(named=True), strict=True):
        assert before["generated_ids"] != after["generated_ids"]
        assert before["generated_ids"][-1] == after["generated_ids"][-1]
        assert after["text"] == "".join(text_of[token] for token in after["generated_ids"])
        for part in before["segments"][1:]:
            cut = slice(part["start"] - 3, part["end"] - 3)
            assert Counter(before["generated_ids"][cut]) == Counter(after["generated_ids"][cut])
        words = [Counter(WORDS.findall("".join(text_of[token] for token in trace["generated_ids"])))
                 for trace in (before, after)]  # fmt: skip
        # The first word of either text may meet another, without a blank between: two words are lost each time.
        assert sum((words[0] - words[1]).values()) <= 4
    for row in there.iter_rows(named=True):  # what a match is of is still in one piece
        ids, after = (table.row(row["trace_id"], named=True)["generated_ids"] for table in (traces, made))
        piece = ids[row["start"] - 3 : row["end"] - 3]
        assert any(after[place : place + len(piece)] == piece for place in range(len(after)))
    assert made["generated_ids"].n_unique() == 4  # each trace in an order of its own


def test_the_interval_of_a_ratio_of_counts():
    """Against scipy's interval of a binomial share, and by how often it holds the truth."""
    for theirs, ours in [(0, 20), (3, 40), (40, 40), (7, 1)]:
        low, high = ratio_of_counts(np.array([theirs]), np.array([ours]))
        share = stats.binomtest(theirs, theirs + ours).proportion_ci(0.95, method="exact")
        assert low.item() == pytest.approx(share.low / (1 - share.low))
        assert high.item() == pytest.approx(share.high / (1 - share.high))
    chance = np.random.default_rng(0)
    theirs, ours = chance.poisson(6, 4000), chance.poisson(30, 4000)
    low, high = ratio_of_counts(theirs, ours)
    held = np.mean((low <= 0.2) & (high >= 0.2))
    assert 0.95 <= held < 0.99
    assert np.isinf(ratio_of_counts(np.array([2]), np.array([0]))[1])


def test_a_latent_is_held_against_a_twins_as_sure_as_it():
    chance = np.random.default_rng(1)
    own = pl.DataFrame({"p": [*chance.uniform(0, 0.01, 60), None, 0.5], "passes": [True] * 55 + [False] * 7,
                        "fits": True})  # fmt: skip
    others = pl.DataFrame({"reader": ["a"] * 40 + ["b"], "p": [*chance.uniform(0, 0.02, 40), 0.9],
                           "passes": [True] * 30 + [False] * 10 + [True], "fits": False})  # fmt: skip
    twentieth = np.sort(own.filter("passes")["p"].to_numpy())[19]
    for row, found in zip(own.iter_rows(named=True), against_twins(own, others, ["a", "b"]), strict=True):
        assert [one["reader"] for one in found] == ["a", "b"]
        ours = own.filter("passes")["p"].to_numpy()
        if row["p"] is None:
            assert all(one["own"] is None for one in found)
            continue
        theirs = others.filter("passes", pl.col("reader") == "a")["p"].to_numpy()
        cut = max(row["p"], twentieth)
        assert (found[0]["own"], found[0]["twins"]) == ((ours <= cut).sum(), (theirs <= cut).sum())
        share = stats.binomtest(found[0]["twins"], found[0]["own"] + found[0]["twins"]).proportion_ci(
            0.95, method="exact"
        )
        assert found[0]["high"] == pytest.approx(share.high / (1 - share.high))
        assert found[1]["twins"] == 0  # the other's one latent is less sure than any


def test_of_a_random_sae_the_fit_is_asked_too():
    own = pl.DataFrame({"p": np.linspace(0.001, 0.01, 30), "passes": True, "fits": True})
    others = own.with_columns(reader=pl.lit("random_sae"), fits=False)

    def held_against(own, others):
        return [found for (found,) in against_twins(own, others, others["reader"].unique().to_list())]

    assert all(found["twins"] == 0 for found in held_against(own, others))
    assert all(found["ratio"] == 1 for found in held_against(own, others.with_columns(fits=True)))
    assert all(found["own"] is None for found in held_against(own.with_columns(fits=False), others))
    other = others.with_columns(reader=pl.lit("random_model"))  # whose states aren't the study's
    assert all(found["ratio"] == 1 for found in held_against(own, other))
    (none,) = against_twins(own[:1], others.clear(), ["random_model"])  # one without a candidate is a twin
    assert (none[0]["own"], none[0]["twins"]) == (1, 0)


def test_what_a_twin_says_of_a_latent():
    def judged(*counts):
        rows = []
        for index, (theirs, ours) in enumerate(counts):
            low, high = ratio_of_counts(np.array([theirs]), np.array([ours]))
            rows.append({"reader": f"twin_{index}", "own": ours, "twins": theirs, "ratio": theirs / ours,
                         "low": low.item(), "high": high.item()})  # fmt: skip
        return checks.beyond_its_twins(rows, 0.25)

    assert judged((0, 17)).result == "pass"
    assert judged((0, 10)).result == "undecided"  # too few to tell
    assert judged((50, 100)).result == "fail"
    assert judged((3, 100), (50, 100)).result == "fail"  # one is enough
    assert judged((3, 100), (0, 10)).result == "undecided"
    assert "twin 1: 50 latents with such evidence, here 100" in judged((3, 100), (50, 100)).note
    none = [{"reader": "a", "own": None}]
    low, high = (edge.item() for edge in ratio_of_counts(np.array([50]), np.array([50])))
    bad = {"reader": "b", "own": 50, "twins": 50, "ratio": 1.0, "low": low, "high": high}
    assert checks.beyond_its_twins([*none, bad], 0.25).result == "fail"  # whatever the other would say
    good = bad | {"twins": 0, "ratio": 0.0, "low": 0.0, "high": 0.1}
    assert checks.beyond_its_twins([*none, good], 0.25).result == "undecided"
    assert checks.beyond_its_twins(none, 0.25).result == checks.beyond_its_twins([], 0.25).result == "undecided"


def test_twins_go_the_way_of_the_study(read):
    tables = read.results / "tables"
    readers = ["random_sae", "random_model", "shuffled_text"]
    for reader in readers:
        made = {path.stem for path in (tables / reader / SITE).glob("*.parquet")}
        assert made == {"candidates", "controls", "fit", "lexicality", "pattern_tests", "presence", "relevant_latents",
                        "verdict"}  # fmt: skip
        assert (tables / reader / "headline.parquet").exists()
    verdict = files.read_parquet(tables / "trained" / SITE / "verdict.parquet")
    assert verdict["beyond_its_twins"].null_count() == verdict["acts_on_its_pattern"].count() == 0
    assert files.read_parquet(tables / "random_sae" / SITE / "verdict.parquet")["beyond_its_twins"].count() == 0
    table = files.read_parquet(tables / "twins.parquet")
    assert table["reader"].to_list() == ["trained", *sorted(readers)]
    for row in table.iter_rows(named=True):
        of = files.read_parquet(tables / row["reader"] / SITE / "verdict.parquet")
        results = [of[check].cast(pl.String) == "pass" for check in COMPARED]
        assert row["passing"] <= np.logical_and.reduce([result.to_numpy() for result in results]).sum()
        assert row["candidates"] == len(of)
        assert row["tested"] == len(files.read_parquet(tables / row["reader"] / "headline.parquet"))
    block = f"{SITE}/reason/00000-00002/activations.parquet"
    activations = {
        reader: files.read_parquet(read.results / "readings" / reader / block) for reader in ["trained", *readers]
    }
    assert len({len(table) for table in activations.values()}) == 1  # as many tokens
    assert not any(activations["trained"].equals(activations[reader]) for reader in readers)
    page, summary = ((read.results / name).read_text() for name in ("report.html", "summary.md"))
    assert "Would a twin do as well?" in page
    assert "beyond its twins" in page
    assert "Random SAE (directions drawn at random in place of the SAE’s): " in summary
    assert "acts on its pattern" not in summary


def test_a_twins_contexts_are_of_its_own_text(read):
    """In a notebook: a latent of the shuffled text is shown in that, at the token that it is active on."""
    study = thoughtscope.open(read.results)
    site = study.site(1, reader="shuffled_text")
    busiest = site.activations().group_by("latent").len().sort("len").last().collect()["latent"].item()
    contexts = site.latent(busiest).contexts(20, before=0, after=0)
    known = site.latent(busiest).activations().join(study.vocabulary.lazy(), on="token_id").collect()
    texts = {(row["condition"], row["trace_id"], row["position"]): row["text"] for row in known.iter_rows(named=True)}
    assert len(contexts) > 1
    for row in contexts.iter_rows(named=True):
        assert row["text"] == texts[row["condition"], row["trace_id"], row["position"]]


def test_a_twin_more_computes_it_alone(read):
    fewer = read.edit(twins=["random_sae", "shuffled_text"])
    what_shows = {
        "dashboards", "directions", "descriptions", "coherence", "plot_outcomes", "plot_patterns", "plot_verdict",
        "plot_waterfall",
    }  # fmt: skip
    shown = {f"{rule} {SITE}" for rule in what_shows} | {"twins", "plot_twins", "summary", "report"}
    assert fewer.plan() == {f"verdict {SITE}"} | shown
    assert read.edit(twins=None).plan() == {f"verdict {SITE}", "summary", "report"} | {
        f"{rule} {SITE}" for rule in what_shows
    }
    fewer.run()
    shutil.rmtree(read.results / "tables" / "random_model")
    assert read.plan() == {f"verdict {SITE}", "headline"} | shown | {
        f"{rule} {SITE}"
        for rule in ("candidates", "controls", "fit", "lexicality", "pattern_tests", "presence", "relevant_latents")
    }
    assert {path.name for path in (read.results / "saes").iterdir()} == {"trained", "random_sae", "random_model"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"twins": ["base_model"]}, "twins: base_model is the model before its adapter, but model.adapter is null"),
        ({"twins": ["a_random_one"]}, "twins.0 is 'a_random_one'; allowed: random_sae, random_model, base_model, shu"),
        ({"twins": ["random_sae", "random_sae"]}, "'random_sae' stands in it twice"),
        ({"twins": ["random_model"], "sae": {"source": "path", "path": "saes", "hookpoint": "layers.{layer}.mlp"}},
         "twins: random_model needs an SAE trained on that model, but sae.source is 'path'"),
    ],
)  # fmt: skip
def test_twins_that_a_study_cannot_have(study, changes, says):
    run = study.edit(**changes).snakemake("--dry-run")
    assert run.code != 0
    assert says in run.output


def test_the_base_model_is_read_in_its_place(study):
    """With an adapter: the base model's files, the study's SAEs, traces and matches."""
    arguments = ["--configfile", str(REPO / "config" / "config.yaml"), "--config", "twins=[base_model]"]
    (study.folder / "organisms").symlink_to(REPO / "organisms")
    run = study.run("--dry-run", *arguments)
    reads = [
        body for body in re.findall(r"^rule read:\n((?:    .*\n)+)", run.output, re.M) if "reader=base_model" in body
    ]
    assert len(reads) == 12
    for body in reads:
        inputs = re.search(r"input: (.*)", body).group(1)
        assert "base_model.json, results/taught/base_model, results/taught/saes/trained/" in inputs
        assert inputs.startswith("results/taught/traces/")


def test_twins_are_said_in_words():
    rows = [("a", "trained", 100, 20, 30, 40, 40, None, None, None),
            ("b", "trained", 100, 20, 30, 0, 0, None, None, None),
            ("a", "random_sae", 100, 2, 3, 4, 0, 0.1, 0.03, 0.27),
            ("b", "random_sae", 50, 0, 1, 0, 0, None, None, None)]  # fmt: skip
    names = ["site", "reader", "tested", "linked", "candidates", "passing", "called", "ratio", "low", "high"]
    first, second = in_words.sentences(pl.DataFrame(rows, schema=names, orient="row"))
    assert first.startswith(
        "Twins are read by the same rules. At 2 sites 40 of the study’s own latents pass all checks"
    )
    many = pl.DataFrame([rows[0], (*rows[2][:5], 30, 0, 0.75, 0.5, 1.2)], schema=names, orient="row")
    assert in_words.sentences(many)[-1].startswith(
        "So directions drawn at random are linked to patterns about as often"
    )
    assert second == (
        "Random SAE (directions drawn at random in place of the SAE’s): 4 do (0.10 for each of the study’s own at a,"
        " 95% interval 0.03 to 0.27), none with an SAE that fits; 2 of 150 tested are linked to a pattern."
    )
