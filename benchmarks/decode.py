"""Decoding speed against plain `generate`, against what its products alone would allow, and against other programs.

    .venv/bin/python benchmarks/decode.py [--model results/taught/model] [--batch 32] [--written 100] [--runs 3]
        [--gguf smollm2.gguf]

Without a model it is one of R1-Distill-Qwen-1.5B's shape with random weights. All write the same number of traces of
the same prompts, none of which ends early, in turns. Prints the median tokens/s of each, reading the prompts included,
and the ratio run by run. The floor of a step is, on the processor, the time of its own products alone; on a GPU, the
time in which weights and cache can be read once, at the bandwidth that a large copy reaches. Where `llama-server` is on
PATH and --gguf names its (mostly quantised) model, and where `vllm` is, their servers are in the table too.
"""

import argparse
import contextlib
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from study import R1_DISTILL_QWEN_1_5B
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from thoughtscope import devices, models
from thoughtscope.traces import decoding
from thoughtscope.traces.sampling import uniforms

TEMPERATURE, TOP_P = 0.6, 0.95


def load(folder: str | None, dtype: str):
    if folder:
        return models.load_model({"folder": folder, "files": {}}, dtype)
    with torch.device(devices.device()):
        model = AutoModelForCausalLM.from_config(R1_DISTILL_QWEN_1_5B, dtype=models.resolve_dtype(dtype))
    return model.eval().requires_grad_(False)


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(way: Callable, model, prompts: dict[int, list[int]], written: int) -> tuple[float, float]:
    """Write once; return the seconds in all, and the median seconds of a step in which all traces are under way."""
    draws = decoding.Draws(
        uniforms(0, "benchmark", range(len(prompts)), written), TEMPERATURE, TOP_P, range(len(prompts))
    )
    marks = [clock()]
    dict(way(model, prompts, draws, written, frozenset(), len(prompts), lambda ids: marks.append(clock())))
    steps = [later - earlier for earlier, later in itertools.pairwise(marks[1 - written :])]
    return clock() - marks[0], statistics.median(steps)


def floor(decoder: decoding.Decoder, tokens: int) -> float:
    """The least seconds of a step of all rows, each of which has read that many tokens."""
    if decoder.device.type == "cuda":
        weights = sum(weight.nbytes for weight in decoder.model.model.layers.parameters())
        weights += decoder.model.lm_head.weight.nbytes
        cache = 2 * len(decoder.blocks) * decoder.rows * decoder.key_heads * tokens * decoder.width
        source = torch.empty(2**30, dtype=torch.uint8, device=decoder.device)
        target = torch.empty_like(source)
        target.copy_(source)
        started = clock()
        for _ in range(10):
            target.copy_(source)
        return (weights + cache * decoder.dtype.itemsize) / (10 * 2 * 2**30 / (clock() - started))
    config = decoder.model.config
    sizes = (config.hidden_size, config.num_attention_heads * decoder.width, config.intermediate_size)
    narrow, heads, wide = (torch.randn(decoder.rows, size, dtype=decoder.dtype) for size in sizes)
    started = clock()
    for block in decoder.blocks:
        block.queries_keys_values(narrow)
        block.attention_out(heads)
        block.gate_up(narrow)
        block.down(wide)
    decoder.head(narrow)
    return clock() - started


@contextlib.contextmanager
def server(command: list[str], port: int) -> Iterator[Callable[[list[list[int]], int], float]]:
    """Start a server of OpenAI's completions; yields a function that writes all prompts at once, and its seconds."""

    def post(prompt: list[int], written: int) -> int:
        body = {"prompt": prompt, "max_tokens": written, "temperature": TEMPERATURE, "top_p": TOP_P, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["usage"]["completion_tokens"]

    def write(prompts: list[list[int]], written: int) -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(len(prompts)) as pool:
            tokens = sum(pool.map(post, prompts, [written] * len(prompts)))
        assert tokens == len(prompts) * written
        return time.perf_counter() - started

    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(0.5)
        post([1, 2, 3], 2)
        yield write
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--gguf")
    parser.add_argument("--dtype", default="auto")
    for name, default in {"batch": 32, "prompt": 90, "written": 100, "runs": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    batch, written = options.batch, options.written

    model = load(options.model, options.dtype)
    torch.manual_seed(0)
    ids = torch.randint(10, min(30000, model.config.vocab_size), (batch, options.prompt)).tolist()
    prompts = dict(enumerate(ids))
    ways: dict[str, Callable[[], tuple[float, float | None]]] = {
        "plain generate": lambda: timed(decoding.generate, model, prompts, written),
        "thoughtscope": lambda: timed(decoding.decode, model, prompts, written),
    }
    with contextlib.ExitStack() as servers:
        threads, length = str(torch.get_num_threads()), options.prompt + written
        if options.gguf and shutil.which("llama-server"):
            command = ["llama-server", "--model", options.gguf, "--threads", threads, "--parallel", str(batch)]
            write = servers.enter_context(server([*command, "--ctx-size", str(batch * (length + 8))], 8089))
            ways["llama.cpp, " + Path(options.gguf).stem] = lambda write=write: (write(ids, written), None)
        if options.model and shutil.which("vllm"):
            command = ["vllm", "serve", options.model, "--dtype", str(model.dtype).removeprefix("torch.")]
            command += ["--max-num-seqs", str(batch), "--max-model-len", str(length + 8)]
            write = servers.enter_context(server(command, 8090))
            ways["vLLM"] = lambda write=write: (write(ids, written), None)
        timed(decoding.generate, model, prompts, 3)
        timed(decoding.decode, model, prompts, 3)
        found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in ways}
        floors = []
        for _ in range(options.runs):
            for name, way in ways.items():
                found[name].append(way())
            decoder = decoding.Decoder(model, batch)
            with torch.inference_mode():
                floors.append(statistics.median(floor(decoder, options.prompt + written // 2) for _ in range(9)))
            del decoder

    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{threads} threads"
    print(f"{model.config.model_type}, {model.dtype}, {where}: {batch} traces, {options.prompt} + {written} tokens")
    ours = found["thoughtscope"]
    for name, runs in found.items():
        speeds = [batch * written / seconds for seconds, _ in runs]
        ratios = [theirs / mine for (theirs, _), (mine, _) in zip(runs, ours, strict=True)]
        steps = "" if runs[0][1] is None else f", {1000 * statistics.median(step for _, step in runs):.1f} ms a step"
        print(
            f"{name:24s} {statistics.median(speeds):7.0f} tokens/s{steps}; thoughtscope is"
            f" {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    shares = [least / step for least, (_, step) in zip(floors, ours, strict=True)]
    print(f"floor of a step {1000 * statistics.median(floors):.1f} ms: {statistics.median(shares):.0%} reached")


if __name__ == "__main__":
    main()
