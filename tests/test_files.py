"""Files and jobs: nothing half-written looks finished, errors are one line."""

import hashlib
import os
import subprocess
import sys
import time

import polars as pl
import pyarrow.parquet as pq
import pytest
from conftest import REPO

from thoughtscope import files
from thoughtscope.errors import InputError


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "table.parquet"
    files.write_parquet(pl.DataFrame({"a": [1]}), path, {"experiment": "x"})
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["table.parquet"]
    assert pl.read_parquet(path)["a"].to_list() == [1]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "pictures") as folder:
        folder.mkdir()
        (folder / "one.png").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with files.replacing(tmp_path / "pictures") as folder:
        folder.mkdir()
        (folder / "one.png").touch()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")] == ["pictures/one.png"]


def test_parquet_says_what_made_it(tmp_path):
    frame = pl.DataFrame({"a": [1], "e": ["x"]}, schema={"a": pl.UInt32, "e": pl.Enum(["x", "y"])})
    files.write_parquet(frame, tmp_path / "t.parquet", {"experiment": "x", "include_sinks": "False"})
    found = {key.decode(): value.decode() for key, value in pq.read_schema(tmp_path / "t.parquet").metadata.items()}
    assert found["thoughtscope.experiment"] == "x"
    assert found["thoughtscope.include_sinks"] == "False"
    assert found["thoughtscope.schema"] == files.SCHEMA_VERSION
    assert found["version.torch"].startswith("2.")
    assert pl.read_parquet(tmp_path / "t.parquet").schema == frame.schema


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file large enough for its hash to be kept, and a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * (files.KEPT_FROM // 256))
    return path


def test_a_large_file_is_hashed_once(weights, tmp_path, monkeypatch):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert files.sha256(weights) == digest
    (tmp_path / "link").symlink_to(weights)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it is read again"))
        assert files.sha256(weights) == digest
        assert files.sha256(tmp_path / "link") == digest  # whatever leads to it
    (kept,) = (tmp_path / "cache" / "thoughtscope" / "sha256").iterdir()
    kept.write_text("half")
    assert files.sha256(weights) == digest


@pytest.mark.parametrize("change", ["in place, with its time put back", "another file in its place"])
def test_a_changed_file_is_hashed_again(weights, tmp_path, change):
    before, stamp = files.sha256(weights), weights.stat().st_mtime_ns
    time.sleep(0.02)  # longer than the clock's tick
    other = b"x" * weights.stat().st_size
    if change.startswith("in place"):
        weights.write_bytes(other)
    else:
        (tmp_path / "other").write_bytes(other)
        (tmp_path / "other").replace(weights)
    os.utime(weights, ns=(stamp, stamp))
    assert files.sha256(weights) == hashlib.sha256(other).hexdigest() != before


def test_without_a_cache_folder_files_are_hashed_all_the_same(weights, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    assert files.sha256(weights) == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_hashes_of_small_files_are_not_kept(weights, tmp_path):
    weights.write_text("small")
    files.sha256(weights)
    assert not (tmp_path / "cache").exists()


def test_a_link_is_to_the_file_itself_and_replaces_what_was_there(tmp_path):
    (tmp_path / "blob").write_text("weights")
    (tmp_path / "snapshot").symlink_to("blob")
    (tmp_path / "sae").write_text("old")
    files.link(tmp_path / "sae", tmp_path / "snapshot")
    assert (tmp_path / "sae").readlink() == tmp_path / "blob"
    hashes = {"sae": files.sha256(tmp_path / "blob")}
    files.check_hashes(tmp_path, hashes, "SAE files", "")
    (tmp_path / "blob").write_text("other")
    with pytest.raises(
        InputError, match=r"^SAE files have changed: .*/sae \(a link to .*/blob\) has SHA-256 .*Fetch\.$"
    ):
        files.check_hashes(tmp_path, hashes, "SAE files", "Fetch.")
    (tmp_path / "blob").unlink()
    with pytest.raises(InputError, match=r"^SAE files are gone: .*/sae \(a link to .*/blob\)\. Fetch them\.$"):
        files.check_hashes(tmp_path, hashes, "SAE files", "Fetch them.")


def run_job(tmp_path, body, **environment):
    code = f"from thoughtscope.job import job\nwith job({str(tmp_path / 'a.log')!r}, 'work x') as log:\n    {body}\n"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(REPO / "workflow/scripts")} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_job_output_goes_to_the_log_and_its_own_lines_to_both(tmp_path):
    done = run_job(tmp_path, "print('library chatter'); log.info('half way')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "[work x] half way\n")
    log = (tmp_path / "a.log").read_text()
    assert "library chatter" in log
    assert "[work x] half way" in log


def test_a_quick_job_on_a_terminal_of_few_lines_only_warns(tmp_path):
    done = run_job(tmp_path, "log.info('half way'); log.warning('not pinned')", THOUGHTSCOPE_FEW_LINES="1")
    assert done.stderr == "[work x] not pinned\n"
    assert "half way" in (tmp_path / "a.log").read_text()
    body = "import time; clock = time.monotonic; time.monotonic = lambda: clock() + 15; log.info('half way')"
    assert run_job(tmp_path, body, THOUGHTSCOPE_FEW_LINES="1").stderr == "[work x] half way\n"


def test_input_errors_are_one_line(tmp_path):
    done = run_job(tmp_path, "from thoughtscope.errors import InputError; raise InputError('layer 9 is not there')")
    assert (done.returncode, done.stderr) == (1, "[work x] error: layer 9 is not there\n")


def test_other_errors_are_one_line_and_a_traceback_in_the_log(tmp_path):
    done = run_job(tmp_path, "1 / 0")
    assert done.returncode == 1
    assert done.stderr.startswith("[work x] error: ZeroDivisionError: division by zero (traceback in ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" in (tmp_path / "a.log").read_text()


def test_the_analysis_rooms_need_no_model_libraries(tmp_path):
    """envs/analysis.yaml has no torch: what runs there must neither import it nor ask for its version."""
    code = f"""
import sys, importlib.metadata
from importlib.machinery import PathFinder
class WithoutThem(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in ("torch", "transformers", "datasets", "sparsify")
        return None if absent else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutThem
found = importlib.metadata.version
def version(name):
    if name in ("torch", "transformers", "datasets", "eai-sparsify"):
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)
importlib.metadata.version = version
from thoughtscope.evidence import controls, recurrence as evidence, patterns
from thoughtscope.report import dashboards, reader, page as report
from thoughtscope.readings import features
from thoughtscope import files, job
from thoughtscope.plots import sites as plots
from thoughtscope.report import summary
from thoughtscope.evidence import twins, verdict
from thoughtscope.interventions import effects, steered
from thoughtscope import twins
import polars as pl
files.write_parquet(pl.DataFrame({{"a": [1]}}), {str(tmp_path / "a.parquet")!r}, {{}})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(REPO / "workflow/scripts")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"version.torch" not in pq.read_schema(tmp_path / "a.parquet").metadata
