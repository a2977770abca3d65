"""What a run says on the terminal: a line as a room of the workflow starts and as it ends, and what went wrong.

Snakemake's own account, a dozen lines a job, is in its log under .snakemake/log. Standard library only.
"""

import glob
import json
import logging
import os
import re
import time
from collections import Counter, defaultdict
from contextlib import suppress
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from .config import traces_of
from .job import FEW_LINES, every_few_seconds

TYPICAL_SECONDS = {True: 20.0, False: 1.0}
"""Time of a job that uses the GPU, and of another (most of it Python's start), where none has been measured."""

START_SECONDS = {True: 4.0, False: 0.5}
"""What of such a job's time is its start, and doesn't grow with the traces of its block."""

BYTES_AN_ACTIVATION = 15
"""What an active latent at a token takes in readings, in bytes, as measured in the embedded study."""

SHOWN = ("Building DAG", "Nothing to be done", "Trying to restart", "Terminating processes", "Will exit after")
"""How those of Snakemake's plain messages begin that a run shows."""


def attach(workflow: Any, experiment: str, tokens_a_trace: int, active_latents: int | None) -> None:
    """Let a run of `workflow` (Snakemake's object) speak so; with any --quiet, Snakemake speaks for itself.

    Snakemake's processes for single jobs and all else that isn't a run stay as they are, and so do dry runs, but for a
    line on what is ahead. tokens_a_trace: how many the model writes at most; active_latents: of each, if that is known.
    """
    if not workflow.is_main_process or workflow.output_settings.quiet:
        return
    os.environ[FEW_LINES] = "1"
    logger = logging.getLogger("snakemake.logging")
    for handler in list(logger.handlers):
        if handler.name == "DefaultStreamHandler":
            logger.removeHandler(handler)
            logger.addHandler(Progress(handler, workflow, experiment, tokens_a_trace, active_latents))


class _Job(NamedTuple):
    rule: str
    title: str
    is_local: bool
    start: float


class Progress(logging.Handler):
    """Prints Snakemake's records as `handler` would, but in a run lines of its own for those about jobs."""

    def __init__(
        self, handler: Any, workflow: Any, experiment: str, tokens_a_trace: int, active_latents: int | None
    ) -> None:
        super().__init__()
        self.handler, self.workflow, self.experiment = handler, workflow, experiment
        self.tokens_a_trace, self.active_latents = tokens_a_trace, active_latents
        self.told = False
        self.running: dict[int, _Job] = {}
        self.begun: dict[str, float] = {}  # start, by room
        self.done: Counter[str] = Counter()  # jobs, by rule
        self.spent: dict[str, float] = defaultdict(float)  # seconds of those, by rule
        self.failed = False
        self.tick = every_few_seconds(self._say)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, a line of our own instead, or nothing."""
        event, about = getattr(record, "event", None), record.__dict__
        if event == "workflow_started":  # machine, user, command: for the log
            return
        if self.workflow.executor_plugin is None or self.workflow.dryrun or self._is_shown(record):
            self.handler.handle(record)
            if event == "run_info" and self.workflow.dryrun and not self.told:
                self.told = True  # Snakemake says it again at the end
                self._say(self._ahead(about["stats"]))
        elif event == "run_info":
            self._plan(about["stats"])
        elif event == "job_info" and about["rule_name"] in self.rooms:
            places = [value for name, value in about["wildcards"].items() if name != "experiment"]
            rule, here = about["rule_name"], about["local"]
            self._start(about["jobid"], _Job(rule, " ".join([rule, *places]), here, time.monotonic()))
        elif event == "job_finished" and about["job_id"] in self.running:
            self._finish(self.running.pop(about["job_id"]))
        elif event == "job_error" and about["jobid"] in self.running:
            self._fail(self.running.pop(about["jobid"]), about["log"], in_group=about["indent"])
        elif event == "group_error":
            self._say(f"failed: a group of jobs; its log: {', '.join(about['aux_logs'])}")

    def _is_shown(self, record: logging.LogRecord) -> bool:
        text = str(record.msg)
        if record.levelno >= logging.WARNING:  # but what a failed job's own line says better
            return getattr(record, "event", None) not in ("job_error", "group_error") and "CalledProcess" not in text
        return text.startswith(SHOWN) or (self.failed and text.startswith("Complete log"))

    def _say(self, line: str) -> None:
        print(line, file=self.handler.stream, flush=True)

    def _plan(self, jobs: dict[str, int]) -> None:
        """Note each rule's room, number of jobs and time of one."""
        self.started = time.monotonic()
        rules = [rule for rule in self.workflow.rules if rule.name in jobs and rule.name != "all"]
        self.rooms = {rule.name: Path(str(rule.snakefile)).stem for rule in rules}
        self.jobs = Counter({rule.name: jobs[rule.name] for rule in rules})
        traces, _ = self._planned()
        self.expected = {rule.name: self._earlier(rule, traces[rule.name] / jobs[rule.name]) for rule in rules}
        self._say(f"{self.jobs.total()} to do{self._time_left()}")

    def _ahead(self, jobs: dict[str, int]) -> str:
        """Say what a plan is: tokens, disk and memory at most, and how long its jobs took earlier, if any ran."""
        rules = [rule for rule in self.workflow.rules if jobs.get(rule.name) and rule.name != "all"]
        parts = []
        traces, asked = self._planned()
        if written := traces["generate"]:
            parts.append(f"up to {written * self.tokens_a_trace:,} tokens to write")
        if self.active_latents and (read := traces["read"]):
            size = read * self.tokens_a_trace * self.active_latents * BYTES_AN_ACTIVATION
            parts.append(f"about {_size(size)} of readings on disk")
        if asked:
            parts.append(f"jobs that ask for up to {_size(asked)} of memory")
        cores = self.workflow.resource_settings.cores or 1  # none are given where all jobs are sent elsewhere
        each = {rule.name: traces[rule.name] / jobs[rule.name] for rule in rules}
        own = {rule.name: self._measured(rule, self.experiment, each[rule.name]) for rule in rules}
        times = {rule.name: own[rule.name] or self._measured(rule, "*", each[rule.name]) for rule in rules}
        known = [rule for rule in rules if times[rule.name]]
        seconds = sum(jobs[rule.name] * fmean(times[rule.name]) * min(_threads(rule), cores) / cores for rule in known)
        if not known:
            parts.append("how long can't be told yet: no job of the kind has run here")
        else:
            new = len(rules) - len(known)
            left_out = f", without {new} {'rule' if new == 1 else 'rules'} never run here" if new else ""
            on = (
                f"on {cores} {'core' if cores == 1 else 'cores'}"
                if self.workflow.local_exec
                else "one job after another"
            )
            ours = all(own[rule.name] for rule in known)
            whose = "this study’s earlier runs" if ours else "earlier runs here, also of other studies"
            parts.append(f"about {_duration(seconds)} {on}, by the times of {whose}{left_out}")
        return f"Ahead: {'; '.join(parts)}."

    def _planned(self) -> tuple[Counter[str], float]:
        """Return how many traces a rule's jobs of blocks are about, and the most memory asked for, in bytes."""
        traces: Counter[str] = Counter()
        asked: dict[str, float] = {}  # by rule: its jobs ask for the same
        for job in self.workflow.dag.needrun_jobs():
            name = job.rule.name
            if block := getattr(job.wildcards, "block", None):
                traces[name] += len(traces_of(block))
            if name not in asked:
                memory = job.resources.get("mem_mb", 0)
                asked[name] = 1e6 * memory if isinstance(memory, int | float) else 0.0
        return traces, max(asked.values(), default=0.0)

    def _earlier(self, rule: Any, traces: float) -> float:
        """Return the mean time of some jobs of a rule in earlier runs, in seconds; else what is typical."""
        seconds = self._measured(rule, self.experiment, traces)
        return fmean(seconds) if seconds else TYPICAL_SECONDS["gpu" in rule.resources]

    def _measured(self, rule: Any, experiment: str, traces: float) -> list[float]:
        """Return how long some jobs of a rule took in earlier runs of an experiment, or of any (`*`), in seconds.

        Those of a block, each as if it had been of `traces` traces.
        """
        pattern = re.sub(r"\{experiment[^}]*\}", experiment, str(rule.benchmark))
        pattern = re.sub(r"\{[^}]*\}", "*", pattern)
        start, seconds = START_SECONDS["gpu" in rule.resources], []
        for path in islice(glob.iglob(pattern), 20):
            with suppress(OSError, ValueError, LookupError, TypeError):
                took = float(json.loads(Path(path).read_text(encoding="utf-8"))["s"])
                if traces and (block := re.search(r"(\d+-\d+)\.jsonl$", path)):
                    took += max(0.0, took - start) * (traces / len(traces_of(block[1])) - 1)
                seconds.append(took)
        return seconds

    def _start(self, number: int, job: _Job) -> None:
        self.running[number], room = job, self.rooms[job.rule]
        if room not in self.begun:
            self.begun[room] = job.start
            self._say(f"{room}: {self._of(room, self.jobs)} to do")

    def _finish(self, job: _Job) -> None:
        self.done[job.rule] += 1
        self.spent[job.rule] += time.monotonic() - job.start
        room = self.rooms[job.rule]
        done, jobs = (self._of(room, counts) for counts in (self.done, self.jobs))
        in_all = f"{self.done.total()} of {self.jobs.total()} in all{self._time_left()}"
        if done < jobs:
            self.tick(f"{room}: {done} of {jobs}, {in_all}")
        else:
            self._say(f"{room}: done in {_duration(time.monotonic() - self.begun[room])}, {in_all}")

    def _of(self, room: str, counts: Counter[str]) -> int:
        return sum(count for rule, count in counts.items() if self.rooms[rule] == room)

    def _fail(self, job: _Job, logs: list[str], in_group: bool) -> None:
        """Say which job failed and where its log is; and what it said, where that isn't on this terminal."""
        self.failed = True
        said = None
        with suppress(OSError):
            text = Path(logs[0]).read_text(encoding="utf-8")
            said = re.search(r"^\[[^]]+\] error: .*", text, re.MULTILINE | re.DOTALL)
        if said and not job.is_local:
            self._say(said[0].rstrip())
        if said or not in_group:  # of a group, Snakemake takes all for failed
            died = "" if said else " without an error of its own: killed, for want of memory perhaps"
            self._say(f"failed: {job.title}{died}; its log: {', '.join(logs)}")

    def _time_left(self) -> str:
        """Say how long the rest will take: at the rate at which the work done so far was done."""
        now = time.monotonic()
        each = self.expected | {rule: self.spent[rule] / count for rule, count in self.done.items()}
        done = sum(count * each[rule] for rule, count in self.done.items())
        under_way = sum(min(now - job.start, each[job.rule]) for job in self.running.values())
        left = sum(count * each[rule] for rule, count in self.jobs.items()) - done - under_way
        rate = (now - self.started) / (done + under_way) if self.done else 1
        return f", about {_duration(left * rate)} left" if left > 0 else ""


def _threads(rule: Any) -> int:
    """Return the threads of a rule's jobs; 1 where they depend on the job."""
    threads = rule.resources["_cores"].value
    return threads if isinstance(threads, int) else 1


def _size(count: float) -> str:
    """Return a number of bytes in words, with two digits or more."""
    units = (1e12, "TB"), (1e9, "GB"), (1e6, "MB")
    unit, name = next((each for each in units if count >= 0.95 * each[0]), (1e3, "KB"))
    return f"{count / unit:.0f} {name}" if count >= 9.5 * unit else f"{count / unit:.1f} {name}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
