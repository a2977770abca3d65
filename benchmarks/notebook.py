"""The original study's procedure, an inference at a time, as its notebook has it: the baseline of benchmarks/ahead.py.

    .venv/bin/python benchmarks/notebook.py MODEL SAES PROBLEMS [--questions 0 1 2 3] [--tokens 100 100 100 100]
        [--layers 5 10 20] [--device cpu] [--pictures FOLDER]

MODEL: a model's folder. SAES: a folder with `layers.{layer}.mlp` in sparsify's format. PROBLEMS: parquet with
`question`. For each inference: `generate` at batch 1 with all hidden states; hidden states and trace saved; loaded
again; what enters block L encoded by the SAE of layers.L.mlp; the tables of every layer; with --pictures, pictures.

The baseline is kept fast where the notebook leaves it open: the model's dtype is what thoughtscope takes, the states
are saved as one tensor and encoded in one call a layer, and only generated tokens are tabled. Loading the model and the
SAEs isn't counted. Every answer has as many tokens as asked for, so that the work is known. Prints seconds by stage
and, as the last line, all of it as JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

SUFFIX = " Please reason step by step in a few words, and put your final answer within \\boxed{}"
MOST_ACTIVATIONS, MOST_FREQUENT, BINS, RELEVANT, MOST_TOKENS = 400, 70, 50, 10, 70


def generate(model, tokenizer, question: str, tokens: int) -> dict[str, Any]:
    """Write one trace; return its ids and the states of every level, (levels, tokens read, width)."""
    turn = [{"role": "user", "content": question + SUFFIX}]
    inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(
        **inputs.to(model.device), min_new_tokens=tokens, max_new_tokens=tokens, do_sample=True, temperature=0.6,
        top_p=0.95, output_hidden_states=True, return_dict_in_generate=True, pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    levels = [torch.cat([states[0] for states in level]) for level in zip(*output.hidden_states, strict=True)]
    return {
        "ids": output.sequences[0].cpu(),
        "prompt": inputs["input_ids"].shape[1],
        "text": tokenizer.decode(output.sequences[0]),
        "hidden_states": torch.stack(levels).cpu(),
    }


def encode(trace: dict[str, Any], saes: dict[int, Any]) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return activations and latents, (tokens read, k) each, of what enters the block of every layer."""
    encoded = {}
    for layer, sae in saes.items():
        top = sae.encode(trace["hidden_states"][layer].to(sae.device, sae.dtype))
        encoded[layer] = top.top_acts.cpu(), top.top_indices.cpu()
    return encoded


def tables(trace: dict[str, Any], activations: torch.Tensor, latents: torch.Tensor, tokenizer) -> dict[str, Any]:
    """Return one layer's tables over the generated tokens of a trace."""
    start = trace["prompt"]
    ids = trace["ids"][start:-1].tolist()  # the last was written, but never read
    activations, latents = activations[start:], latents[start:]
    flat, flat_latents = activations.flatten(), latents.flatten()
    largest = flat.topk(min(MOST_ACTIVATIONS, len(flat)))
    bars: dict[int, float] = {}
    for value, latent in zip(largest.values.tolist(), flat_latents[largest.indices].tolist(), strict=True):
        bars[latent] = bars.get(latent, 0) + value
    counts = Counter(flat_latents.tolist())
    histogram = torch.histogram(flat, bins=BINS)
    maxima: dict[int, float] = {}
    by_token: dict[int, dict[int, float]] = {}
    for token, values, which in zip(ids, activations.tolist(), latents.tolist(), strict=True):
        for value, latent in zip(values, which, strict=True):
            maxima[latent] = max(maxima.get(latent, 0), value)
            seen = by_token.setdefault(latent, {})
            seen[token] = max(seen.get(token, 0), value)
    relevant = sorted(maxima, key=maxima.__getitem__, reverse=True)[:RELEVANT]
    top_tokens = {
        latent: [
            (token, tokenizer.decode([token]), value)
            for token, value in sorted(by_token[latent].items(), key=lambda pair: -pair[1])[:MOST_TOKENS]
        ]
        for latent in relevant
    }
    return {"largest": bars, "frequent": counts.most_common(MOST_FREQUENT), "relevant": relevant,
            "histogram": (histogram.hist.tolist(), histogram.bin_edges.tolist()), "top_tokens": top_tokens}  # fmt: skip


def draw(found: dict[str, Any], folder: Path, name: str) -> None:
    """Draw one layer's pictures of one trace with pyplot, a file each."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    def bars(kind: str, labels: list[str], heights: list[float]) -> None:
        plt.figure(figsize=(20, 6))
        plt.bar(labels, heights)
        plt.yscale("log")
        plt.xticks(rotation=90)
        save(kind)

    def save(kind: str) -> None:
        plt.savefig(folder / f"{name}-{kind}.png")
        plt.close()

    bars("largest", list(map(str, found["largest"])), list(found["largest"].values()))
    bars("frequent", [str(latent) for latent, _ in found["frequent"]], [count for _, count in found["frequent"]])
    heights, edges = found["histogram"]
    plt.figure(figsize=(10, 6))
    plt.stairs(heights, edges, fill=True)
    plt.yscale("log")
    save("histogram")
    for latent, tokens in found["top_tokens"].items():
        plt.figure(figsize=(10, 14))
        plt.barh([repr(text) for _, text, _ in tokens], [value for *_, value in tokens])
        plt.xscale("log")
        save(f"tokens-{latent}")
        plt.figure(figsize=(10, 6))
        plt.scatter([token for token, *_ in tokens], [value for *_, value in tokens])
        save(f"scatter-{latent}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("saes", type=Path)
    parser.add_argument("problems", type=Path)
    parser.add_argument("--questions", type=int, nargs="+", default=[0, 1, 2, 3], help="which of the problems")
    parser.add_argument("--tokens", type=int, nargs="+", default=[100] * 4, help="how many to write on each")
    parser.add_argument("--layers", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()

    import polars as pl
    from sparsify import SparseCoder
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from thoughtscope.models import resolve_dtype

    tokenizer = PreTrainedTokenizerFast.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=resolve_dtype("auto")).to(options.device)
    saes = {
        layer: SparseCoder.load_from_disk(options.saes / f"layers.{layer}.mlp", device=options.device, decoder=False)
        for layer in options.layers
    }
    for sae in saes.values():
        sae.encoder.weight.sum()  # reads what is mapped from disk
    questions = pl.read_parquet(options.problems)["question"]
    stages = "generate", "save", "load", "encode", "tables", "pictures"
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    written = []
    torch.manual_seed(0)
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        generate(model, tokenizer, questions[0], 2)  # whatever is set up once
        for index, tokens in zip(options.questions, options.tokens, strict=True):
            path, clock = Path(folder) / f"{index}.pt", [time.perf_counter()]
            trace = generate(model, tokenizer, questions[index], tokens)
            clock.append(time.perf_counter())
            torch.save(trace, path)
            clock.append(time.perf_counter())
            trace = torch.load(path)
            clock.append(time.perf_counter())
            encoded = encode(trace, saes)
            clock.append(time.perf_counter())
            found = {layer: tables(trace, *states, tokenizer) for layer, states in encoded.items()}
            clock.append(time.perf_counter())
            if options.pictures:
                options.pictures.mkdir(parents=True, exist_ok=True)
                for layer, parts in found.items():
                    draw(parts, options.pictures, f"{index}-{layer}")
            clock.append(time.perf_counter())
            path.unlink()
            written.append(len(trace["ids"]) - trace["prompt"])
            for name, start, end in zip(seconds, clock, clock[1:], strict=False):
                seconds[name].append(end - start)
    count = len(written)
    for name, taken in seconds.items():
        print(f"{name:9s} {sum(taken) / count:6.2f} s an inference, {1000 * sum(taken) / sum(written):6.1f} ms a token")
    total = sum(map(sum, seconds.values()))
    print(f"all       {total / count:6.2f} s an inference of {sum(written) / count:.0f} tokens")
    print(json.dumps({"written": written, "seconds": seconds}))


if __name__ == "__main__":
    main()
