"""The command for those who don't know Snakemake: what it calls, and what it says where it can't."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPO

from thoughtscope import command, config


def test_a_config_to_start_from_is_one(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert command.main(["init", "configs/Mine.yaml"]) == 0
    written = yaml.safe_load(Path("configs/Mine.yaml").read_text())
    assert (written["experiment"], written["layers"]) == ("mine", [10, 20])
    assert {"{question}"} <= set(written["prompts"]["reason"]["user"].split())
    assert "\\boxed{}" in written["prompts"]["direct"]["user"]
    assert config.blocks(written["inferences"], written["block_size"]) == ["00000-00015", "00016-00031"]
    capfd.readouterr()
    assert command.main(["check", "configs/Mine.yaml", "--", "--quiet", "host"]) == 0
    output = capfd.readouterr()
    said = output.out + output.err
    assert f"--cores all --snakefile {REPO / 'Snakefile'} --configfile configs/Mine.yaml --dry-run --quiet host" in said
    assert "train_sae" in said
    assert not Path("results").exists()
    assert command.main(["init", "configs/Mine.yaml"]) == 1
    assert "is there already" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "none.yaml"], "there is no config none.yaml; write one: thoughtscope init none.yaml"),
        (["open", "results/none"], "there is no report in results/none; run a study first"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 1
    assert says in capsys.readouterr().err


def test_a_failure_is_the_commands_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("experiment: x\nlayer: [1]\n")
    assert command.main(["check", "bad.yaml", "--", "--quiet", "host"]) != 0


def test_the_report_is_opened(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("results/a").mkdir(parents=True)
    Path("results/a/report.html").write_text("<p>")
    opened = []
    monkeypatch.setattr(command.webbrowser, "open", opened.append)
    assert command.main(["open", "results/a"]) == 0
    assert opened == [Path("results/a/report.html").resolve().as_uri()]
    assert command.main(["open", "results/b"]) == 1
    assert "those there are: results/a" in capsys.readouterr().err


def test_it_can_be_installed(tmp_path):
    """As a package with its command, into an environment of its own; reading takes no torch."""
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*install, "--target", str(site), str(REPO)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = (
        "import sys, thoughtscope; print(thoughtscope.__file__); thoughtscope.open; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(site)},
        cwd=tmp_path,
    )
    assert done.stdout.startswith(str(site))
    assert (site / "bin" / "thoughtscope").exists()
