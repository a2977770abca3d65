"""The workflow as a module of another one: its config, prefix and scripts, and a rule of the other with its results."""

import subprocess
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import REPO, new_study

SNAKEFILE = """
configfile: "mine.yaml"


module thoughtscope:
    snakefile:
        "{snakefile}"
    config:
        config["study"]
    prefix:
        "theirs"


use rule * from thoughtscope as thoughtscope_*


use rule generate from thoughtscope as thoughtscope_generate with:
    priority: 7


rule mine:
    default_target: True
    input:
        verdict="theirs/results/tiny/tables/trained/layers.1.mlp/verdict.parquet",
        page="theirs/results/tiny/report.html",
    output:
        "mine.txt",
    shell:
        "wc -c < {{input.page}} > {{output}}"


onsuccess:
    print("their own word")
"""


def snakemake(folder: Path, *more: str) -> subprocess.CompletedProcess:
    command = [str(REPO / ".venv/bin/snakemake"), "--cores", "2", "--snakefile", "Snakefile", *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    study = new_study(tmp_path_factory.mktemp("module") / "study", tiny_model)
    (study.folder / "mine.yaml").write_text(yaml.safe_dump({"study": study.config, "own": 1}))
    (study.folder / "Snakefile").write_text(SNAKEFILE.format(snakefile=REPO / "Snakefile"))
    return study.folder


def test_another_workflow_takes_from_it(other):
    done = snakemake(other)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "their own word" in done.stdout + done.stderr
    results = other / "theirs" / "results" / "tiny"
    assert int((other / "mine.txt").read_text()) == (results / "report.html").stat().st_size > 100_000
    assert len(pl.read_parquet(results / "tables" / "trained" / "layers.1.mlp" / "verdict.parquet"))
    assert not (other / "results").exists()  # all of it is under the prefix
    assert not (other / ".snakemake" / "thoughtscope").exists()
    assert "Nothing to be done" in (again := snakemake(other)).stdout + again.stderr


def test_its_config_is_checked_as_ever(other):
    config = yaml.safe_load((other / "mine.yaml").read_text())
    (other / "broken.yaml").write_text(yaml.safe_dump({"study": config["study"] | {"inferencs": 3}}))
    done = snakemake(other, "--configfile", "broken.yaml", "--dry-run")
    assert done.returncode != 0
    assert "inferencs" in (said := done.stdout + done.stderr)
    assert "Did you mean 'inferences'?" in said
