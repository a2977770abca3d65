"""The Slurm profile on a real Slurm: a cluster of one node on this machine, with two GPUs that are only names.

Needs root and the packages slurm-wlm and munge; CI installs them.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from conftest import REPO, new_study

SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/munge.sock
CredType=cred/munge
StateSaveLocation={root}/ctld
SlurmdSpoolDir={root}/slurmd
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=2
MinJobAge=300
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=40000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE DefMemPerCPU=100 State=UP
"""

# What the site of a cluster adds to the shipped profile; this one has no accounting database.
SITE = {
    "latency-wait": 5,
    "seconds-between-status-checks": 1,
    "slurm-status-command": "squeue",
    "slurm-init-seconds-before-status-checks": 1,
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if os.geteuid() != 0 or not shutil.which("slurmctld") or not shutil.which("munged"):
        if os.environ.get("CI"):
            pytest.fail("CI must have root, slurm-wlm and munge")
        pytest.skip("needs root, and the packages slurm-wlm and munge")
    root = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname().split(".")[0]
    for folder in ("munge", "ctld", "slurmd", "dev"):
        (root / folder).mkdir()
    key = root / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    gpus = [root / "dev" / f"gpu{index}" for index in (0, 1)]
    for gpu in gpus:
        os.mknod(gpu, 0o20666, os.makedev(1, 3))
    (root / "slurm.conf").write_text(SLURM_CONF.format(root=root, host=host))
    (root / "gres.conf").write_text(f"AutoDetect=off\nNodeName={host} Name=gpu File={root}/dev/gpu[0-1]\n")
    links = [Path("/etc/slurm") / name for name in ("slurm.conf", "gres.conf")]
    for link in links:  # the environment variable alone fails: job steps strip it
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(root / link.name)
    munge = root / "munge"
    files = [f"--{kind}={munge / name}" for kind, name in (("socket", "munge.sock"), ("key-file", "key"),
             ("pid-file", "munged.pid"), ("log-file", "munged.log"), ("seed-file", "seed"))]  # fmt: skip
    subprocess.run(["munged", "--force", "--num-threads=2", *files], check=True)
    subprocess.run(["slurmctld", "-f", root / "slurm.conf", "-c"], check=True)
    subprocess.run(["slurmd", "-f", root / "slurm.conf"], check=True)
    try:
        for _ in range(60):
            state = subprocess.run(
                ["timeout", "2", "sinfo", "-h", "-o", "%t"], capture_output=True, text=True, check=False
            )
            if state.stdout.strip() == "idle":
                break
            time.sleep(0.5)
        else:
            pytest.fail("Slurm isn't ready: " + (root / "slurmctld.log").read_text()[-2000:])
        yield root
    finally:
        for pid in (root / "slurmd.pid", root / "slurmctld.pid", munge / "munged.pid"):
            if pid.exists():
                subprocess.run(["kill", pid.read_text().strip()], check=False)
                time.sleep(0.3)
        for link in links:
            link.unlink(missing_ok=True)


def profile(folder: Path, **changes) -> str:
    """Write the shipped profile with what this cluster adds to it, and changes, to a folder; return its path."""
    shipped = yaml.safe_load((REPO / "profiles" / "slurm" / "config.yaml").read_text()) | SITE | changes
    shipped["default-resources"] = shipped["default-resources"] | {"slurm_partition": "main", "mem_mb": 1000}
    (folder / "profile").mkdir()
    (folder / "profile" / "config.yaml").write_text(yaml.safe_dump(shipped))
    return str(folder / "profile")


def partition(state: str) -> None:
    subprocess.run(["scontrol", "update", "partitionname=main", f"state={state}"], check=True)


def waiting() -> list[str]:
    listed = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True)
    return listed.stdout.split()


def test_the_shipped_profile_runs_a_study(cluster, tmp_path, tiny_model):
    """GPU jobs ask Slurm for a GPU; a block's tables are one job, a site's tests and the rest of its tables two."""
    study = new_study(tmp_path / "study", tiny_model).edit(conditions=["reason"])
    run = study.snakemake("--profile", profile(tmp_path), timeout=400)
    assert run.code == 0, run.output
    submitted = dict(re.findall(r"Job (\S+) has been submitted with SLURM jobid (\d+)", run.output))
    # generate, train_sae, read, the block's tables, the site's two groups
    assert len(submitted) == 6, run.output
    assert len(pl.read_parquet(study.results / "tables" / "trained" / "layers.1.mlp" / "recurrence.parquet")) > 0
    assert (study.results / "summary.md").exists()
    jobs = subprocess.run(["scontrol", "show", "jobs"], capture_output=True, text=True, check=True).stdout.split("\n\n")
    asked = {re.search(r"Comment=(\S+)", job).group(1): "gres:gpu:1" in job or "gres/gpu=1" in job
             for job in jobs if "Comment=" in job}  # fmt: skip
    with_gpu = {name for name, gpu in asked.items() if gpu}
    assert {name.split("_wildcards")[0].removeprefix("rule_") for name in with_gpu} == {"generate", "train_sae", "read"}
    assert study.plan() == set()


def test_a_config_edited_while_jobs_wait_is_the_next_runs(cluster, tmp_path, tiny_model):
    """A job starts Snakemake anew, hours later perhaps: it works from the config that its run began with."""
    study = new_study(tmp_path / "study", tiny_model).edit(conditions=["reason"])
    study.run("--until", "problems", "model")
    command = study.command("--profile", profile(tmp_path), "--until", "generate")
    partition("DOWN")
    try:
        begun = subprocess.Popen(command, cwd=study.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        deadline = time.monotonic() + 60
        while not waiting() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert waiting()
        edited = study.edit(generation__max_new_tokens=5)
        edited.command()  # writes its config
    finally:
        partition("UP")
    output, _ = begun.communicate(timeout=200)
    assert begun.returncode == 0, output
    traces = pl.read_parquet(study.results / "traces" / "reason" / "00000-00001.parquet")
    assert traces["generated_ids"].list.len().max() == 12
    assert "generate reason 00000-00001" in edited.plan()
    assert not {job for job in study.plan() if job.startswith("generate")}


def test_a_failing_member_of_a_group_leaves_what_the_others_finished(cluster, tmp_path, tiny_model):
    """Of two tables in one job the second, which is made from the first, fails."""
    study = new_study(tmp_path / "study", tiny_model).edit(conditions=["reason"])
    study.run("--until", "recurrence")
    recurrence = study.results / "tables" / "trained" / "layers.1.mlp" / "recurrence.parquet"
    recurrence.unlink()
    vocabulary = study.results / "vocabulary.parquet"  # of the two only top_tokens takes it
    whole, stat = vocabulary.read_bytes(), vocabulary.stat()
    vocabulary.write_bytes(whole[:-9])
    os.utime(vocabulary, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    run = study.snakemake("--profile", profile(tmp_path, retries=0), "--until", "top_tokens", timeout=300)
    assert run.code == 1, run.output
    assert len(re.findall(r"has been submitted with SLURM jobid", run.output)) == 1, run.output
    assert recurrence.exists(), run.output
    assert "vocabulary.parquet is damaged" in run.output
    assert not recurrence.with_name("top_tokens.parquet").exists()
