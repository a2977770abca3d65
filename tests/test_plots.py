"""Pictures: latents keep their colours, labels can be drawn, and odd input gives a picture too."""

import inspect
import re
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text

from thoughtscope import dispatch
from thoughtscope.evidence import checks, fit, lexicality, links, outcomes, patterns, twins, verdict
from thoughtscope.evidence import recurrence as evidence
from thoughtscope.evidence.verdict import leading
from thoughtscope.frames import complete
from thoughtscope.interventions import effects
from thoughtscope.plots import canvas, sites, traces

CONDITIONS = ["reason", "direct"]
TOKENS = ["␣the", "$x$", "<script>", "\\xe2\\x80", "中文", "🙂", "a" * 60, "_^{"]


def relevant(traces=3):
    rows = [
        (trace, condition, "generated", rank + 1, 10 * rank + trace % 2, 5.0 - rank, 3, rank, TOKENS[rank % 8])
        for trace in range(traces) for condition in CONDITIONS for rank in range(4)
    ]  # fmt: skip
    return pl.DataFrame(
        rows,
        schema={"trace_id": pl.UInt32, "condition": pl.String, "scope": pl.String, "rank": pl.UInt16,
                "latent": pl.UInt32, "max": pl.Float32, "position": pl.UInt32, "token_id": pl.UInt32,
                "token": pl.String},
        orient="row",
    )  # fmt: skip


def tokens_table():
    rows = [
        (condition, "generated", latent, rank + 1, rank, TOKENS[rank % 8], 9.0 / (rank + 1), 2)
        for condition in CONDITIONS for latent in (0, 1, 10, 11, 20, 21, 30, 31) for rank in range(6)
    ]  # fmt: skip
    return pl.DataFrame(
        rows,
        schema={"condition": pl.String, "scope": pl.String, "latent": pl.UInt32, "rank": pl.UInt16,
                "token_id": pl.UInt32, "token": pl.String, "max": pl.Float32, "tokens": pl.UInt32},
        orient="row",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_missing_glyphs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_a_latents_colour_is_its_own():
    colors = [canvas.latent_color(latent) for latent in range(65536)]
    assert set(colors) == set(canvas.LATENT_COLORS)
    assert max(colors.count(color) for color in canvas.LATENT_COLORS) < 65536 / 10 * 1.05


@pytest.mark.parametrize(
    ("token", "shown"),
    [("␣the", "␣the"), ("🀀", "\\U0001f000"), ("中", "\\u4e2d"), ("$x$", "$x$"), ("a" * 20, "a" * 15 + "…")],
)
def test_labels_are_what_the_font_can_show(token, shown):
    assert canvas.shown(token) == shown


def test_pictures_are_written(tmp_path):
    recurring = evidence.recurrence(relevant().lazy(), inferences=3)
    figure = sites.recurrence(recurring, tokens_table(), site="layers.1.mlp", conditions=CONDITIONS,
                              scope="generated", latents=5)  # fmt: skip
    assert any("<script>" in text for text in words(figure))
    canvas.save(figure, tmp_path / "a.png", 60)
    canvas.save(
        sites.top_tokens(tokens_table(), recurring, site="s", scope="generated", latents=7, tokens=4),
        tmp_path / "b.png", 60,
    )  # fmt: skip
    canvas.save(sites.layers(of_sites(s=recurring, t=recurring), conditions=CONDITIONS, scope="generated"),
               tmp_path / "c.png", 60)  # fmt: skip
    for name in "abc":
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]


def test_leading_latents_are_those_of_the_most_traces():
    table = pl.DataFrame(
        {"scope": ["generated"] * 4, "condition": ["a", "b", "a", "a"], "latent": [1, 1, 2, 3],
         "traces": [2, 5, 5, 9], "mean_rank": [1.0, 4.0, 2.0, 8.0]}
    )  # fmt: skip
    assert evidence.leading_latents(table, "generated", 2) == [3, 1]


def test_an_empty_trace_gives_a_picture(tmp_path):
    """A trace whose every generated token is a sink has nothing to show."""
    about = {"trace_id": 0, "condition": "reason", "generated_ids": [1], "finish_reason": "stop", "predicted": None,
             "reference": "3", "correct": None}  # fmt: skip
    none = relevant().clear()
    figures = traces.pictures(
        pl.DataFrame([about]), site="s", scope="generated",
        top_activations=none.rename({"max": "activation"}).with_columns(sink=False, rank_with_sinks=1),
        frequencies=none.with_columns(tokens=pl.lit(0)), histograms=none.with_columns(count=0, lower=0.0, upper=0.0),
        relevant_latents=none, top_tokens=none, frequent_latents=70, tokens=8,
    )  # fmt: skip
    canvas.save(figures, tmp_path / "traces", 60)
    assert [path.name for path in (tmp_path / "traces").iterdir()] == ["00000.png"]


LATENTS = range(60000, 60030)
PATTERNS = ["calculation", "$x$", "<script>" * 9, "reflection"]  # the last is in no trace
SITE = "layers.1.mlp"


def verdict_table():
    """All three verdicts in turn, those that aren't thinking patterns held back by one check after the other."""
    rows = []
    for number, latent in enumerate(LATENTS):
        results = dict.fromkeys(checks.BY_NAME, "pass")
        about, check = checks.VERDICTS[number % 3], checks.CHECKS[number // 3 % len(checks.CHECKS)].name
        if about != "thinking pattern":
            results[check] = "fail" if about == "no" else "undecided"
        else:
            results |= {"pattern": PATTERNS[0], "window": "after"}
        results["pattern_linked_number"] = share_of(latent, 0, "after")
        rows.append({"latent": latent, "traces": 2 + number % 20, "of": 40, "original": True, "verdict": about,
                     "removed_by": check if about == "no" else None} | results)  # fmt: skip
    return complete(pl.DataFrame(rows, infer_schema_length=None), verdict.SCHEMA)


def lexicality_table():
    rows = [{"latent": latent, "typed": 0.3 + latent % 5 / 10, "top_tokens": " ".join(TOKENS[latent % 6 :])}
            for latent in LATENTS]  # fmt: skip
    return complete(pl.DataFrame(rows), lexicality.SCHEMA)


def share_of(latent, index, window):
    """What share of a latent's activation is in a window of the pattern of that index, from -0.4 to 0.6."""
    return ((latent + index) % 4 + 4 * list(links.WINDOWS).index(window)) / 11 - 0.4


def pattern_table():
    """Links where the share is the largest, of one latent in four for each pattern; its p stands out among eight."""
    rows = []
    for latent, (index, name), window in product(LATENTS, enumerate(PATTERNS[:-1]), links.WINDOWS):
        share = share_of(latent, index, window)
        rows.append({"latent": latent, "pattern": name, "window": window, "traces": 9, "share": share,
                     "low": share - 0.2, "high": share + 0.3, "p": 0.008 if share == 0.6 else 0.009})  # fmt: skip
    rows += [{"latent": latent, "pattern": PATTERNS[-1], "window": window, "traces": 0, "note": "in no trace"}
             for latent in LATENTS for window in links.WINDOWS]  # fmt: skip
    return complete(pl.DataFrame(rows, infer_schema_length=None), patterns.SCHEMA)


def outcome_table():
    rows = []
    for latent in LATENTS:
        for value in ("max", "mean"):
            area = 0.3 + latent % 5 / 10
            about = {"latent": latent, "value": value}
            rows.append(about | {"outcome": "correct", "positive": 1, "negative": 9, "note": "too few: 1 correct"})
            about |= {"outcome": "truncated", "positive": 9, "negative": 10}
            about |= dict.fromkeys(("within_length", "within_low", "within_high"), [None, 0.5][latent % 2])
            rows.append(about | {"auroc": area, "low": area - 0.1, "high": area + 0.1, "length_auroc": 0.97,
                                 "length_low": 0.9, "length_high": 1.0})  # fmt: skip
    return complete(pl.DataFrame(rows, infer_schema_length=None), outcomes.SCHEMA)


def counts_table():
    rows = [
        (trace, condition, name, trace * index, 50, 2.0 * trace * index)
        for condition in CONDITIONS for trace in range(5) for index, name in enumerate(reversed(PATTERNS))
    ]  # fmt: skip
    names = ["trace_id", "condition", "pattern", "matches", "tokens", "per_100_tokens"]
    return pl.DataFrame(rows, schema=names, orient="row")


def gate_table():
    """A place with numbers and the others without."""
    numbers = dict.fromkeys(("fvu", "fvu_low", "fvu_high", "cosine", "l0", "fired", "median_norm"), 0.5)
    about = [{"hookpoint": SITE, "condition": None, "place": place, "used": place == "site", "sinks": 1}
             | (numbers if place == "site" else dict.fromkeys(numbers)) for place in fit.PLACES]  # fmt: skip
    return pl.DataFrame(about, schema_overrides={"condition": pl.String})


def bins_table():
    rows = [(condition, "generated", 0, 0.0, 1.0, 5) for condition in CONDITIONS]
    return pl.DataFrame(rows, schema=["condition", "scope", "bin", "lower", "upper", "count"], orient="row")


def listed():
    return relevant().rename({"max": "activation"}).with_columns(sink=False, rank_with_sinks=pl.col("rank"))


def effects_table():
    """A latent that acts, one that doesn't, one tried in too few traces, and one that nothing was added of."""
    of = {"pattern": "doubt", "window": "before", "matched_latent": 0.01, "random_direction": -0.02, "shifted": 0.0}
    sure = {"effect_low": 0.1, "effect_high": 0.4, "strengths": [1.0, 2.0], "added": [0.2, 0.5],
            "added_low": [0.1, 0.3], "added_high": [0.3, 0.7]}  # fmt: skip
    rows = [
        {"latent": 3, "chosen": "link", "traces": 9, "effect": 0.2, "lost": 0.2, "q": 0.0004, "predicted": 0.3} | sure,
        {"latent": 65535, "chosen": "prediction", "traces": 12, "effect": -0.1, "lost": 0.0, "q": 0.5} | sure,
        {"latent": 5, "chosen": "name", "traces": 2, "effect": 0.15, "lost": 0.1, "pattern": "<b>$x$" * 4},
    ]
    return complete(pl.DataFrame([of | row for row in rows], infer_schema_length=None), effects.SCHEMA)


def twins_table():
    rows = [
        ("a.1", "trained", 90, 12, 8, 8, None, None, None),
        ("a.1", "random_sae", 99, 15, 9, 0, 1.1, 0.4, 2.8),
        ("b.2", "trained", 0, 0, 0, 0, None, None, None),
        ("b.2", "random_sae", 80, 3, 2, 0, None, None, None),
    ]
    columns = ["site", "reader", "tested", "linked", "passing", "called", "ratio", "low", "high"]
    return complete(pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None), twins.SCHEMA)


def tables():
    """The inputs of every picture but that of a trace, by the picture's name."""
    recurring = evidence.recurrence(relevant().lazy(), inferences=3)
    return {
        "recurrence": {"table": recurring, "top_tokens": tokens_table()},
        "frequencies": {"table": relevant().with_columns(tokens=pl.lit(3))},
        "histogram": {"table": bins_table()},
        "top_activations": {"table": listed()},
        "top_tokens": {"table": tokens_table(), "recurrence": recurring},
        "site_gate": {"table": gate_table()},
        "verdict": {"table": verdict_table(), "pattern_tests": pattern_table(), "lexicality": lexicality_table()},
        "patterns": {"table": pattern_table(), "verdict": verdict_table()},
        "waterfall": {"table": verdict_table()},
        "outcomes": {"table": outcome_table(), "verdict": verdict_table()},
        "pattern_counts": {"table": counts_table()},
        "effects": {"table": effects_table()},
        "twins": {"table": twins_table()},
    }


RULES = Path(__file__).parents[1] / "workflow" / "rules" / "plots.smk"
FUNCTIONS = {name: f"plots.{module}.{name}"
             for module, name in re.findall(r'"plots\.(\w+)\.(\w+)"', RULES.read_text("utf-8"))}  # fmt: skip
"""What the rules call, by its name."""

SETTINGS = {"site": SITE, "conditions": CONDITIONS, "scope": "generated", "latents": 20, "frequent_latents": 20,
            "tokens": 4, "max_typed": 0.5, "min_share": 0.05, "alpha": 0.05, "max_fvu": 0.7}  # fmt: skip


def draw(name, **given):
    """Draw a picture from the tables above, but for those given."""
    function = dispatch.function(FUNCTIONS[name])
    wanted = inspect.signature(function).parameters
    settings = {key: value for key, value in SETTINGS.items() if key in wanted}
    return function(**settings | tables()[name] | given)


def words(figure):
    """All that a figure says, in texts and in letters."""
    letters = [text for drawn in figure.artists if isinstance(drawn, PathCollection)
               for text in drawn.get_label().split("\n")]  # fmt: skip
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()] + letters


@pytest.mark.parametrize("name", tables())
def test_pictures_are_drawn_from_ordinary_tables(tmp_path, name):
    canvas.save(draw(name), tmp_path / "a.png", 60)


@pytest.mark.parametrize("name", tables())
def test_pictures_are_drawn_from_empty_tables(tmp_path, name):
    figure = draw(name, **{key: table.clear() for key, table in tables()[name].items()})
    canvas.save(figure, tmp_path / "a.png", 60)
    assert any(re.search(r"\b(no|nothing)\b", text) for text in words(figure))


@pytest.mark.parametrize("name", ["recurrence", "frequencies", "histogram", "top_activations", "pattern_counts"])
def test_pictures_are_drawn_for_one_condition(tmp_path, name):
    given = {key: table.filter(pl.col("condition") == "reason") for key, table in tables()[name].items()}
    figure = draw(name, conditions=["reason"], **given)
    canvas.save(figure, tmp_path / "a.png", 60)
    assert "direct" not in words(figure)


NULLABLE = {
    "verdict": ["pattern_linked_number", "share", "low", "high", "typed", "top_tokens"],
    "patterns": ["share", "low", "high", "p"],
    "outcomes": ["auroc", "low", "high", "within_length", "within_low", "within_high", "note"],
    "pattern_counts": ["per_100_tokens"],
}


@pytest.mark.parametrize("name", NULLABLE)
def test_pictures_are_drawn_where_no_number_is_known(tmp_path, name):
    given = {
        key: table.with_columns(pl.lit(None, table.schema[column]).alias(column) for column in NULLABLE[name]
                                if column in table.columns)
        for key, table in tables()[name].items()
    }  # fmt: skip
    canvas.save(draw(name, **given), tmp_path / "a.png", 60)


def of_sites(**tables):
    return pl.concat(table.with_columns(site=pl.lit(site)) for site, table in tables.items())


def test_layers_without_any_site_or_latent(tmp_path):
    recurring = evidence.recurrence(relevant().lazy(), inferences=3)
    for name, given in {"a": of_sites(s=recurring).clear(), "c": of_sites(s=recurring, t=recurring.clear())}.items():
        figure = sites.layers(given, conditions=CONDITIONS, scope="generated")
        canvas.save(figure, tmp_path / f"{name}.png", 60)


def test_a_latent_that_a_condition_lacks_has_an_interval_from_zero():
    table = evidence.recurrence(relevant().filter(pl.col("condition") == "reason").lazy(), inferences=3)
    figure = sites.recurrence(table, tokens_table(), site=SITE, conditions=CONDITIONS, scope="generated", latents=1)
    # Three lines a latent: what joins the counts, and an interval for each condition.
    drawn = [found for found in figure.axes[0].collections if isinstance(found, LineCollection)]
    spans = [tuple(segment[:, 0]) for found in drawn for segment in found.get_segments()]
    assert spans[0] == (0, 2)
    assert spans[2] == (0, pytest.approx(3 * 0.5615, abs=0.001))  # Wilson's interval of 0 of 3


def test_the_verdict_says_when_no_link_could_be_tested():
    none = pattern_table().filter(pl.col("note").is_not_null())
    untested = verdict_table().with_columns(pattern_linked_number=pl.lit(None, pl.Float64))
    figure = draw("verdict", table=untested, pattern_tests=none)
    assert any("no candidate could be tested for a link (in no trace)" in text for text in words(figure))
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["thinking\npattern", "no", "undecided"]
    assert not any("could be tested" in text for text in words(draw("verdict")))


def test_the_verdict_draws_selectivity_with_its_interval_against_lexicality():
    axes = draw("verdict").axes[0]
    share, typed = (
        dict(verdict_table().select("latent", "pattern_linked_number").iter_rows()),
        dict(lexicality_table().select("latent", "typed").iter_rows()),
    )
    drawn = np.concatenate([found.get_offsets() for found in axes.collections if isinstance(found, PathCollection)])
    expected = {(round(typed[latent], 6), round(share[latent], 6)) for latent in LATENTS}
    assert {tuple(np.round(point, 6).tolist()) for point in drawn} == expected
    intervals = next(found for found in axes.collections if isinstance(found, LineCollection)).get_segments()
    assert len(intervals) == 12
    leaders = leading(verdict_table(), 12)["latent"]
    assert sorted(tuple(np.round(each[:, 1], 6)) for each in intervals) == sorted(
        (round(share[latent] - 0.2, 6), round(share[latent] + 0.3, 6)) for latent in leaders
    )
    assert f"{PATTERNS[0]}: goes with it" in words(draw("verdict"))  # what a thinking pattern's link is


def test_the_verdict_names_leading_latents_apart_from_each_other():
    figure = draw("verdict")
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    # Ten thinking patterns come first, whatever their traces; then the two of the most traces.
    expected = [latent for latent in LATENTS if latent % 3 == 0] + [60019, 60017]
    assert sorted(int(text.get_text()) for text in labels) == sorted(expected)
    boxes = [Text.get_window_extent(text) for text in labels]
    assert not any(one.overlaps(two) for index, one in enumerate(boxes) for two in boxes[:index])


def test_the_pattern_picture_marks_links_and_what_is_absent():
    figure = draw("patterns")
    found = words(figure)
    assert found.count("in no trace") == 1
    for window in links.WINDOWS.values():
        assert found.count(window) == len(PATTERNS) - 1
    shown = leading(verdict_table(), 20)["latent"].to_list()
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (3 * (len(PATTERNS) - 1) + 1, 20)
    assert drawn.mask[-1].all()  # the absent pattern comes last, in a row of its own, empty
    assert drawn.mask.sum() == 20
    order = [int(text) for text in found if text.isdigit() and int(text) in LATENTS]
    assert sorted(order) == sorted(shown)
    names = sorted(PATTERNS[:-1])
    for (row, column), value in np.ndenumerate(drawn[:-1]):
        window = list(links.WINDOWS)[row % 3]
        assert value == share_of(order[column], PATTERNS.index(names[row // 3]), window)
    # A link is where the p stands out among the windows before and after; none is on the words themselves.
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    marked = {(int(patch.get_x() + 0.5), int(patch.get_y() + 0.5)) for patch in frames}
    assert marked == {(column, row) for (row, column), value in np.ndenumerate(drawn[:-1]) if value == 0.6}
    assert marked
    assert {row % 3 for _, row in marked} == {2}


def test_no_link_is_marked_that_chance_or_place_may_make():
    def marked(**changes):
        table = pattern_table().with_columns(pl.lit(value, pl.Float64).alias(name) for name, value in changes.items())
        return len(draw("patterns", table=table).axes[0].patches)

    assert marked() == marked(rank=0.95, told_apart=0.3) > 0
    assert marked(rank=0.85) == marked(told_apart=0.2) == marked(p=0.009) == 0
    # If all have the same p, all windows before and after are marked, of three patterns and twenty latents.
    assert marked(p=0.008) == 3 * 2 * 20


def test_six_patterns_of_three_windows_can_be_read():
    """Their numbers, names and cells are apart, with as many latents as the config allows."""
    names = ["calculation", "conclusion", "exploration", "planning", "reflection", "uncertainty"]
    latents = range(60000, 60040)
    rows = [{"latent": latent, "pattern": name, "window": window, "traces": 100, "share": -0.345, "low": -1.0,
             "p": 1.0} for latent, name, window in product(latents, names, links.WINDOWS)]  # fmt: skip
    table = complete(pl.DataFrame(rows), patterns.SCHEMA)
    judged = pl.concat([verdict_table(), verdict_table().with_columns(pl.col("latent") + 30)]).filter(
        pl.col("latent").is_in(list(latents))
    )
    figure = draw("patterns", table=table, verdict=judged, latents=40)
    assert words(figure).count("−34") == 40 * 18
    axes = figure.axes[0]
    wide, high = axes.get_position().width * figure.get_figwidth(), axes.get_position().height * figure.get_figheight()
    size = 7 / 72  # of the numbers, in inches: three characters are two thirds of that wide each
    assert wide / 40 > 3 * 0.66 * size
    assert high / 18 > 1.5 * size
    assert figure.get_figheight() < 8


def test_the_waterfall_counts():
    figure = draw("waterfall")
    steps = dict(verdict.waterfall(verdict_table()))
    assert (steps["candidates"], steps["acts_on_its_pattern"], steps["survivors"]) == (30, 20, 10)
    found = [text.strip() for text in words(figure)]
    assert f"10 of 30 candidate latents at {SITE} pass every check" in found
    assert any("by recurrence alone, 30 of the candidates would be called" in text for text in found)
    linked = draw("waterfall", table=verdict_table().with_columns(original=pl.col("latent") < 60012))
    assert any("by recurrence alone, 12 of the candidates would be called" in text for text in words(linked))
    # Ten latents fail, the eight checks in turn; ten are undecided, ten thinking patterns.
    assert (found.count("−2"), found.count("−1")) == (2, 6)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [30, 2, 2, 1, 1, 1, 1, 1, 1, 10, 10]


def test_an_outcome_of_too_few_traces_says_so():
    figure = draw("outcomes")
    assert sum("too few: 1 correct" in text for text in words(figure)) == 1
    assert len(figure.axes) == 1  # nothing is drawn where there is nothing
    assert len({text for text in words(figure) if text.isdigit() and int(text) in LATENTS}) == 20
    assert "truncated against finished: 9 against 10 traces" in words(figure)


def test_length_is_drawn_as_a_mediator():
    figure = draw("outcomes")
    assert any(text.startswith("length may be a mediator") for text in words(figure))
    axes = figure.axes[-1]
    shown = set(leading(verdict_table(), 20)["latent"])
    open_marks = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    known = outcome_table().filter(pl.col("latent").is_in(shown)).drop_nulls("within_length")
    assert sum(len(line.get_xdata()) for line in open_marks) == len(known) > 0
    dotted = [found for found in axes.collections if isinstance(found, LineCollection)
              and found.get_linestyle() != [(0.0, None)]]  # fmt: skip
    assert sum(len(found.get_segments()) for found in dotted) == len(known)


def test_pattern_counts_are_means_over_traces():
    found = words(draw("pattern_counts"))
    assert found.count("0 of 5") == 2  # the pattern that is in no trace, in each condition
    assert found.count("12.00") == 2  # 0, 6, 12, 18 and 24 per 100 tokens


def test_effects_stand_beside_their_controls():
    found = words(draw("effects"))
    assert {"named in the config", "by their link", "by the largest predicted effect"} <= set(found)
    assert {"3  leads to doubt", "65535  leads to doubt", "<.001", ".5", "–"} <= set(found)
    left, right = draw("effects").axes
    (bars,) = (
        drawn for drawn in left.collections if isinstance(drawn, LineCollection) and drawn.get_linewidth()[0] == 2
    )
    assert [segment[:, 0].tolist() for segment in bars.get_segments()] == [[0.1, 0.4]] * 2  # none of two traces
    assert sorted(len(line.get_xdata()) for line in right.lines if line.get_marker() == "o") == [2, 2]
    nothing_added = effects_table().filter(latent=5)
    assert "nothing was added" in words(draw("effects", table=nothing_added))


def test_twins_stand_beside_the_studys_own():
    found = words(draw("twins"))
    assert {"a.1", "b.2", "the study’s own", "random SAE", "15 · 9 · 0", "1.10 (0.40 to 2.80)"} <= set(found)
    assert "infinite" not in " ".join(found)


def test_every_picture_has_a_rule_and_a_caption():
    assert set(FUNCTIONS) == {*tables(), "layers", "pictures"}
    captions = re.findall(r"""=picture(?:_across)?\("(\w+)"|/report/(\w+)\.rst",\n""", RULES.read_text("utf-8"))
    assert len(captions) == len(FUNCTIONS)
    for caption in captions:
        text = (RULES.parents[1] / "report" / f"{''.join(caption)}.rst").read_text("utf-8")
        assert text.strip().endswith(".")
