"""The embedded real model, from its wheel on PyPI to pictures: the shipped config with smaller numbers."""

import polars as pl
import yaml
from conftest import REPO, Study


def test_the_shipped_config_on_the_real_model(tmp_path):
    config = yaml.safe_load((REPO / "config" / "config.yaml").read_text())
    study = Study(tmp_path, config).edit(
        inferences=2,
        layers=[10],
        generation__max_new_tokens=48,
        sae__tokens=8192,
        sae__heldout_tokens=2048,
        plots={"per_trace": True},
    )
    run = study.run(HF_HUB_OFFLINE="0")
    assert "# smollm2" in run.output
    assert "tokens/s" in run.output

    traces = pl.read_parquet(study.results / "traces" / "reason" / "00000-00001.parquet")
    assert traces["prompt"][0].startswith("<|im_start|>system")
    assert traces["prompt"][0].endswith("<|im_start|>assistant\n")
    words = set(" ".join(traces["text"]).lower().split())
    assert len(words & {"the", "to", "is", "of", "a", "we"}) >= 3  # a real model writes English

    info = yaml.safe_load((study.results / "saes" / "trained" / "layers.10.mlp" / "info.json").read_text())
    assert info["heldout"]["fvu"] < 0.5  # after 8,192 tokens; 0.12 after the 60,000 of the shipped config
    readings = study.results / "readings" / "trained" / "layers.10.mlp"
    rows = pl.read_parquet(readings / "reason" / "00000-00001" / "activations.parquet")
    active = rows.group_by("trace_id", "position").len()["len"]
    assert active.max() == 32
    assert active.mean() > 31
    gate = pl.read_parquet(study.results / "tables" / "site_gate.parquet").filter(pl.col("condition").is_null())
    assert gate.sort("fvu")["place"][0] == "site"
    assert gate.filter("used")["place"].to_list() == ["site"]
    assert "WARNING" not in run.output

    tokens = pl.read_parquet(study.results / "tables" / "trained" / "layers.10.mlp" / "top_tokens.parquet")["token"]
    assert tokens.null_count() == 0
    assert any(token.startswith("␣") for token in tokens)
    for condition in ("reason", "direct"):
        pictures = study.results / "plots" / "trained" / "layers.10.mlp" / "traces" / condition / "00000-00001"
        assert sorted(path.name for path in pictures.glob("*.png")) == ["00000.png", "00001.png"]
    assert study.plan() == set()
