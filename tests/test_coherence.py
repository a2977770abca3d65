"""Whether passages are alike: latents of a word are, latents of nothing aren't; numbers by plain loops."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from test_descriptions import VOCABULARY, WORDS, World

from thoughtscope.evidence.windows import lay_out
from thoughtscope.report import coherence

NAMES = ["river water", "a loan from the bank", "the dog ran home", "three plus four"]


def test_the_encoder_is_the_mean_of_its_package_s_vectors():
    """From the files that the package ships, read here; and without any other place."""
    import wordllama
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = Path(wordllama.__file__).parent
    (weights,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
    config = json.loads((folder / "tokenizers" / "l2_supercat_tokenizer_config.json").read_text())
    tokenizer = Tokenizer.from_str(json.dumps(config))
    vectors = coherence.encoder()(NAMES)
    for text, vector in zip(NAMES, vectors, strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        mean = weights[ids].astype(float).mean(axis=0)
        assert vector @ mean / np.linalg.norm(mean) == pytest.approx(1, abs=1e-3)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert np.isfinite(coherence.encoder()(["", " \n"])).all()


class Texts(World):
    """Sentences about one thing each; a latent is given where some are."""

    def table(self) -> dict[int, dict]:
        frame = pl.DataFrame(
            self.rows, schema=["trace_id", "index", "latent", "activation", "segment"], orient="row"
        ).with_columns(condition=pl.lit("reason"), position=pl.col("index") + 3, sink=pl.lit(value=False))
        names = frame["latent"].unique().sort()
        verdict = pl.DataFrame({"latent": names, "verdict": ["undecided"] * len(names), "traces": [1] * len(names),
                                "beyond_chance_number": [1.0] * len(names)})  # fmt: skip
        self.activations = frame.with_columns(pl.col("trace_id", "position", "latent").cast(pl.UInt32))
        made = coherence.coherence(
            self.activations.lazy(), self.traces.lazy(), verdict.lazy(), VOCABULARY.lazy(), condition="reason",
            latents=99, include_sinks=False,
        )  # fmt: skip
        assert made.schema == coherence.SCHEMA
        return {row["latent"]: row for row in made.iter_rows(named=True)}


@pytest.fixture(scope="module")
def world() -> Texts:
    world = Texts(count=60)
    world.fire(0, lambda token: token["token"] in (" egg", " cup") and token["place"] > 3, 0, 0)
    world.fire(1, lambda _: False, 0, 0.05)  # here and there, whatever stands there
    world.fire(2, lambda token: token["token"] == " 7", 0.99, 0)  # in few traces
    world.fire(3, lambda _: True, 0, 0)  # everywhere
    return world


def test_what_is_alike_scores_high_and_what_is_not_as_chance_has_it(world):
    rows = world.table()
    assert rows[0]["embedding"] > 0.65
    assert rows[0]["low"] > 0.55
    assert rows[0]["intruder"] > 0.3
    assert rows[1]["low"] < 0.5 < rows[1]["high"]
    assert rows[1]["intruder_low"] < 0.2 < rows[1]["intruder_high"]
    assert rows[2]["embedding"] is rows[2]["intruder"] is None
    assert rows[3]["embedding"] is None  # there is no place that it isn't on
    assert world.table() == rows


def test_passages_are_the_strongest_of_each_trace_and_stay_within_it(world):
    world.table()
    layout = lay_out(world.activations.lazy(), world.traces.lazy(), "reason", include_sinks=False)
    texts = [WORDS[token] for token in layout.token_ids]
    part = next(layout.parts([0, 1]))
    for column in (0, 1):
        values = np.asarray(part.by_latent[:, [column]].todense()).ravel()
        strongest = coherence._strongest(layout, values)
        elsewhere = coherence._elsewhere(layout, values, np.random.default_rng(0))
        for trace, (place, other) in enumerate(zip(strongest, elsewhere, strict=True)):
            first, last = layout.starts[trace], layout.starts[trace + 1]
            of_trace = values[first:last]
            assert place == (first + int(of_trace.argmax()) if of_trace.any() else -1)
            near = [all(values[max(first, at - coherence.BEFORE) : min(last, at + coherence.AFTER + 1)] == 0)
                    for at in range(first, last)]  # fmt: skip
            assert near[other - first] if any(near) else values[other] == 0
            text = "".join(texts[max(first, place - 10) : min(last, place + 5)])
            assert coherence.passage(layout, texts, place) == text


def test_a_rare_latent_is_looked_for_in_all_traces(monkeypatch):
    world = Texts(count=80)
    world.fire(0, lambda token: token["token"] == " egg", 0, 0)
    world.rows = [row for row in world.rows if row[0] >= 50]  # not in the first traces
    monkeypatch.setattr(coherence, "MOST_PASSAGES", 10)
    row = world.table()[0]
    assert row["passages"] == 10
    assert row["embedding"] is not None
    monkeypatch.setattr(coherence, "MOST_TRACES", 20)  # every fourth
    assert world.table()[0]["passages"] is None


def test_intruders_are_found_as_often_as_they_stand_out():
    chance = np.random.default_rng(0)
    same, other = np.tile([1.0, 0.0], (20, 1)), np.tile([0.0, 1.0], (7, 1))
    assert coherence._intruders(same, other, chance) == (1.0, 5)
    random = chance.normal(size=(400, 16))
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    found, groups = coherence._intruders(random[:320], random[320:], chance)
    assert groups == 80
    assert found == pytest.approx(0.2, abs=0.06)
