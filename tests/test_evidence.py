"""Features and tables, against plain Python on random activations with ties."""

import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from thoughtscope import frames
from thoughtscope.evidence import recurrence as evidence
from thoughtscope.evidence import traces as of_each
from thoughtscope.frames import SCOPES
from thoughtscope.readings import activations, features

EVIDENCE = Path(evidence.__file__).parent
VOCABULARY = pl.LazyFrame(
    {"token_id": range(9), "token": [f"t{i}" for i in range(9)]}, schema_overrides={"token_id": pl.UInt32}
)


@pytest.fixture(scope="module")
def rows():
    """Random activations of three traces in each of two conditions; values repeat, so there are ties."""
    chance = random.Random(0)
    found = []
    for condition in ("reason", "direct"):
        for trace_id in range(3):
            for position in range(30):
                segment = "prompt" if position < 8 else "think" if position < 20 else "answer"
                sink = position == 0 or (position == 9 and trace_id == 1)
                token = chance.randrange(9)
                for latent in chance.sample(range(15), 4):
                    value = float(np.float32(chance.choice([0.5, 1.25, 5.0, chance.random() * 4 + 0.01])))
                    found.append((trace_id, condition, position, token, segment, sink, latent, value))
    return found


@pytest.fixture(scope="module")
def table(rows):
    return pl.DataFrame(rows, schema=activations.SCHEMA, orient="row").sort(
        "condition", "trace_id", "position", "activation", descending=[False, False, False, True]
    )


@pytest.fixture(scope="module")
def summary(table):
    return pl.concat([features.summarize(part) for _, part in table.group_by("condition", maintain_order=True)])


def counted(rows, scope, sinks):
    return [row for row in rows if (sinks or not row[5]) and (scope == "all" or row[4] != "prompt")]


CASES = [(scope, sinks) for scope in SCOPES for sinks in (False, True)]


def test_features(rows, summary):
    groups = defaultdict(list)
    for trace_id, condition, position, token, segment, sink, latent, value in rows:
        groups[trace_id, condition, segment, sink, latent].append((position, token, value))
    assert len(summary) == len(groups)
    for row in summary.iter_rows(named=True):
        group = groups[row["trace_id"], row["condition"], row["segment"], row["sink"], row["latent"]]
        peak = max(value for *_, value in group)
        first = min((position, token) for position, token, value in group if value == peak)
        assert row["tokens"] == len(group)
        assert row["sum"] == pytest.approx(sum(value for *_, value in group), rel=1e-12)
        assert (row["max"], row["max_position"], row["max_token_id"]) == (peak, *first)


@pytest.mark.parametrize(("scope", "sinks"), CASES)
def test_top_activations(rows, table, scope, sinks):
    """Ranked among those that count, and among all: the table says which of the largest are on sinks, either way."""
    per_trace = of_each.trace_top_activations(table.lazy(), VOCABULARY, 17, sinks)
    assert per_trace.filter(pl.col("rank").is_null(), pl.col("rank_with_sinks").is_null()).is_empty()
    pooled = evidence.top_activations(table.lazy(), VOCABULARY, top_activations=17, include_sinks=sinks)
    assert pooled.columns == per_trace.columns
    for rank, included in (("rank", sinks), ("rank_with_sinks", True)):
        is_ranked = pl.col(rank).is_not_null()
        for condition in ("reason", "direct"):
            mine = [row for row in counted(rows, scope, included) if row[1] == condition]
            for trace_id in range(3):
                trace = sorted((-row[7], row[2], row[6], row[3], row[5]) for row in mine if row[0] == trace_id)[:17]
                found = per_trace.filter(is_ranked, trace_id=trace_id, condition=condition, scope=scope)
                columns = found.select(-pl.col("activation"), "position", "latent", "token_id", "sink").rows()
                assert columns == trace
                assert found[rank].to_list() == list(range(1, 18))
                assert found["token"].to_list() == [f"t{token}" for *_, token, _ in trace]
            ranked = pooled.filter(is_ranked, condition=condition, scope=scope)
            expected = sorted((-row[7], row[0], row[2], row[6]) for row in mine)[:17]
            assert ranked.select(-pl.col("activation"), "trace_id", "position", "latent").rows() == expected
            assert ranked[rank].to_list() == list(range(1, 18))


def test_sinks(rows, table):
    found = evidence.sinks(table.lazy(), VOCABULARY)
    expected = defaultdict(list)
    for trace_id, condition, position, token, segment, sink, _, value in rows:
        if sink:
            expected[condition, trace_id, position, segment, token, f"t{token}"].append(value)
    assert len(expected) == 8  # position 0 of each trace, and one more in each condition
    columns = found.select("condition", "trace_id", "position", "segment", "token_id", "token", "active", "largest")
    assert columns.rows() == sorted((*key, len(values), max(values)) for key, values in expected.items())


@pytest.mark.parametrize(("scope", "sinks"), CASES)
def test_frequencies(rows, summary, scope, sinks):
    per_trace = of_each.trace_frequencies(summary.lazy(), sinks).filter(scope=scope)
    expected = Counter((row[1], row[0], row[6]) for row in counted(rows, scope, sinks))
    assert {row[:3]: row[3] for row in per_trace.select("condition", "trace_id", "latent", "tokens").rows()} == expected
    pooled = evidence.frequencies(summary.lazy(), include_sinks=sinks).filter(scope=scope)
    together = Counter((row[1], row[6]) for row in counted(rows, scope, sinks))
    assert {row[:2]: row[2] for row in pooled.select("condition", "latent", "tokens").rows()} == together
    for row in pooled.iter_rows(named=True):
        values = [r[7] for r in counted(rows, scope, sinks) if (r[1], r[6]) == (row["condition"], row["latent"])]
        assert row["mean"] == pytest.approx(sum(values) / len(values), rel=1e-9)
        assert row["max"] == max(values)
        traces = {r[0] for r in counted(rows, scope, sinks) if (r[1], r[6]) == (row["condition"], row["latent"])}
        assert row["traces"] == len(traces)
    order = pooled.filter(condition="reason").select(-pl.col("tokens").cast(pl.Int64), "latent").rows()
    assert order == sorted(order)


def relevant_by_hand(rows, scope, sinks, count):
    """Per condition and trace, the latents with the largest maxima: (latent, maximum, position), in order."""
    found = {}
    for condition in ("reason", "direct"):
        for trace_id in range(3):
            best = {}
            for row in counted(rows, scope, sinks):
                if (row[1], row[0]) == (condition, trace_id):
                    candidate = (-row[7], row[2])
                    best[row[6]] = min(best.get(row[6], candidate), candidate)
            order = sorted((value, latent, position) for latent, (value, position) in best.items())
            found[condition, trace_id] = [(latent, -value, position) for value, latent, position in order[:count]]
    return found


@pytest.mark.parametrize(("scope", "sinks"), CASES)
def test_relevant_latents_and_recurrence(rows, summary, scope, sinks):
    relevant = evidence.relevant_latents(summary.lazy(), VOCABULARY, top_latents=4, include_sinks=sinks)
    expected = relevant_by_hand(rows, scope, sinks, 4)
    for (condition, trace_id), latents in expected.items():
        mine = relevant.filter(condition=condition, trace_id=trace_id, scope=scope)
        assert mine.select("latent", "max", "position").rows() == latents
        assert mine["rank"].to_list() == [1, 2, 3, 4]
    recurring = evidence.recurrence(relevant.lazy(), inferences=3).filter(scope=scope)
    counts = Counter((condition, latent) for (condition, _), mine in expected.items() for latent, *_ in mine)
    assert {row[:2]: row[2] for row in recurring.select("condition", "latent", "traces").rows()} == counts
    for row in recurring.iter_rows(named=True):
        ranks = [
            [latent for latent, *_ in mine].index(row["latent"]) + 1
            for (condition, _), mine in expected.items()
            if condition == row["condition"] and row["latent"] in [latent for latent, *_ in mine]
        ]
        assert (row["best_rank"], row["of"]) == (min(ranks), 3)
        assert row["mean_rank"] == pytest.approx(sum(ranks) / len(ranks))
        assert row["share"] == pytest.approx(len(ranks) / 3)


@pytest.mark.parametrize(("scope", "sinks"), CASES)
def test_top_tokens(rows, table, summary, scope, sinks):
    relevant = evidence.relevant_latents(summary.lazy(), VOCABULARY, top_latents=4, include_sinks=sinks)
    found = of_each.trace_top_tokens(table.lazy(), relevant.lazy(), VOCABULARY, 3, sinks)
    by_hand = relevant_by_hand(rows, scope, sinks, 4)
    for (condition, trace_id), latents in by_hand.items():
        here = found.filter(condition=condition, trace_id=trace_id, scope=scope)
        assert set(here["latent"]) == {latent for latent, *_ in latents}
        for latent, *_ in latents:
            values = defaultdict(list)
            for row in counted(rows, scope, sinks):
                if (row[1], row[0], row[6]) == (condition, trace_id, latent):
                    values[row[3]].append(row[7])
            expected = sorted((-max(group), token, len(group)) for token, group in values.items())[:3]
            assert here.filter(latent=latent).select(-pl.col("max"), "token_id", "tokens").rows() == expected

    recurring = evidence.recurrence(relevant.lazy(), inferences=3)
    pooled = evidence.top_tokens(table.lazy(), recurring.lazy(), VOCABULARY, top_tokens=3, include_sinks=sinks)
    for condition in ("reason", "direct"):
        latents = {latent for (named, _), mine in by_hand.items() if named == condition for latent, *_ in mine}
        here = pooled.filter(condition=condition, scope=scope)
        assert set(here["latent"]) == latents
        for latent in latents:
            values, traces = defaultdict(list), defaultdict(set)
            for row in counted(rows, scope, sinks):
                if (row[1], row[6]) == (condition, latent):
                    values[row[3]].append(row[7])
                    traces[row[3]].add(row[0])
            expected = sorted((-max(g), token, len(g), len(traces[token])) for token, g in values.items())[:3]
            mine = here.filter(latent=latent).select(-pl.col("max"), "token_id", "tokens", "traces").rows()
            assert mine == expected


@pytest.mark.parametrize(("scope", "sinks"), CASES)
def test_histograms(rows, table, scope, sinks):
    per_trace = of_each.trace_histograms(table.lazy(), 7, sinks)
    for condition in ("reason", "direct"):
        for trace_id in range(3):
            values = [r[7] for r in counted(rows, scope, sinks) if (r[1], r[0]) == (condition, trace_id)]
            mine = per_trace.filter(condition=condition, trace_id=trace_id, scope=scope)
            low, high = min(values), max(values)
            width = (high - low) / 7
            expected = Counter(min(int((value - low) / width), 6) for value in values)
            assert mine["count"].to_list() == [expected[index] for index in range(7)]
            assert mine["lower"][0] == pytest.approx(low)
            assert mine["upper"][6] == pytest.approx(high)
    pooled = evidence.histogram(table.lazy(), histogram_bins=7, include_sinks=sinks).filter(scope=scope)
    width = max(row[7] for row in counted(rows, scope, sinks)) / 7
    for condition in ("reason", "direct"):
        values = [row[7] for row in counted(rows, scope, sinks) if row[1] == condition]
        expected = Counter(min(int(value / width), 6) for value in values)
        mine = pooled.filter(condition=condition)
        assert mine["count"].to_list() == [expected[index] for index in range(7)]
        assert mine["upper"].to_list() == pytest.approx([width * (index + 1) for index in range(7)])


def test_ranks_go_on_where_small_integers_end():
    """One trace of 2,500 tokens with k = 32 has 80,000 activations, more than 16 bits can rank."""
    rows = 80_000
    table = pl.DataFrame(
        {"trace_id": [0] * rows, "condition": ["reason"] * rows, "position": np.arange(rows) // 32,
         "token_id": [1] * rows, "segment": ["answer"] * rows, "sink": [False] * rows,
         "latent": np.arange(rows) % 32, "activation": np.linspace(1, 2, rows)},
        schema=activations.SCHEMA,
    )  # fmt: skip
    top = of_each.trace_top_activations(table.lazy(), VOCABULARY, 5, False)
    assert top.filter(scope="generated")["position"].to_list() == [2499] * 5


def test_tables_do_not_depend_on_how_blocks_are_cut(table, summary):
    parts = [part for _, part in table.group_by("condition", "trace_id")]
    again = pl.concat([features.summarize(part) for part in reversed(parts)])
    for make in (
        lambda f: evidence.frequencies(f.lazy(), include_sinks=False).drop("mean"),
        lambda f: evidence.relevant_latents(f.lazy(), VOCABULARY, top_latents=4, include_sinks=False),
    ):
        assert make(summary).equals(make(again))


def test_layers(rows, table, summary):
    relevant = evidence.relevant_latents(summary.lazy(), VOCABULARY, top_latents=4, include_sinks=False)
    recurring = evidence.recurrence(relevant.lazy(), inferences=3)
    active = evidence.frequencies(summary.lazy(), include_sinks=False)
    sinks = evidence.sinks(table.lazy(), VOCABULARY)
    top = evidence.top_activations(table.lazy(), VOCABULARY, top_activations=90, include_sinks=False)
    frames = [
        frame.lazy().with_columns(site=pl.lit("layers.1.mlp")) for frame in (active, recurring, relevant, sinks, top)
    ]
    compared = evidence.layers(*frames, min_traces=2)
    assert len(compared) == 4
    row = compared.filter(condition="reason", scope="generated").row(0, named=True)
    mine = recurring.filter(condition="reason", scope="generated")
    assert row["active"] == len(active.filter(condition="reason", scope="generated"))
    assert (row["relevant"], row["recurring"]) == (len(mine), (mine["traces"] >= 2).sum())
    thrice = evidence.layers(*frames, min_traces=3).filter(condition="reason", scope="generated")["recurring"][0]
    assert thrice == (mine["traces"] >= 3).sum() < row["recurring"]
    assert row["top_traces"] == mine["traces"].max()
    by_hand = relevant_by_hand(rows, "generated", False, 4)
    peaks = [len({position for *_, position in by_hand["reason", trace_id]}) for trace_id in range(3)]
    assert row["peaks"] == pytest.approx(sum(peaks) / 3)
    assert row["sinks"] == 1  # position 9 of trace 1; position 0 is in the prompt
    assert compared.filter(condition="reason", scope="all")["sinks"].to_list() == [4]
    for scope in SCOPES:
        row = compared.filter(condition="reason", scope=scope).row(0, named=True)
        mine = [r for r in counted(rows, scope, True) if r[1] == "reason"]
        largest = sorted((-r[7], r[0], r[2], r[6], r[5]) for r in mine)[:90]
        assert row["listed"] == 90
        assert row["sinks_on_top"] == sum(sink for *_, sink in largest)
        assert row["largest_on_sinks"] == max(-value for value, *_, sink in largest if sink)
        assert row["largest_elsewhere"] == max(r[7] for r in mine if not r[5])


def test_tables_made_in_parts_are_the_same(table, summary, monkeypatch):
    """A few rows at a time, by trace or latent, whatever the table."""
    made = []
    for rows_at_once in (frames.ROWS_AT_ONCE, 50):
        monkeypatch.setattr(frames, "ROWS_AT_ONCE", rows_at_once)
        relevant = evidence.relevant_latents(summary.lazy(), VOCABULARY, top_latents=4, include_sinks=False)
        recurring = evidence.recurrence(relevant.lazy(), inferences=3)
        top = evidence.top_tokens(table.lazy(), recurring.lazy(), VOCABULARY, top_tokens=3, include_sinks=False)
        made.append([relevant, top, evidence.frequencies(summary.lazy(), include_sinks=False)])
    for whole, parts in zip(*made, strict=True):
        assert whole.equals(parts)


@pytest.mark.parametrize("module", sorted(path.stem for path in EVIDENCE.glob("*.py")))
def test_what_makes_tables_imports_little(module):
    """A job is over in a second: neither scipy.stats nor torch is loaded where only some tables, or none, need it."""
    code = f"import sys, thoughtscope.evidence.{module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(EVIDENCE.parents[1])}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "transformers", "matplotlib", "scipy.stats"}
    assert "scipy.sparse" not in loaded or module in (
        "alike",
        "windows",
        "patterns",
        "presence",
        "reason",
        "lexicality",
    )
