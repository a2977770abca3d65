"""SAEs of another seed: latents are matched as by trying all ways, and a whole study says what is left."""

import itertools

import numpy as np
import polars as pl
import pytest
from conftest import new_study
from safetensors.numpy import load_file, save_file

from thoughtscope import files
from thoughtscope.errors import InputError
from thoughtscope.evidence.seeds import SCHEMA, seeds
from thoughtscope.report import seeds as in_words

SITE = "layers.1.mlp"


def saved(folder, decoder):
    """An SAE's weights, and what is said of them."""
    folder.mkdir()
    save_file({"W_dec": decoder}, folder / "sae.safetensors")
    return folder / "sae.safetensors", {"files": {"sae.safetensors": files.sha256(folder / "sae.safetensors")}}


def found(tmp_path, own, other, judged=(), other_judged=(), tested=(None, None)):
    decoders = [saved(tmp_path / name, decoder) for name, decoder in (("a", own), ("b", other))]
    latents = [range(len(of)) if its is None else its for of, its in zip((own, other), tested, strict=True)]
    tests = [(reader, latent, SITE, 0.5) for reader, its in zip("ab", latents, strict=True) for latent in its]
    columns = {"reader": pl.String, "latent": pl.UInt32, "site": pl.String, "p_link": pl.Float64}
    headlines = pl.DataFrame(tests, schema=columns, orient="row")
    verdicts = pl.DataFrame(
        [("a", latent, verdict) for latent, verdict in judged] + [("b", *row) for row in other_judged],
        schema={"reader": pl.String, "latent": pl.UInt32, "verdict": pl.String}, orient="row",
    )  # fmt: skip
    (weights, info), (other_weights, other_info) = decoders
    return seeds(headlines.lazy(), verdicts.lazy(), weights, info, other_weights, other_info, site=SITE,
                 readers=["a", "b"])  # fmt: skip


def test_latents_are_matched_as_by_trying_all_ways(tmp_path):
    chance = np.random.default_rng(0)
    own, other = (chance.normal(size=(count, 4)).astype(np.float32) for count in (5, 6))
    table = found(tmp_path, own, other, tested=([0, 1, 3, 4], [0, 2, 3, 4, 5]))
    unit = [matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in (own, other)]
    cosines = np.abs(unit[0] @ unit[1].T)
    ways = itertools.permutations([0, 2, 3, 4, 5], 4)
    best = max(ways, key=lambda way: sum(cosines[row, column] for row, column in zip([0, 1, 3, 4], way, strict=True)))
    assert table["latent"].to_list() == [0, 1, 3, 4]
    assert table["other"].to_list() == list(best)
    assert np.allclose(table["cosine"], [cosines[pair] for pair in zip([0, 1, 3, 4], best, strict=True)], atol=1e-6)
    assert np.allclose(table["nearest"], cosines[[0, 1, 3, 4]].max(axis=1), atol=1e-6)  # latent 1 of the other, too


def test_verdicts_stand_beside_each_other(tmp_path):
    own = np.eye(4, dtype=np.float32)
    other = -2 * own[[2, 0, 1]]  # turned round, longer, in another order; the fourth isn't there
    table = found(tmp_path, own, other, judged=[(0, "thinking pattern"), (1, "no"), (3, "thinking pattern")],
                  other_judged=[(1, "thinking pattern"), (0, "undecided")])  # fmt: skip
    assert dict(table.schema) == dict(SCHEMA)
    assert table.rows() == [
        (0, 1, 1.0, 1.0, "thinking pattern", "thinking pattern"),
        (1, 2, 1.0, 1.0, "no", None),
        (2, 0, 1.0, 1.0, None, "undecided"),
        (3, None, None, 0.0, "thinking pattern", None),
    ]
    (row,) = in_words.rows({SITE: table})
    assert (row["tested"], row["shared"], row["called"], row["kept"], row["survive"]) == (4, 3, 2, 1, 1)
    said = in_words.sentences({SITE: table})
    assert said == [
        "SAEs trained from another seed have a counterpart (|cos| of at least 0.7) of 3 of 4 tested latents (75%).",
        "Of 2 thinking patterns 1 has one, and of 1 the counterpart is called a thinking pattern there, too.",
    ]


def test_nothing_tested_is_no_error(tmp_path):
    table = found(tmp_path, np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), tested=([], [0]))
    assert table.is_empty()
    assert in_words.sentences({SITE: table})[0].startswith("No latent was tested")


def test_other_weights_than_those_trained_are_refused(tmp_path):
    weights, info = saved(tmp_path / "x", np.eye(2, dtype=np.float32))
    save_file({"W_dec": 2 * np.eye(2, dtype=np.float32)}, weights)
    frame = pl.DataFrame(schema={"reader": pl.String, "site": pl.String, "latent": pl.UInt32, "verdict": pl.String,
                                 "p_link": pl.Float64}).lazy()  # fmt: skip
    with pytest.raises(InputError, match=r"sae\.safetensors"):
        seeds(frame, frame, weights, info, weights, info, site=SITE, readers=["a", "b"])


def test_a_study_with_a_second_seed(tiny_model, tmp_path):
    """It trains and reads one more SAE; taken out again, the report alone is made anew."""
    study = new_study(tmp_path / "study", tiny_model).edit(
        inferences=6, block_size=6, generation__max_new_tokens=40, patterns={"vowel": ["/[aeiou]/"]},
        analysis__min_traces=1, analysis__tokens_before=1, analysis__tokens_after=1,
    )  # fmt: skip
    study.run()
    second = study.edit(sae__second_seed=7)
    planned = second.plan()
    assert f"train_sae {SITE}" in planned
    assert f"seeds {SITE}" in planned
    assert not {job for job in planned if job.startswith(("generate", "model", "plot", "dashboards"))}
    second.run()
    own, other = (load_file(study.results / "saes" / reader / SITE / "sae.safetensors")["W_dec"]
                  for reader in ("trained", "second_seed"))  # fmt: skip
    table = files.read_parquet(study.results / "tables" / "trained" / SITE / "seeds.parquet")
    assert len(table) > 0
    for row in table.head(5).iter_rows(named=True):
        one, two = own[row["latent"]], other[row["other"]]
        cosine = abs(one @ two) / np.linalg.norm(one) / np.linalg.norm(two)
        assert row["cosine"] == pytest.approx(cosine, abs=1e-5)
    assert files.read_json(study.results / "saes" / "second_seed" / SITE / "info.json")["train"]["seed"] == 7
    page, summary = ((study.results / name).read_text() for name in ("report.html", "summary.md"))
    assert "Would another seed of the SAEs do?" in page
    assert "SAEs trained from another seed have a counterpart" in summary
    assert second.plan() == set()
    assert study.plan() == {"summary", "report"}
    assert second.edit(sae__second_seed=8).plan() >= {f"train_sae {SITE}", f"seeds {SITE}"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sae__second_seed": 0}, "config: sae.second_seed is 0, which is sae.seed, too; set it to another number."),
        ({"sae": {"source": "hub", "name": "a/b", "second_seed": 1}}, "SAEs with source 'hub' aren't trained here"),
        ({"sae__second_seed": -1}, "config: sae.second_seed is -1; it must be >= 0."),
    ],
)
def test_a_second_seed_that_cannot_be_is_refused(tiny_model, tmp_path, changes, says):
    run = new_study(tmp_path / "study", tiny_model).edit(**changes).snakemake("--dry-run")
    assert run.code != 0
    assert says in run.output
