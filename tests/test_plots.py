"""Pictures: latents keep their colours, labels can be drawn, and odd input gives a picture too."""

import warnings

import polars as pl
import pytest

from thoughtscope import evidence, plots

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
    colors = [plots.latent_color(latent) for latent in range(65536)]
    assert set(colors) == set(plots.LATENT_COLORS)
    assert max(colors.count(color) for color in plots.LATENT_COLORS) < 65536 / 10 * 1.05


@pytest.mark.parametrize(
    ("token", "shown"),
    [("␣the", "␣the"), ("🀀", "\\U0001f000"), ("中", "\\u4e2d"), ("$x$", "$x$"), ("a" * 20, "a" * 15 + "…")],
)
def test_labels_are_what_the_font_can_show(token, shown):
    assert plots.shown(token) == shown


def test_pictures_are_written(tmp_path):
    recurring = evidence.recurrence(relevant().lazy(), inferences=3)
    figure = plots.recurrence(recurring, tokens_table(), site="layers.1.mlp", conditions=CONDITIONS,
                              scope="generated", latents=5)  # fmt: skip
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("<script>" in text for text in words)
    plots.save(figure, tmp_path / "a.png", 60)
    plots.save(
        plots.top_tokens(tokens_table(), recurring, site="s", scope="generated", latents=7, tokens=4),
        tmp_path / "b.png", 60,
    )  # fmt: skip
    plots.save(plots.layers({"s": recurring, "t": recurring}, conditions=CONDITIONS, scope="generated"),
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
    figure = plots.trace(
        about, site="s", scope="generated",
        activations=none.rename({"max": "activation"}).with_columns(sink=False, rank_with_sinks=1),
        frequent=none.with_columns(tokens=pl.lit(0)), bins=none.with_columns(count=0, lower=0.0, upper=0.0),
        relevant=none, tokens_of=none, latents=70, tokens=8,
    )  # fmt: skip
    plots.save(figure, tmp_path / "a.png", 60)
