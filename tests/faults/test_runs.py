"""Runs that are killed, edited, copied or cut otherwise: what was computed stays what its config says."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from conftest import REPO, Study, new_study

from thoughtscope import files, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model) -> Study:
    study = new_study(tmp_path_factory.mktemp("runs") / "study", tiny_model)
    study.run()
    return study


@pytest.fixture
def study(finished, tmp_path) -> Study:
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    return Study(tmp_path / "copy", finished.config)


def test_jobs_get_the_config_that_the_run_began_with(finished):
    """Where jobs are sent somewhere, Snakemake starts anew for each, with the file that the run has kept.

    tests/test_slurm.py edits the config while jobs wait.
    """
    (kept,) = (finished.folder / run.FOLDER).glob("tiny@*.json")
    assert json.loads(kept.read_text()) == finished.config


def test_what_a_killed_run_left_writes_nothing_once_another_has_begun(study, tmp_path):
    """SIGKILL of Snakemake leaves its jobs behind; the next run takes the place of the last."""
    path = study.results / "late.parquet"
    code = (
        "import os, sys, time\n"
        "import polars as pl\n"
        "from thoughtscope import files\n"
        "from thoughtscope.job import job\n"
        f"with job({str(tmp_path / 'late.log')!r}, 'late'):\n"
        f"    with files.replacing({str(path)!r}) as temporary:\n"
        "        temporary.write_text('old')\n"
        "        print('ready', file=sys.stderr, flush=True)\n"
        f"        while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.05)\n"
    )
    (kept,) = (study.folder / run.FOLDER).glob("tiny@*.json")
    orphan = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(REPO / "workflow/scripts"), run.VARIABLE: str(kept)},
    )  # fmt: skip
    study.run("--forcerun", "summary")
    assert not kept.exists()
    (tmp_path / "go").touch()
    assert orphan.wait(timeout=60) == 1
    assert "another has begun since" in orphan.stderr.read()
    assert not path.exists()


def test_a_run_that_is_under_way_keeps_its_place(tmp_path, monkeypatch):
    """Another run of the same experiment, of other files, is no reason to throw away what this one makes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(run.VARIABLE, raising=False)

    class Workflow:
        class config_settings:
            configfiles, config_args = (), None

        class storage_settings:
            shared_fs_usage = ("sources",)

    run.begin(Workflow, "x", {"a": 1})
    (first,) = run.FOLDER.glob("x@*.json")
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    alive = first.with_name(f"x@{first.stem.split('@')[1]}@{sleeper.pid}@{run._started(sleeper.pid)}.json")
    again = first.with_name(f"x@{first.stem.split('@')[1]}@{sleeper.pid}@7.json")  # another process had its number
    other = first.with_name("y@elsewhere@1@1.json")  # of another experiment
    for path in (alive, again, other):
        path.write_text("{}")
    run.begin(Workflow, "x", {"a": 2})
    sleeper.kill()
    sleeper.wait()
    assert sorted(run.FOLDER.glob("*.json")) == sorted([first, alive, other])
    assert json.loads(first.read_text()) == {"a": 2}
    run.begin(Workflow, "x", {"a": 2})
    assert not alive.exists()


def test_blocks_cut_otherwise_leave_no_trace_twice(study):
    other = study.edit(block_size=1)
    printed = other.run().output
    assert re.search(r"removed, as blocks are cut otherwise now: \d+ files and folders, such as results/tiny/", printed)
    for folder in ("traces/reason", "traces/bypass"):
        traces = pl.read_parquet(sorted((study.results / folder).glob("*.parquet")))
        assert traces["trace_id"].to_list() == [0, 1]
    readings = sorted((study.results / "readings" / "trained" / "layers.1.mlp" / "reason").iterdir())
    assert [path.name for path in readings] == ["00000-00000", "00001-00001"]


def test_fewer_inferences_keep_what_more_had(study):
    one = study.edit(block_size=1)
    one.run()
    one.edit(inferences=1).run()
    assert (study.results / "traces" / "reason" / "00001-00001.parquet").exists()
    assert not {job for job in one.plan() if job.startswith(("generate", "read"))}


@pytest.mark.parametrize("times", ["new", "kept", "reversed"])
def test_a_copied_study_plans_nothing(finished, tmp_path, times):
    """With the code beside it, as a checkout elsewhere is; files copied in any order are no news."""
    home = tmp_path / "elsewhere"

    def copy(source, target, *, dated):
        target.parent.mkdir(parents=True, exist_ok=True)
        function = shutil.copy2 if dated else shutil.copyfile
        if source.is_file():
            return function(source, target)
        ignore = shutil.ignore_patterns("__pycache__")
        return shutil.copytree(source, target, symlinks=True, ignore=ignore, copy_function=function)

    copy(finished.folder, home / "study", dated=times == "kept")
    for name in ("Snakefile", "workflow", "profiles"):
        copy(REPO / name, home / name, dated=False)
    if times == "reversed":
        now = time.time()
        for age, path in enumerate(sorted((home / "study" / "results").rglob("*.*"), key=lambda p: p.stat().st_mtime)):
            os.utime(path, (now - age, now - age), follow_symlinks=False)
    command = Study(home / "study", finished.config).command("--dry-run")
    command[command.index("--snakefile") + 1] = str(home / "Snakefile")
    done = subprocess.run(command, cwd=home / "study", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout + done.stderr, done.stderr


def test_weights_can_be_read_by_a_group(finished):
    made = [path for path in finished.results.rglob("*.safetensors") if not path.is_symlink()]
    assert made
    for path in made:
        assert path.stat().st_mode & 0o044 == 0o044, path


def test_a_panic_in_polars_is_an_error_of_one_line(tmp_path):
    code = (
        "from thoughtscope.job import job\n"
        "class PanicException(BaseException): pass\n"
        f"with job({str(tmp_path / 'a.log')!r}, 'work'):\n"
        "    raise PanicException('called unwrap on None')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(REPO / "workflow/scripts")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("[work] error: PanicException: called unwrap on None (traceback in")


def test_an_interrupt_is_no_error_of_the_jobs(tmp_path):
    assert signal.SIGINT  # KeyboardInterrupt goes through as it is
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert list(Path(tmp_path).iterdir()) == []
