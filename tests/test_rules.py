"""The rules against the library: each gives the function it names exactly the arguments that function takes."""

import inspect
import re

import polars as pl
import pytest
from conftest import REPO
from snakemake.api import SnakemakeApi
from snakemake.settings.types import OutputSettings, Quietness, ResourceSettings

from thoughtscope import columns, dispatch
from thoughtscope.twins import TWINS

CALLED = ("table.py", "plot.py")
"""Scripts that call the function a rule names with the rule's inputs and params as they are."""


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    """The rules of the default config with all that it may ask for, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("rules"))
        with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
            workflow = api.workflow(
                resource_settings=ResourceSettings(),
                snakefile=REPO / "Snakefile",
                config_settings=config_settings(),
            )
            yield {rule.name: rule for rule in workflow._workflow.rules}


def config_settings():
    from snakemake.settings.types import ConfigSettings

    files = [REPO / "config" / name for name in ("config.yaml", "teach.yaml")]
    more = {"interventions": {"steering": {}}, "twins": list(TWINS), "sae": {"second_seed": 1}}
    return ConfigSettings(configfiles=files, config=more)


def of_scripts(rules):
    return {
        name: rule
        for name, rule in rules.items()
        if rule.script and str(rule.script).endswith(CALLED) and not name.startswith("_")
    }


def test_inputs_and_params_are_the_functions_arguments(rules):
    called = of_scripts(rules)
    assert len(called) > 30
    for name, rule in called.items():
        make = dispatch.function(rule.params["function"])
        signature = inspect.signature(make).parameters
        given = {*rule.input.keys(), *dispatch.settings(rule.params)} - {"dpi"}
        site = {"site"} & {*signature} & {*rule.wildcard_names}
        assert given | site == set(signature), f"{name} calls {make.__module__}.{make.__name__}"


def test_a_table_has_a_name_of_its_own(rules):
    """A base rule's output that a rule forgets to name would be made by two."""
    outputs = [str(path) for name, rule in rules.items() if not name.startswith("_") for path in rule.output]
    assert len(outputs) == len(set(outputs))
    assert not [path for path in outputs if "of_a_base_rule" in path]


def test_every_table_is_described(rules):
    """results/README.md has what the rules make, and a word on each column."""
    outputs = [str(path) for name, rule in rules.items() if not name.startswith("_") for path in rule.output]
    outputs = [path.replace("shuffled_text", "{reader}") for path in outputs]  # who alone has what others share
    made = {re.sub(r"{(\w+),[^{}]*}", r"{\1}", path) for path in outputs if path.endswith(".parquet")}
    assert made == set(columns.schemas())
    for path, schema in columns.schemas().items():
        assert schema.rows, path
        assert all(schema.about[name] for name in schema), path
        assert columns.schema_of(path.format_map(columns._Any())) is schema


def test_tables_of_sites_are_one_frame_that_says_which(tmp_path):
    """Of one site, too; a table with sites of its own (where an SAE was tried) keeps them."""
    inputs = {}
    for name, table in {"counts": {"n": [1]}, "fits": {"site": ["elsewhere"], "n": [1]}}.items():
        inputs[name] = []
        for site in ("layers.1.mlp", "layers.2.mlp"):
            path = tmp_path / f"results/x/tables/trained/{site}/{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pl.DataFrame(table).write_parquet(path)
            inputs[name].append(str(path))
    for many in (2, 1):
        counts, fits = (
            dispatch._given(paths[:many], pl.read_parquet, across=True, reader=None) for paths in inputs.values()
        )
        assert counts["site"].to_list() == ["layers.1.mlp", "layers.2.mlp"][:many]
        assert fits["site"].to_list() == ["elsewhere"] * many
        assert dispatch._given(inputs["counts"][:many], pl.read_parquet, across=False, reader=None).columns == ["n"]
