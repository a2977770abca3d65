"""Dashboards: passages, histograms, strips and neighbours, against plain loops over all tokens."""

import statistics
import subprocess
import sys
from collections import Counter, defaultdict

import numpy as np
import polars as pl
import pytest
from conftest import REPO
from synthetic import PROMPT, VOCABULARY, Synthetic

from thoughtscope.evidence import recurrence as evidence
from thoughtscope.readings import features
from thoughtscope.readings.activations import SCHEMA as ACTIVATIONS
from thoughtscope.report import dashboards
from thoughtscope.report.dashboards import AFTER, BANDS, BEFORE, PER_BAND, TOP
from thoughtscope.statistics import MIN_TOKENS
from thoughtscope.traces.generate import SCHEMA as TRACES

CONDITIONS = ["reason", "direct"]
FREQUENT, EVERYWHERE, ONCE, NEVER = 20, 21, 22, 99
LATENTS = [FREQUENT, 3, 7, EVERYWHERE, ONCE, NEVER]
SINKS = pytest.mark.parametrize("include_sinks", [False, True])


@pytest.fixture(scope="module")
def study():
    """Twelve traces under each of two conditions; steps of half make equal values; some written tokens are sinks."""
    made = Synthetic(seed=3, problems=12, length=60)
    for (_, trace), sinks in made.sinks.items():
        sinks.update({5, 9} if trace % 3 == 0 else ())
    made.background(range(20), rate=0.15)
    made.fire(FREQUENT, lambda _c, _t, index, word, _s: word in ("Wait", "maybe", "the", "of") or index in (0, 9))
    made.fire(EVERYWHERE, lambda *_: True)
    made.fire(ONCE, lambda condition, trace, index, *_: (condition, trace, index) == ("reason", 5, 20))
    made.rows = [(*row[:-1], max(0.5, round(2 * row[-1]) / 2)) for row in made.rows]
    made.rows = [(*row[:-1], 50.0 * row[-1] if row[2] in made.sinks[row[:2]] else row[-1]) for row in made.rows]
    written = made.activations()
    chance = np.random.default_rng(0)
    prompt = [
        (trace, condition, position, 0, "prompt", position == 0, latent, 9.0 + latent)
        for condition in CONDITIONS for trace in range(12) for position in range(PROMPT) for latent in range(25)
        if chance.random() < 0.4
    ]  # fmt: skip
    return tables(pl.concat([written, pl.DataFrame(prompt, schema=ACTIVATIONS, orient="row")]), made.traces)


def tables(active, traces):
    """The inputs, as the workflow's files would be."""
    active = active.sort("condition", "trace_id", "position", "activation", descending=[False, False, False, True])
    parts = [features.summarize(part) for _, part in active.group_by("condition", maintain_order=True)]
    return {
        "activations": active.lazy(),
        "features": pl.concat([pl.DataFrame(schema=features.SCHEMA), *parts]).lazy(),
        "traces": traces.lazy(),
        "sinks": evidence.sinks(active.lazy(), VOCABULARY.lazy()).lazy(),
    }


def sparse(values, lengths, prompt=PROMPT):
    """A study of one condition from {(trace, position, latent): activation} and the tokens that each trace wrote."""
    traces = pl.DataFrame(
        [{"trace_id": trace, "condition": "reason", "prompt_ids": range(prompt), "generated_ids": range(100, 100 + n),
          "segments": [{"segment": "prompt", "start": 0, "end": prompt},
                       {"segment": "answer", "start": prompt, "end": prompt + n}]} for trace, n in lengths.items()],
        schema={name: TRACES[name] for name in ("trace_id", "condition", "prompt_ids", "generated_ids", "segments")},
    )  # fmt: skip
    rows = [
        (trace, "reason", position, 0, "prompt" if position < prompt else "answer", False, latent, value)
        for (trace, position, latent), value in values.items()
    ]
    return tables(pl.DataFrame(rows, schema=ACTIVATIONS, orient="row"), traces)


def passages(study, *latents, condition="reason", include_sinks=False, **settings):
    return dashboards.passages(
        study["activations"], study["traces"], latents=latents or LATENTS, condition=condition,
        include_sinks=include_sinks, **settings,
    )  # fmt: skip


def histograms(study, include_sinks, **settings):
    settings = {"latents": LATENTS, "conditions": CONDITIONS} | settings
    frames = (study[name] for name in ("activations", "traces", "sinks"))
    return dashboards.latent_histograms(*frames, include_sinks=include_sinks, **settings)


def strips(study, include_sinks, latents=tuple(LATENTS)):
    return dashboards.strips(study["features"], latents=latents, conditions=CONDITIONS, include_sinks=include_sinks)


def coactivation(study, include_sinks, **settings):
    settings = {"latents": LATENTS, "condition": "reason"} | settings
    frames = (study[name] for name in ("activations", "traces", "sinks"))
    return dashboards.coactivation(*frames, include_sinks=include_sinks, **settings)


def peaks_by_hand(study, latent, include_sinks, condition="reason"):
    """All of a latent's (trace, position): activation, and those that may be peaks."""
    every, counted = {}, {}
    for row in study["activations"].collect().filter(latent=latent, condition=condition).iter_rows(named=True):
        every[row["trace_id"], row["position"]] = row["activation"]
        if row["segment"] != "prompt" and (include_sinks or not row["sink"]):
            counted[row["trace_id"], row["position"]] = row["activation"]
    return every, counted


def extent(trace, position, lengths):
    return trace, max(0, position - BEFORE), min(lengths[trace], position + AFTER + 1)


def overlap(one, other):
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


@SINKS
@pytest.mark.parametrize("latent", [3, FREQUENT, EVERYWHERE, ONCE])
def test_passages_are_what_loops_find(study, latent, include_sinks):
    every, counted = peaks_by_hand(study, latent, include_sinks)
    rows = study["traces"].filter(pl.col("condition") == "reason").collect().iter_rows(named=True)
    ids = {row["trace_id"]: row["prompt_ids"] + row["generated_ids"] for row in rows}
    lengths = {trace: len(tokens) for trace, tokens in ids.items()}
    table = passages(study, include_sinks=include_sinks).filter(latent=latent)
    for row in table.iter_rows(named=True):
        trace, peak = row["trace_id"], row["peak"]
        assert row["condition"] == "reason"
        assert row["activation"] == counted[trace, peak]
        _, start, end = extent(trace, peak, lengths)
        assert row["start"] == start
        assert row["token_ids"] == ids[trace][start:end]
        assert row["values"] == [
            None if position == lengths[trace] - 1 else every.get((trace, position), 0)
            for position in range(start, end)
        ]

    best = {}
    for (trace, position), value in sorted(counted.items()):
        if trace not in best or value > best[trace][1]:
            best[trace] = position, value
    top = sorted(best, key=lambda trace: (-best[trace][1], trace))[:TOP]
    found = table.filter(band="top")
    assert found.select("trace_id", "peak").rows() == [(trace, best[trace][0]) for trace in top]
    assert found["rank"].to_list() == list(range(1, len(top) + 1))

    shown = [extent(*row, lengths) for row in found.select("trace_id", "peak").iter_rows()]
    values = list(counted.values())
    cuts = [0, *(statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3), np.inf]
    for band, quarter in zip(BANDS[1:], (3, 2, 1, 0), strict=True):
        inside = {peak for peak, value in counted.items() if cuts[quarter] <= value < cuts[quarter + 1]}
        found = table.filter(band=band)
        drawn = found.select("trace_id", "peak").rows()
        assert set(drawn) <= inside
        assert len(drawn) == len(set(drawn)) == min(PER_BAND, len(inside))
        assert found["rank"].to_list() == list(range(1, len(drawn) + 1))
        assert drawn == sorted(drawn, key=lambda peak: (-counted[peak], *peak))
        traces = {trace for trace, _ in drawn}
        assert len(traces) == min(PER_BAND, len({trace for trace, _ in inside}))
        repeats = any(overlap(extent(*peak, lengths), other) for peak in drawn for other in shown)
        shown += [extent(*peak, lengths) for peak in drawn]
        if repeats:  # then no trace had anything else to show
            unused = [extent(*peak, lengths) for peak in inside if peak[0] not in traces]
            assert all(any(overlap(one, other) for other in shown) for one in unused)


@SINKS
def test_sinks_are_peaks_only_if_included(study, include_sinks):
    table = passages(study, FREQUENT, include_sinks=include_sinks)
    sinks = study["sinks"].filter(pl.col("condition") == "reason").select("trace_id", "position").collect().rows()
    peaks = table.select("trace_id", "peak").rows()
    assert bool({*peaks} & {*sinks}) == include_sinks
    # They are in the context of others either way.
    assert table.filter(band="top")["values"].explode().max() > 100


def test_bands_are_cut_at_the_quartiles():
    """Nine values: the quartiles are the third, fifth and seventh, each in the quarter above it."""
    study = sparse({(trace, 6, 1): float(trace + 1) for trace in range(9)}, dict.fromkeys(range(9), 30))
    table = passages(study, 1)
    found = {band: table.filter(band=band)["activation"].to_list() for band in BANDS}
    assert found == {"top": [9, 8, 7, 6, 5, 4, 3, 2], "q4": [9, 8, 7], "q3": [6, 5], "q2": [4, 3], "q1": [2, 1]}
    # Between two values they are interpolated: of 1, 2, 4, 10 they are 1.75, 3, 5.5.
    four = dict(enumerate([1.0, 2.0, 4.0, 10.0]))
    table = passages(sparse({(trace, 6, 1): value for trace, value in four.items()}, dict.fromkeys(four, 30)), 1)
    assert [table.filter(band=band)["activation"].to_list() for band in BANDS[1:]] == [[10], [4], [2], [1]]
    few = {0: 1.0, 1: 2.0}
    table = passages(sparse({(trace, 6, 1): value for trace, value in few.items()}, dict.fromkeys(few, 30)), 1)
    assert [table.filter(band=band)["activation"].to_list() for band in BANDS[1:]] == [[2], [], [], [1]]


def test_equal_values_are_in_the_highest_quarter():
    values = {(trace, position, 1): 2.5 for trace in (4, 2, 7) for position in (66, 9, 36)}
    table = passages(sparse(values, {2: 80, 4: 80, 7: 80}), 1)
    assert table["band"].unique(maintain_order=True).to_list() == ["top", "q4"]
    assert table.filter(band="top").select("rank", "trace_id", "peak").rows() == [(1, 2, 9), (2, 4, 9), (3, 7, 9)]
    drawn = table.filter(band="q4").select("trace_id", "peak").rows()
    assert len(drawn) == 4
    assert {trace for trace, _ in drawn} == {2, 4, 7}
    assert all(peak != 9 for _, peak in drawn)  # those are shown already


def test_a_latent_active_on_one_token():
    table = passages(sparse({(3, 8, 1): 1.5}, {3: 30, 4: 30}), 1)
    assert table.select("band", "rank", "trace_id", "peak").rows() == [("top", 1, 3, 8), ("q4", 1, 3, 8)]
    assert table["values"][0].to_list() == [0.0] * 8 + [1.5] + [0.0] * 8


def test_peaks_at_the_ends_of_a_trace():
    """The first written token, the last that was read, and one in the middle; the last written token has no value."""
    study = sparse({(0, 4, 1): 3.0, (1, 42, 1): 2.0, (2, 20, 1): 1.0, (2, 3, 1): 9.0}, {0: 40, 1: 40, 2: 41})
    table = passages(study, 1)
    first, last, middle = table.filter(band="top").iter_rows(named=True)
    written = list(range(100, 141))
    assert (first["peak"], first["start"]) == (4, 0)
    assert first["token_ids"] == [0, 1, 2, 3, *written[:9]]
    assert first["values"] == [0, 0, 0, 0, 3] + [0] * 8
    assert (last["peak"], last["start"]) == (42, 26)
    assert last["token_ids"] == written[22:40]
    assert last["values"] == [0] * 16 + [2, None]
    assert (middle["peak"], middle["start"], len(middle["values"])) == (20, 4, 25)
    # From the prompt there is context, but no peak.
    table = passages(sparse({(2, 10, 1): 1.0, (2, 3, 1): 9.0}, {2: 41}), 1)
    assert table["peak"].unique().to_list() == [10]
    assert table["values"][0].to_list() == [0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1] + [0] * 8
    # Exactly at the end of what was read, and just before: the last token is in the passage, then it isn't.
    assert [passages(sparse({(0, peak, 1): 1.0}, {0: 40}), 1)["values"][0][-1] for peak in (35, 34)] == [None, 0]
    # A trace that wrote one token has read none of it.
    assert passages(sparse({(0, 1, 1): 1.0}, {0: 1}), 1).is_empty()


def test_draws_prefer_other_traces_then_other_tokens():
    # One trace has nearly all tokens of the lowest quarter, three have one each: all four are shown.
    values = {(0, 10 + index, 1): 1.0 + index / 1000 for index in range(100)}
    values |= {(trace, 10, 1): 1.0 for trace in (1, 2, 3)} | {(9, 10 + index, 1): 5.0 for index in range(400)}
    study = sparse(values, {0: 200, 1: 30, 2: 30, 3: 30, 9: 500})
    for seed in range(10):
        drawn = passages(study, 1, seed=seed).filter(band="q1")
        assert sorted(drawn["trace_id"]) == [0, 1, 2, 3]
    # In a single trace, tokens far from what is shown are left for all: they are taken.
    study = sparse({(0, position, 1): 1.0 + position / 1000 for position in range(10, 900)}, {0: 1000})
    for seed in range(10):
        shown = [extent(0, peak, {0: 1000}) for peak in passages(study, 1, seed=seed)["peak"]]
        assert len(shown) == 1 + 4 * PER_BAND
        assert not any(overlap(one, other) for i, one in enumerate(shown) for other in shown[:i])
    # A trace comes before tokens not shown yet: of two traces with one token each, both are shown again.
    values = {(trace, 10, 1): 3.0 for trace in range(2)} | {(2, 10 + 30 * index, 1): 3.0 for index in range(9)}
    drawn = passages(sparse(values, {0: 30, 1: 30, 2: 400}), 1).filter(band="q4")
    assert Counter(drawn["trace_id"]) == {0: 1, 1: 1, 2: 2}


def test_draws_depend_on_seed_latent_and_quarter_alone(study):
    every = passages(study)
    shuffled = study | {"activations": study["activations"].collect().sample(fraction=1, shuffle=True, seed=1).lazy()}
    assert passages(shuffled, *reversed(LATENTS)).equals(every)
    for latent in LATENTS:
        assert passages(study, latent).equals(every.filter(latent=latent))
    assert not passages(study, seed=1).equals(every)
    assert passages(study, seed=1).filter(band="top").equals(every.filter(band="top"))
    assert every["latent"].unique(maintain_order=True).to_list() == sorted({*LATENTS} - {NEVER})

    # Two latents that are active alike: what is drawn is not; nor is it from one quarter as from another.
    lengths = dict.fromkeys(range(160), 30)
    values = {(trace, 6, latent): 1.0 + trace for trace in range(160) for latent in (1, 2)}
    alike = passages(sparse(values, lengths), 1, 2)
    drawn = {tuple(alike.filter(latent=latent, band=f"q{quarter}")["trace_id"] - 40 * (quarter - 1))
             for latent in (1, 2) for quarter in (1, 2, 3)}  # fmt: skip
    assert len(drawn) == 6


def test_every_token_of_a_quarter_is_as_likely():
    study = sparse({(trace, 6, 1): 1.0 + trace for trace in range(40)}, dict.fromkeys(range(40), 30))
    counts = Counter()
    for seed in range(200):
        counts.update(passages(study, 1, seed=seed).filter(band="q1")["trace_id"])
    assert sorted(counts) == list(range(10))
    assert all(80 - 35 < count < 80 + 35 for count in counts.values())  # 200 x 4 of 10, five standard deviations


@SINKS
def test_histograms(study, include_sinks):
    table = histograms(study, include_sinks, bins=7)
    assert table.schema == dashboards.LATENT_HISTOGRAMS_SCHEMA
    assert table.select("latent", "condition").rows() == [(a, b) for a in sorted(LATENTS) for b in CONDITIONS]
    sinks = study["sinks"].collect().filter(pl.col("segment") != "prompt")
    assert len(sinks) == 16
    for latent in LATENTS:
        found = {condition: peaks_by_hand(study, latent, include_sinks, condition)[1] for condition in CONDITIONS}
        largest = max([*found["reason"].values(), *found["direct"].values()], default=0)
        for condition in CONDITIONS:
            counts = [0] * 7
            for value in found[condition].values():
                counts[min(6, int(value / largest * 7))] += 1
            written = study["traces"].filter(pl.col("condition") == condition).collect()["generated_ids"].list.len()
            left_out = 0 if include_sinks else len(sinks.filter(condition=condition))
            row = table.filter(latent=latent, condition=condition).row(0, named=True)
            assert row["counts"] == counts
            assert row["tokens_active"] == len(found[condition])
            assert row["tokens"] == written.sum() - 12 - left_out
            assert row["largest"] == largest
            values = sorted(found[condition].values())
            cuts = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
            assert row["quartiles"] == pytest.approx([values[0], *cuts, values[-1]] if values else [])
    once = table.filter(latent=ONCE)
    assert once["tokens_active"].to_list() == [1, 0]
    assert once["counts"].to_list() == [[0] * 6 + [1], [0] * 7]
    assert once["largest"].n_unique() == 1
    assert (table.filter(latent=EVERYWHERE)["tokens_active"] == table.filter(latent=EVERYWHERE)["tokens"]).all()


def test_histograms_have_thirty_bins_and_the_conditions_in_their_order(study):
    table = histograms(study, False, conditions=CONDITIONS[::-1])
    assert table["condition"].to_list() == ["direct", "reason"] * len(LATENTS)
    assert set(table["counts"].list.len()) == {30}
    alone = histograms(study, False, latents=[ONCE], conditions=["direct"])
    assert alone.select("tokens_active", "largest").rows() == [(0, 0)]


@SINKS
def test_strips(study, include_sinks):
    relevant = evidence.relevant_latents(
        study["features"], VOCABULARY.lazy(), top_latents=1000, include_sinks=include_sinks
    ).filter(pl.col("latent").is_in(LATENTS), scope="generated")
    assert relevant.group_by("condition", "trace_id", "max").len()["len"].max() > 1  # there are ties
    expected = {(row["latent"], row["condition"], row["trace_id"]): (row["rank"], row["max"])
                for row in relevant.iter_rows(named=True)}  # fmt: skip
    tokens = defaultdict(int)
    for condition in CONDITIONS:
        for latent in LATENTS:
            for trace, _ in peaks_by_hand(study, latent, include_sinks, condition)[1]:
                tokens[latent, condition, trace] += 1
    table = strips(study, include_sinks)
    assert table.schema == dashboards.STRIPS_SCHEMA
    keys = table.select("latent", "condition", "trace_id").rows()
    assert keys == sorted(tokens, key=lambda key: (key[0], CONDITIONS.index(key[1]), key[2]))
    assert dict(zip(keys, table.select("rank", "max").rows(), strict=True)) == expected
    assert dict(zip(keys, table["tokens"], strict=True)) == tokens


@SINKS
def test_phi_is_the_correlation_of_the_indicators(study, include_sinks, monkeypatch):
    """Over all tokens that were read, on which any or no latent is active."""
    tokens = [
        (trace["trace_id"], position)
        for trace in study["traces"].filter(pl.col("condition") == "reason").collect().iter_rows(named=True)
        for position in range(PROMPT, PROMPT + len(trace["generated_ids"]) - 1)
    ]
    if not include_sinks:
        sinks = study["sinks"].filter(pl.col("condition") == "reason").select("trace_id", "position").collect().rows()
        tokens = [token for token in tokens if token not in sinks]
    of = {latent: peaks_by_hand(study, latent, include_sinks)[1] for latent in range(100)}
    active = np.array([[token in of[latent] for token in tokens] for latent in range(100)], dtype=float)
    known = [n for n in range(100) if MIN_TOKENS <= len(of[n]) < len(tokens)]
    table = coactivation(study, include_sinks, most=100)
    assert table.schema == dashboards.COACTIVATION_SCHEMA
    varying = [3, 7, FREQUENT, ONCE]  # what is active everywhere or never correlates with nothing
    assert table["latent"].unique(maintain_order=True).to_list() == varying
    for latent in varying:
        mine = table.filter(latent=latent)
        expected = {n: np.corrcoef(active[latent], active[n])[0, 1] for n in known if n != latent}
        assert len(expected) > 15
        assert sorted(mine["neighbour"]) == sorted(expected)
        assert mine["rank"].to_list() == list(range(1, len(expected) + 1))
        assert mine["phi"].is_sorted(descending=True)
        for row in mine.iter_rows(named=True):
            assert row["phi"] == pytest.approx(expected[row["neighbour"]], abs=1e-6)
            assert row["both"] == (active[latent] * active[row["neighbour"]]).sum()
            assert row["tokens"] == active[row["neighbour"]].sum()
    assert coactivation(study, include_sinks).equals(table.filter(pl.col("rank") <= 10))
    monkeypatch.setattr(dashboards, "ROWS_AT_ONCE", 50)
    assert coactivation(study, include_sinks, most=100).equals(table)
    assert coactivation(study, include_sinks, latents=[7], most=100).equals(table.filter(latent=7))


def test_neighbours():
    """Of equal ones the smaller is first; what is too rare, or always active, is no neighbour."""
    alike = {(trace, PROMPT + index, latent) for trace in (0, 5) for index in range(8) for latent in (1, 4, 3)}
    rare = {(5, PROMPT + index, 2) for index in range(MIN_TOKENS - 1)}
    enough = {(5, PROMPT + index, 6) for index in range(MIN_TOKENS)}
    always = {(trace, PROMPT + index, 7) for trace in (0, 5) for index in range(29)}
    unwritten = {(0, index, latent) for index in range(PROMPT) for latent in (1, 2)}
    study = sparse(dict.fromkeys(alike | rare | enough | always | unwritten, 1.0), {0: 30, 5: 30})
    found = coactivation(study, False, latents=[1])
    a, b, c, n = 16, MIN_TOKENS, 8, 58
    assert found.select("neighbour", "both", "tokens").rows() == [(3, 16, 16), (4, 16, 16), (6, c, b)]
    phi = (n * c - a * b) / (a * (n - a) * b * (n - b)) ** 0.5
    assert found["phi"].to_list() == pytest.approx([1, 1, phi], abs=1e-6)
    assert coactivation(study, False, latents=[7, 8]).is_empty()


@SINKS
def test_nothing_in_nothing_out(study, include_sinks):
    empty = {name: study[name].clear() for name in study}
    for given, latents in ((study, []), (empty, LATENTS), (empty, [])):
        found = [
            dashboards.passages(given["activations"], given["traces"], latents=latents, condition="reason",
                                include_sinks=include_sinks),
            strips(given, include_sinks, latents),
            coactivation(given, include_sinks, latents=latents),
        ]  # fmt: skip
        schemas = [dashboards.PASSAGES_SCHEMA, dashboards.STRIPS_SCHEMA, dashboards.COACTIVATION_SCHEMA]
        assert [table.schema for table in found] == schemas
        assert all(table.is_empty() for table in found)
        table = histograms(given, include_sinks, latents=latents)
        assert table.schema == dashboards.LATENT_HISTOGRAMS_SCHEMA
        assert len(table) == 2 * len(latents)
        assert table["counts"].explode().sum() == 0
    unread = histograms(study | {"activations": study["activations"].clear()}, True)
    assert (unread["tokens"] > 0).all()
    assert set(unread["largest"]) == {0}


def test_the_schema_of_passages(study):
    assert passages(study).schema == dashboards.PASSAGES_SCHEMA


def test_it_is_imported_quickly_and_without_torch():
    code = (
        "import sys, thoughtscope.report.dashboards; print(sorted({'torch', 'scipy', 'transformers'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO / "workflow" / "scripts", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
