"""Rules that say what latents are on: those that were planted are found again, on traces they weren't learnt from."""

from itertools import product

import numpy as np
import polars as pl
import pytest

from thoughtscope.readings import activations as readings
from thoughtscope.report import descriptions
from thoughtscope.traces import generate as traces

STARTS = ["Wait", "So", "Let", "First", "Then", "Maybe"]
MIDDLE = [" cup", " egg", " sold", " more", " each", " day", " 4", " +", " 7", " =", " 11", " the"]
WORDS = [*STARTS, *MIDDLE, ".", "\n"]
VOCABULARY = pl.DataFrame(
    {"token_id": range(len(WORDS)), "text": WORDS, "token": [word.replace(" ", "␣") for word in WORDS[:-1]] + ["↵"]},
    schema_overrides={"token_id": pl.UInt32},
)
PROMPT = 3


def words_of(chance: np.random.Generator, sentences: int) -> list[str]:
    """Sentences of a first word, some others and a full stop, now and then with a line break."""
    words = []
    for _ in range(sentences):
        words += [STARTS[chance.integers(len(STARTS))], *chance.choice(MIDDLE, chance.integers(3, 9)), "."]
        words += ["\n"] * int(chance.random() < 0.3)
    return words


class World:
    """Traces of a grammar, and what is known of each token, (trace, index): word, word before, sentence, segment."""

    def __init__(self, seed: int = 0, count: int = 60) -> None:
        self.chance = np.random.default_rng(seed)
        self.rows: list[tuple] = []
        self.known: list[list[dict]] = []
        table = []
        for trace in range(count):
            words = words_of(self.chance, 14)
            close = words.index(".", len(words) // 2) + 1
            about, first, before, place = [], "", "", 0
            for index, word in enumerate(words):
                start = index in (0, close) or (words[index - 1] in (".", "\n") and word not in (".", "\n"))
                first, before = (word, "" if index in (0, close) else first) if start else (first, before)
                place = 0 if start else place + 1
                about.append({
                    "token": word, "before": words[index - 1] if index not in (0, close) else None,
                    "second_before": words[index - 2] if index - (0 if index < close else close) > 1 else None,
                    "sentence": first, "last_sentence": before, "place": place,
                    "segment": "think" if index < close else "answer",
                })  # fmt: skip
            self.known.append(about)
            ids = [WORDS.index(word) for word in words]
            ends = [0, PROMPT, PROMPT + close, PROMPT + len(ids)]
            segments = zip(("prompt", "think", "answer"), ends, ends[1:], strict=False)
            table.append(
                {"trace_id": trace, "condition": "reason", "seed": 0, "prompt_ids": [0] * PROMPT, "generated_ids": ids,
                 "prompt": "", "text": "", "finish_reason": "stop", "predicted": None, "reference": "1",
                 "correct": None,
                 "segments": [dict(zip(("segment", "start", "end"), part, strict=True)) for part in segments]}
            )  # fmt: skip
        self.traces = pl.DataFrame(table, schema=traces.SCHEMA)

    def fire(self, latent: int, when, missing: float = 0.03, stray: float = 0.002) -> None:
        for trace, about in enumerate(self.known):
            for index, token in enumerate(about[:-1]):
                on = self.chance.random() >= missing if when(token) else self.chance.random() < stray
                if on:
                    self.rows.append((trace, index, latent, float(self.chance.uniform(4, 6)), token["segment"]))

    def describe(self, latents: int = 100) -> dict[int, dict]:
        frame = pl.DataFrame(
            self.rows, schema=["trace_id", "index", "latent", "activation", "segment"], orient="row"
        ).with_columns(condition=pl.lit("reason"), position=pl.col("index") + PROMPT, sink=pl.lit(value=False))
        frame = frame.with_columns(pl.lit(None, kind).alias(name) for name, kind in readings.SCHEMA.items()
                                   if name not in frame.columns)  # fmt: skip
        acts = frame.select(*readings.SCHEMA).cast(dict(readings.SCHEMA))
        names = acts["latent"].unique().sort()
        verdict = pl.DataFrame({"latent": names, "verdict": ["undecided"] * len(names), "traces": [1] * len(names),
                                "beyond_chance_number": [1.0] * len(names)})  # fmt: skip
        table = descriptions.descriptions(
            acts.lazy(), self.traces.lazy(), verdict.lazy(), VOCABULARY.lazy(), condition="reason", latents=latents,
            include_sinks=False,
        )  # fmt: skip
        assert table.schema == descriptions.SCHEMA
        return {row["latent"]: row for row in table.iter_rows(named=True)}


PLANTED = {
    "a word": lambda token: token["token"] == " 7",
    "words": lambda token: token["token"] in (" cup", " egg", "Wait"),
    "after a word": lambda token: token["before"] == " +",
    "a word after words": lambda token: token["token"] in (" 4", " 7", " 11") and token["before"] in (" =", " the"),
    "two after": lambda token: token["second_before"] in ("Let", "Maybe"),
    "sentences": lambda token: token["sentence"] in ("Wait", "Maybe"),
    "a word in sentences": lambda token: token["sentence"] in ("So", "Then", "Let") and token["token"] in (" day", "."),
    "after sentences": lambda token: token["last_sentence"] in ("Wait", "Maybe"),
    "the first": lambda token: token["place"] == 0,
    "early in the answer": lambda token: token["segment"] == "answer" and token["place"] in (1, 2),
    "words of the answer": lambda token: token["segment"] == "answer" and token["token"] in (" sold", " more"),
    "ends of sentences": lambda token: token["sentence"] in ("First", "So") and token["token"] == ".",
}


def test_planted_rules_are_found():
    """Of each kind, the rule says the same as what was planted, on nearly every token, for nine in ten or more."""
    right, all_of_them = [], []
    for seed in range(3):
        world = World(seed)
        for latent, when in enumerate(PLANTED.values()):
            world.fire(latent, when)
        for latent, row in world.describe().items():
            all_of_them.append(list(PLANTED)[latent])
            # Of what was planted 3 % are left out, and beside it 2 in 1000 tokens are on: no rule can know these.
            known = sum(PLANTED[all_of_them[-1]](token) for about in world.known[1::2] for token in about[:-1])
            total = sum(len(about) - 1 for about in world.known[1::2])
            best = 2 * 0.97 * known / (known + 0.97 * known + 0.002 * (total - known))
            if row["f1"] > best - 0.03:
                right.append(all_of_them[-1])
            assert row["shuffled"] < 0.6
            assert row["shuffled"] < row["f1"] - 0.3
    assert len(right) >= 0.9 * len(all_of_them), sorted(set(all_of_them) - set(right))


def test_a_rule_says_what_it_asks():
    world = World()
    world.fire(0, PLANTED["words"], 0, 0)
    world.fire(1, PLANTED["a word in sentences"], 0, 0)
    world.fire(2, PLANTED["after a word"], 0, 0)
    world.fire(3, PLANTED["early in the answer"], 0, 0)
    words, sentences, after, early = (world.describe()[latent] for latent in range(4))
    assert sorted(words["token"]) == ["Wait", "␣cup", "␣egg"]
    assert set(words["rule"].removeprefix("on ").split()) == {"Wait", "␣cup", "␣egg"}
    assert (sorted(sentences["token"]), sorted(sentences["sentence"])) == ([".", "␣day"], ["Let", "So", "Then"])
    assert sentences["before"] is sentences["segment"] is None
    assert after["rule"] == "right after ␣+"
    assert early["rule"] == "as the second or the third of the sentence, in answer"
    for row in (words, sentences, after, early):
        assert row["precision"] == row["recall"] == row["f1"] == row["mass"] == 1


def test_numbers_are_counts_on_the_other_traces():
    """Precision, recall and the share of activation, by a loop over the traces that the rule wasn't learnt from."""
    world = World()
    world.fire(0, PLANTED["sentences"], 0.3, 0.05)
    row = world.describe()[0]
    value = {(trace, index): strength for trace, index, _, strength, _ in world.rows}
    half = np.mean([strength for (trace, _), strength in value.items() if trace % 2 == 0]) / 2
    named = on = both = 0
    inside = []
    assert set(row) - {name for name in row if row[name] is None} >= {"sentence"}
    asked = {name: set(row[name]) for name in descriptions.PROPERTIES if row[name] is not None}
    assert set(asked) == {"sentence"}
    for trace, about in enumerate(world.known):
        for index, token in enumerate(about[:-1]):
            if trace % 2:
                fires = token["sentence"] in asked["sentence"]
                is_on = value.get((trace, index), 0) >= half
                named, on, both = named + fires, on + is_on, both + (fires and is_on)
                inside.append((fires, value.get((trace, index), 0)))
    assert (row["fires"], row["tokens"]) == (named, on)
    assert row["precision"] == pytest.approx(both / named)
    assert row["recall"] == pytest.approx(both / on)
    assert row["f1"] == pytest.approx(2 * both / (named + on))
    total = sum(strength for _, strength in inside)
    assert row["mass"] == pytest.approx(sum(strength for fires, strength in inside if fires) / total)
    assert row["precision_low"] < row["precision"] < row["precision_high"]
    assert row["recall_low"] < row["recall"] < row["recall_high"]


def test_what_follows_nothing_has_no_rule():
    world = World()
    world.fire(0, lambda _: False, 0, 0.1)
    world.fire(1, lambda token: token["token"] == " 7" and id(token) == id(world.known[0][3]), 0, 0)
    world.rows.append((0, 5, 2, 1.0, "think"))  # in one of the traces that are learnt from alone
    rows = world.describe()
    if rows[0]["rule"] is not None:
        assert rows[0]["f1"] < rows[0]["shuffled"] + 0.1 < 0.4
    assert rows[2]["rule"] is None
    assert rows[2]["f1"] is None


def test_a_latent_that_is_on_everywhere_has_no_rule():
    world = World()
    world.fire(0, lambda _: True, 0, 0)
    row = world.describe()[0]
    assert (row["rule"], row["f1"], row["recall"], row["always"]) == (None, None, None, 1)


def test_what_is_anything_but_some_is_so_for_what_was_never_seen_too():
    """Types that are only in the traces a rule is tried on are none of those left out."""
    world = World()
    world.fire(0, lambda token: token["token"] not in (" 7", "."), 0, 0)
    rare = next(index for index, row in enumerate(world.traces["generated_ids"]) if index % 2)
    ids = [list(row) for row in world.traces["generated_ids"]]
    ids[rare][3] = len(WORDS)  # a type that no other trace has
    world.traces = world.traces.with_columns(generated_ids=pl.Series(ids, dtype=traces.SCHEMA["generated_ids"]))
    world.rows = [row for row in world.rows if row[:2] != (rare, 3)] + [(rare, 3, 0, 5.0, "think")]
    row = world.describe()[0]
    assert set(row["rule"].removeprefix("on anything but ").split()) == {"␣7", "."}
    assert (row["precision"], row["recall"]) == (1, 1)


def test_intervals_are_within_bounds_and_never_nothing():
    """Where each token that a rule names is right, too, as many traces could still have missed some."""
    world = World()
    world.fire(0, PLANTED["words"], 0, 0)
    world.fire(1, PLANTED["a word in sentences"], 0.2, 0.01)
    for row in world.describe().values():
        for name in ("precision", "recall"):
            low, value, high = row[f"{name}_low"], row[name], row[f"{name}_high"]
            assert 0 <= low < value <= high <= 1
            assert high - low > 0.01
    assert descriptions._interval(np.zeros((9, 1)), np.zeros((9, 1))) == (None, None)
    chance = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        whole = chance.poisson(0.5, (40, 1)).astype(float)
        part = chance.binomial(whole.astype(int), 0.95).astype(float)
        low, high = descriptions._interval(part, whole)
        inside.append(low is None or low <= 0.95 <= high)
    assert np.mean(inside) > 0.93


def test_the_best_set_is_the_best_of_all():
    """Against all sets of classes, with counts shrunk by hand."""
    chance = np.random.default_rng(0)
    for _ in range(20):
        of, on = chance.integers(0, 7, 60), chance.random(60) < chance.uniform(0.1, 0.6, 7)[chance.integers(0, 7, 60)]
        there = float(on.sum()) + chance.integers(0, 20)
        allowed, reached = descriptions._best_set(of, on, 7, there)
        named = np.bincount(of, minlength=7)
        hits = np.bincount(of[on], minlength=7)
        expected = named * (hits + descriptions.SHRINK * on.mean()) / (named + descriptions.SHRINK)
        scores = {}
        for chosen in product([False, True], repeat=7):
            mask = np.array(chosen) & (hits > 0)
            scores[tuple(mask)] = 2 * expected[mask].sum() / (named[mask].sum() + there)
        assert reached == pytest.approx(max(scores.values()))
        assert scores[tuple(allowed)] == pytest.approx(reached)


def test_it_is_a_function_of_its_input_and_takes_traces_evenly(monkeypatch):
    world = World()
    world.fire(0, PLANTED["words"])
    once = world.describe()
    assert world.describe() == once
    monkeypatch.setattr(descriptions, "MOST_TOKENS", 2000)
    assert len(descriptions.some(world.traces.lazy(), "reason").collect()) == 60  # 30 would be fewer than LEAST_TRACES
    monkeypatch.setattr(descriptions, "LEAST_TRACES", 10)
    chosen = descriptions.some(world.traces.lazy(), "reason").collect()
    lengths = world.traces["generated_ids"].list.len().sum()
    assert len(chosen) == len(world.traces) // -(-lengths // 2000)
    assert chosen["trace_id"][0] == 0
    assert len(descriptions.evenly(world.traces.head(1).lazy(), 9).collect()) == 1
    assert chosen["trace_id"].diff().drop_nulls().n_unique() == 1
    assert world.describe()[0]["tokens"] < once[0]["tokens"]
    empty = World()
    empty.rows = [(0, 0, 0, 1.0, "think")]
    empty.traces = empty.traces.head(1)
    assert empty.describe()[0]["rule"] is None
