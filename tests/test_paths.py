"""The path scheme: what a path says is what it was made from, and nothing else has its form."""

import pytest

from thoughtscope import paths

LEVELS = {
    "experiment": "r1-1.5b", "condition": "as_it_is", "block": "00000-00015", "reader": "trained",
    "hookpoint": "layers.10.mlp", "site": "layers.10.mlp@residual_in", "table": "verdict", "picture": "waterfall",
    "stage": "tables", "name": "matches", "form": "saelens",
}  # fmt: skip
PATTERNS = {name: value for name, value in vars(paths).items() if name.isupper() and isinstance(value, str)}


@pytest.mark.parametrize("pattern", [*PATTERNS.values(), *paths.BENCHMARK])
@pytest.mark.parametrize("folder", ["", "/home/results/x/"])
def test_a_path_says_what_it_was_made_from(pattern, folder):
    named = paths.parse(pattern, folder + pattern.format(**LEVELS))
    assert named == {name: LEVELS[name] for name in named}
    assert pattern == pattern.format(**{name: f"{{{name}}}" for name in named})


@pytest.mark.parametrize(
    "path",
    ["results/x/tables/layers.1.mlp/verdict.parquet", "results/x/tables/trained/layers.1.mlp/verdict.parquet.tmp",
     "results/x/tables/trained/layers.1.mlp@elsewhere/verdict.parquet", "x/tables/trained/layers.1.mlp/verdict.parquet",
     "noresults/x/tables/trained/layers.1.mlp/verdict.parquet",
     "results/x/y/tables/trained/layers.1.mlp/verdict.parquet"],
)  # fmt: skip
def test_what_is_not_of_the_form_is_refused(path):
    with pytest.raises(ValueError, match=r"isn't of the form results/{experiment}/tables/{reader}/{site}/{table}\."):
        paths.parse(paths.SITE_TABLE, path)


def test_no_file_has_two_meanings():
    for patterns in (list(PATTERNS.values()), paths.BENCHMARK):
        for pattern in patterns:
            path = pattern.format(**LEVELS)
            assert [other for other in patterns if paths._expression(other).fullmatch(path)] == [pattern]


def test_levels_keep_their_order():
    files = [paths.TRACES.format(experiment="x", condition=condition, block=block)
             for condition in ("reason", "bypass") for block in ("00000-00003", "00004-00007")]  # fmt: skip
    assert paths.levels(paths.TRACES, files) == {
        "experiment": ["x"], "condition": ["reason", "bypass"], "block": ["00000-00003", "00004-00007"],
    }  # fmt: skip
    assert paths.levels(paths.TRACES, []) == {}
    assert paths.by("block", paths.TRACES, files[2:]) == {"00000-00003": files[2], "00004-00007": files[3]}
