"""Config: one line for each thing that can be wrong, the names that follow from it, and pages that must not lag."""

import re

import pytest
import yaml
from conftest import REPO

from thoughtscope import config, docs
from thoughtscope.errors import InputError

MANIFEST = {
    "name": "tiny",
    "hidden_size": 8,
    "num_layers": 3,
    "widths": {"embed": 8} | {f"layers.{i}{part}": 8 for i in range(3) for part in ("", ".mlp", ".self_attn.o_proj")},
}


def test_blocks_are_cut_by_index():
    assert config.blocks(5, 2) == ["00000-00001", "00002-00003", "00004-00004"]
    assert config.blocks(2, 1) == ["00000-00000", "00001-00001"]
    assert config.blocks(40, 16)[:2] == config.blocks(32, 16)
    assert list(config.traces_of("00004-00006")) == [4, 5, 6]
    assert [trace for block in config.blocks(37, 5) for trace in config.traces_of(block)] == list(range(37))


def test_sites():
    assert config.hookpoints("layers.{layer}.mlp", [10, 5]) == ["layers.5.mlp", "layers.10.mlp"]
    assert config.site("layers.5.mlp", "hookpoint") == "layers.5.mlp"
    assert config.parse_site(config.site("layers.5.mlp", "residual_in")) == ("layers.5.mlp", "residual_in")
    assert config.parse_site("layers.5.mlp") == ("layers.5.mlp", "hookpoint")
    assert config.layer_of("transformer.h.7.mlp.0") == 7


def test_check_sites():
    config.check_sites(MANIFEST, "layers.{layer}.mlp", [0, 2], "hookpoint")
    with pytest.raises(InputError, match=r"layers: 3 is out of range; tiny has 3 layers, 0 to 2"):
        config.check_sites(MANIFEST, "layers.{layer}.mlp", [0, 3], "hookpoint")
    with pytest.raises(InputError) as error:
        config.check_sites(MANIFEST, "layers.{layer}.mpl", [1], "hookpoint")
    assert (
        "no module layers.1.mpl; those it has: layers.{layer}, layers.{layer}.mlp, layers.{layer}.self_attn.o_proj"
        in (str(error.value))
    )


def test_a_sae_for_another_width_cannot_read_the_residual_stream():
    manifest = MANIFEST | {"hidden_size": 4}
    config.check_sites(manifest, "layers.{layer}.mlp", [1], "hookpoint")
    with pytest.raises(InputError, match=r"'residual_in', where vectors are 4 wide, but those of layers\.1\.mlp are 8"):
        config.check_sites(manifest, "layers.{layer}.mlp", [1], "residual_in")


def test_the_page_is_the_schemas():
    schema = yaml.safe_load(docs.SCHEMA.read_text())
    assert docs.PAGE.read_text() == docs.config_page(schema), "run make config-docs"
    assert docs.TABLES_PAGE.read_text() == docs.tables_page(docs.TABLES_PAGE.read_text()), "run make config-docs"
    for key in ("sae.read_from", "problems.source", "prompts.{condition}.user", "model.think.open", "plots.dpi"):
        assert f"| `{key}` |" in docs.config_page(schema)


def described(node):
    """Every property under a schema node."""
    for name, spec in node.get("properties", {}).items():
        yield name, spec
        yield from described(spec)
    for part in [*node.get("anyOf", []), *node.get("$defs", {}).values(), node.get("additionalProperties")]:
        if isinstance(part, dict):
            yield from described(part)


def test_every_key_is_described_and_no_section_takes_unknown_ones():
    schema = yaml.safe_load(docs.SCHEMA.read_text())
    for name, spec in described(schema):
        assert spec.get("description"), name
        if "properties" in spec:
            assert spec["additionalProperties"] is False, name


def test_environments_have_the_locks_versions():
    lock = dict(re.findall(r"^([\w-]+)==(\S+)$", (REPO / "requirements.lock").read_text(), re.M))
    lock = {name.lower().replace("_", "-"): version for name, version in lock.items()}
    wanted = [(REPO / "requirements.in").read_text()]
    wanted += [(REPO / "envs" / name).read_text() for name in ("gpu.yaml", "analysis.yaml")]
    for text in wanted:
        pins = re.findall(r"^[ -]*([\w-]+)==(\S+)$", text, re.M)
        assert pins
        for name, version in pins:
            assert lock[name.lower()] == version, name
