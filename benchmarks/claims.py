"""What the benchmarks share: how a claim is judged and printed, ways timed in turns, and what the machine is.

A benchmark prints each of its claims as one line of JSON; all else it prints is for people:

    {"claim": "…", "target": "≥ 4", "seen": "5.10 (4.82 to 5.33)", "met": true}

`met` is null where the claim isn't about this machine, as one about a GPU on a machine without; `target` then says why.
"""

import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

KEYS = {"claim", "target", "seen", "met"}


def claim(text: str, seen: float | Sequence[float], **bound: Any) -> None:
    """Judge a claim and print it."""
    print(json.dumps(judge(text, seen, **bound), ensure_ascii=False), flush=True)


def judge(
    text: str,
    seen: float | Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    unit: str = "",
    unless: str = "",
) -> dict[str, Any]:
    """Judge the median of what was seen by one bound. `unless`: why the claim isn't about this machine, if so."""
    values = [float(value) for value in seen] if isinstance(seen, Sequence) else [float(seen)]
    middle, bound = statistics.median(values), at_most if at_least is None else at_least
    said = f"{_number(middle)}{unit}"
    if len(values) > 1:
        said += f" ({_number(min(values))} to {_number(max(values))})"
    target = f"{'≤' if at_least is None else '≥'} {_number(bound)}{unit}" + f"; {unless}" * bool(unless)
    met = middle <= bound if at_least is None else middle >= bound
    return {"claim": text, "target": target, "seen": said, "met": None if unless else met}


def _number(value: float) -> str:
    """Return a number as people write it: three digits that count, and no exponent."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}"


def read(output: str) -> Iterator[dict[str, Any]]:
    """Yield the claims among the lines that a benchmark printed."""
    for line in output.splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and found.keys() == KEYS:
                yield found


def in_turns(runs: int, **ways: Callable[[], Any]) -> dict[str, list[float]]:
    """Time each way `runs` times, in turns, so that what else the machine does falls on all alike; returns seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(slower: Sequence[float], faster: Sequence[float]) -> list[float]:
    """Return how many times as long the one took as the other, turn by turn."""
    return [a / b for a, b in zip(slower, faster, strict=True)]


def machine() -> dict[str, str]:
    """Return what the numbers are from: processor, cores, matrix units, memory, GPU, versions."""
    import torch

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    units = [name for name, has in (("bf16", has_bfloat16()), ("AMX", torch.cpu._is_amx_tile_supported())) if has]
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ("torch", "transformers", "eai-sparsify", "snakemake", "polars", "matplotlib")
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "matrix units": ", ".join(units) or "neither bf16 nor AMX",
        "memory": f"{gibibytes:.0f} GB",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
        ),
    }


def has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 itself."""
    import torch

    return torch.cpu._is_avx512_bf16_supported()
