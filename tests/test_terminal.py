"""The terminal: a line a room, the time left, errors with their log, the summary after a whole run; on real runs."""

import logging
import re
import subprocess
import time
from io import StringIO
from types import SimpleNamespace

import pytest
from conftest import Run, Study, new_study

from thoughtscope import progress


def terse(study: Study, *arguments: str) -> Run:
    """Run snakemake as a user does, without the switch that gives the tests Snakemake's own output."""
    command = [word for word in study.command(*arguments) if word not in ("--quiet", "host")]
    done = subprocess.run(
        command, cwd=study.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return Run(done.returncode, done.stdout)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model) -> tuple[Study, str]:
    study = new_study(tmp_path_factory.mktemp("terminal") / "study", tiny_model).edit(conditions=["reason"])
    run = terse(study)
    assert run.code == 0, run.output
    return study, run.output


def test_a_run_says_a_line_as_each_room_starts_and_ends(finished):
    study, output = finished
    lines, _, summary = output.partition("# tiny\n")
    lines = lines.splitlines()
    rooms = dict.fromkeys(re.findall(r"^(\w+): \d+ to do$", output, re.M))
    assert {"problems", "models", "traces", "saes", "plots", "report"} <= set(rooms)
    for room in rooms:
        ends = [line for line in lines if re.fullmatch(rf"{room}: done in \d+ (s|min), \d+ of \d+ in all(, .*)?", line)]
        assert len(ends) == 1
    total = int(re.search(r"^(\d+) to do, about \d+ (s|min) left$", output, re.M)[1])
    assert lines[-1].endswith(f"{total} of {total} in all")
    late = re.compile(r"\[.*\] |\w+: \d+ of \d+, ")  # how long jobs and rooms get on, where the machine is slow
    assert len([line for line in lines if not late.match(line)]) == 4 + 2 * len(rooms)
    assert not re.search(r"Select jobs|jobid|Provided cores|Host:", output)
    assert summary.endswith("Report: results/tiny/report.html\n")
    (log,) = (study.folder / ".snakemake" / "log").glob("*.log")
    assert re.search(r"^ *(local)?rule generate:", log.read_text(), re.M)  # all is there


def test_part_of_a_study_has_no_summary(finished):
    study, _ = finished
    run = terse(study, "results/tiny/problems.parquet", "--force")
    assert "problems: done in" in run.output
    assert "# tiny" not in run.output
    assert "Report:" not in run.output
    assert "Nothing to be done" in terse(study).output


def test_a_dry_run_shows_the_plan(finished):
    run = terse(finished[0].edit(inferences=4), "--dry-run")
    assert "generate reason 00000-00003" in run.jobs or "generate reason 00002-00003" in run.jobs
    assert "Job stats:" in run.output
    assert "to do" not in run.output
    (line,) = re.findall(r"^Ahead: .*$", run.output, re.M)
    assert re.fullmatch(
        r"Ahead: up to 24 tokens to write; about [\d.]+ KB of readings on disk; jobs that ask for up to [\d.]+ GB of "
        r"memory; about \d+ (s|min) on 2 cores, by the times of this study’s earlier runs\.",
        line,
    )
    fresh = terse(finished[0].edit(experiment="other"), "--dry-run").output
    assert "earlier runs here, also of other studies" in fresh  # of this machine's other study
    assert "Nothing to be done" in (done := terse(finished[0], "--dry-run").output)
    assert "Ahead" not in done


def test_a_failed_job_is_named_with_its_error_and_logs(tmp_path, tiny_model):
    run = terse(new_study(tmp_path / "study", tiny_model).edit(layers=[1, 9]))
    assert run.code != 0
    assert len(re.findall(r"^\[model\] error: config: layers: 9 is out of range; .*$", run.output, re.M)) == 1
    assert len(re.findall(r"^failed: model; its log: results/tiny/logs/model\.log$", run.output, re.M)) == 1
    assert re.search(r"^Complete log.*/\.snakemake/log/.*\.snakemake\.log$", run.output, re.M)
    assert not re.search(r"CalledProcessError|Traceback|# tiny", run.output)
    assert len(run.output.splitlines()) < 20


class Terminal:
    """Progress of a workflow of two rules of one room, given Snakemake's records by hand."""

    def __init__(self, tmp_path, planned=(), **jobs: int) -> None:
        rules = [
            SimpleNamespace(
                name=name, snakefile="rules/room.smk", resources={}, benchmark=f"{tmp_path}/{{experiment}}/{name}/{{x}}"
            )
            for name in jobs
        ]
        self.stream = StringIO()
        self.progress = progress.Progress(
            logging.StreamHandler(self.stream),
            SimpleNamespace(
                rules=rules, dryrun=False, executor_plugin=object(), dag=SimpleNamespace(needrun_jobs=lambda: planned)
            ),
            "tiny",
            100,
            4,
        )
        self.tell("run_info", stats=jobs | {"total": sum(jobs.values())})

    def tell(self, event: str, **about) -> None:
        self.progress.handle(logging.makeLogRecord({"event": event, "levelno": logging.INFO, **about}))

    def start(self, number: int, rule: str, local: bool = True) -> None:
        self.tell("job_info", jobid=number, rule_name=rule, wildcards={"experiment": "tiny", "x": "1"}, local=local)

    @property
    def last(self) -> str:
        return self.stream.getvalue().splitlines()[-1]


def test_time_left_follows_from_earlier_runs_and_from_the_work_done(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for name, seconds in (("slow", (900, 1100)), ("quick", (10,))):
        (tmp_path / "tiny" / name).mkdir(parents=True)
        for index, value in enumerate(seconds):
            (tmp_path / "tiny" / name / str(index)).write_text(f'{{"s": {value}}}\n')
    terminal = Terminal(tmp_path, slow=3, quick=3)
    assert terminal.last == "6 to do, about 50 min left"  # 3 × 1000 + 3 × 10 s
    terminal.start(1, "slow")
    assert terminal.last == "room: 6 to do"
    terminal.start(2, "slow")
    now += 2000  # both took twice as long as ever, side by side: what is left is 2000 + 3 × 10 s at half the time each
    terminal.tell("job_finished", job_id=1)
    assert terminal.last == "room: 1 of 6, 1 of 6 in all, about 17 min left"
    terminal.tell("job_finished", job_id=2)
    assert terminal.last == "room: 1 of 6, 1 of 6 in all, about 17 min left"  # not a line a job


def test_times_of_blocks_are_those_of_their_traces(tmp_path):
    """Earlier ones of 64 traces and of 4 say what one of 16 takes; what a process's start takes doesn't grow."""
    (tmp_path / "tiny" / "generate").mkdir(parents=True)
    for block, seconds in (("00000-00063", 32.5), ("00064-00067", 2.5)):
        (tmp_path / "tiny" / "generate" / f"{block}.jsonl").write_text(f'{{"s": {seconds}}}\n')
    rule = SimpleNamespace(name="generate")
    planned = [
        SimpleNamespace(rule=rule, wildcards=SimpleNamespace(block=f"{first:05d}-{first + 15:05d}"), resources={})
        for first in range(0, 480, 16)
    ]
    terminal = Terminal(tmp_path, planned, generate=30)
    assert terminal.last == "30 to do, about 4 min left"  # 30 × 8.5 s, where each took 0.5 s and 0.5 s a trace


def test_a_job_that_was_killed_is_said_to_be(tmp_path):
    terminal = Terminal(tmp_path, work=1)
    log = tmp_path / "work.log"
    log.write_text("[work] 3 of 9 tokens\n")
    terminal.start(1, "work")
    for _ in range(2):  # Snakemake may say it again
        terminal.tell("job_error", jobid=1, log=[str(log)], indent=False, levelno=logging.ERROR)
    assert terminal.stream.getvalue().count("failed:") == 1
    assert (
        terminal.last
        == f"failed: work 1 without an error of its own: killed, for want of memory perhaps; its log: {log}"
    )


def test_errors_of_jobs_elsewhere_are_repeated_here(tmp_path):
    terminal = Terminal(tmp_path, work=2)
    (tmp_path / "1.log").write_text(
        "chatter\n[work 1] error: the hub is away\n[work 1] To run without the hub:\n  hf\n"
    )
    for number in (1, 2):
        terminal.start(number, "work", local=False)
        log = [str(tmp_path / f"{number}.log"), "slurm.log"]
        terminal.tell("job_error", jobid=number, log=log, indent=True, levelno=logging.ERROR)
    assert terminal.stream.getvalue().splitlines()[2:] == [
        "[work 1] error: the hub is away",
        "[work 1] To run without the hub:",
        "  hf",
        f"failed: work 1; its log: {tmp_path}/1.log, slurm.log",  # the group's other job never ran
    ]
