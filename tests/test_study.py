"""The original study: its config run from a hub's cache on a tiny copy of its parts, and its procedure re-derived.

The parts are a Qwen2 of 28 layers, a tokenizer with R1's template and markers, and SAEs saved by sparsify, laid out as
the hub's client does. Only the sizes differ from the real thing.
"""

import json
import os
import shlex
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import datasets
import polars as pl
import pytest
import torch
import yaml
from conftest import QUESTIONS, REPO, Run
from test_saes import save_sae
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CONFIG = REPO / "config" / "r1-distill-qwen-1.5b.yaml"
EXPERIMENT = "r1-distill-qwen-1.5b"
LAYERS = [5, 10, 20]
WIDTH, LATENTS = 48, 320
SAE_COMMIT = "5" * 40

# The published template, but for its branches on tools.
CHAT_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
MARKERS = ["<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<think>", "</think>"]


def snapshot(hub: Path, repository: str, commit: str) -> Path:
    folder = hub / repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (hub / repository / "refs").mkdir()
    (hub / repository / "refs" / "main").write_text(commit)
    return folder


def build_tokenizer(folder: Path) -> int:
    """Save a byte-level BPE as R1's is saved: under the class name LlamaTokenizerFast. Returns its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text for pair in QUESTIONS for text in pair], trainer)
    tokenizer.add_special_tokens([marker for marker in MARKERS if "sentence" in marker])
    tokenizer.add_tokens(MARKERS)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "LlamaTokenizerFast",
        "bos_token": "<｜begin▁of▁sentence｜>",
        "eos_token": "<｜end▁of▁sentence｜>",
        "pad_token": "<｜end▁of▁sentence｜>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 16384,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return tokenizer.get_vocab_size()


def build_hub(hub: Path, config: dict) -> None:
    """Lay out model, SAEs and dataset as snapshots of a Hugging Face cache, at the revisions the config pins."""
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    model = snapshot(hub, "models--deepseek-ai--DeepSeek-R1-Distill-Qwen-1.5B", config["model"]["revision"])
    size = build_tokenizer(model)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    torch.manual_seed(0)
    qwen = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=size + 20,  # padded, as the real one is
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=28,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            initializer_range=0.2,
        )
    )
    qwen.generation_config = GenerationConfig(
        bos_token_id=tokenizer.token_to_id("<｜begin▁of▁sentence｜>"),
        eos_token_id=tokenizer.token_to_id("<｜end▁of▁sentence｜>"),
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
    )
    qwen.save_pretrained(model)

    saes = snapshot(hub, "models--EleutherAI--sae-DeepSeek-R1-Distill-Qwen-1.5B-65k", SAE_COMMIT)
    for layer in LAYERS:
        save_sae(saes / f"layers.{layer}.mlp", d_in=WIDTH, num_latents=LATENTS, k=32, seed=layer)

    data = snapshot(hub, "datasets--openai--gsm8k", config["problems"]["revision"]) / "main"
    data.mkdir()
    rows = {"question": [question for question, _ in QUESTIONS], "answer": [answer for _, answer in QUESTIONS]}
    datasets.Dataset.from_dict(rows).to_parquet(str(data / "train-00000-of-00001.parquet"))
    # Where the hub's dataset says which files make up which configuration.
    (data.parent / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n---\n"
    )


def snakemake(folder: Path, *arguments: str, overlays: tuple[Path, ...] = (), **environment: str) -> Run:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(REPO / "Snakefile"), "--cores", "2",
         "--configfile", str(CONFIG), *map(str, overlays), *arguments],
        cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    return Run(done.returncode, done.stdout)


SMALLER = {
    "inferences": 4,
    "generation": {"max_new_tokens": 60},
    "model": {"dtype": "float32"},  # so that numbers can be compared; the shipped config leaves it at auto
}
"""Laid over the shipped config."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The shipped config, run from the cache with the hub turned off: (folder, what was printed, environment)."""
    folder = tmp_path_factory.mktemp("r1")
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    build_hub(folder / "hf" / "hub", config)
    environment = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    (folder / "smaller.yaml").write_text(yaml.safe_dump(SMALLER))
    run = snakemake(folder, overlays=(folder / "smaller.yaml",), **environment)
    assert run.code == 0, run.output
    return folder, run.output, environment


def test_the_shipped_config_runs_from_the_cache(study):
    folder, output, _ = study
    results = folder / "results" / EXPERIMENT
    assert f"isn't pinned; this run uses commit {SAE_COMMIT}. To pin it: 'sae.revision: {SAE_COMMIT}'" in output
    said = (results / "logs" / "traces" / "reason" / "00000-00003.log").read_text(encoding="utf-8")
    assert "on the processor" in said
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    manifest = json.loads((results / "model.json").read_text())
    assert manifest["revision"] == config["model"]["revision"]
    assert manifest["num_layers"] == 28
    assert (results / "summary.md").exists()
    gate = pl.read_parquet(results / "tables" / "site_gate.parquet")
    assert gate["hookpoint"].unique(maintain_order=True).to_list() == [f"layers.{layer}.mlp" for layer in LAYERS]
    for layer in LAYERS:
        assert (results / "plots" / "trained" / f"layers.{layer}.mlp" / "recurrence.png").exists()


def test_prompts_are_the_studys(study):
    folder, _, _ = study
    traces = folder / "results" / EXPERIMENT / "traces"
    own = Tokenizer.from_file(str(folder / "results" / EXPERIMENT / "model" / "tokenizer.json"))
    suffix = " Please reason step by step in a few words, and put your final answer within \\boxed{}"
    ends = {"reason": "<｜Assistant｜><think>\n", "direct": "<｜Assistant｜>",
            "bypass": "<｜Assistant｜><think>\n\n</think>\n\n"}  # fmt: skip
    for condition, end in ends.items():
        table = pl.read_parquet(traces / condition / "*.parquet")
        assert table["trace_id"].to_list() == [0, 1, 2, 3]
        for (question, _), trace in zip(QUESTIONS[:4], table.iter_rows(named=True), strict=True):
            assert trace["prompt"] == f"<｜begin▁of▁sentence｜><｜User｜>{question}{suffix}{end}"
            assert trace["prompt_ids"] == own.encode(trace["prompt"], add_special_tokens=False).ids
            assert own.decode(trace["prompt_ids"], skip_special_tokens=False) == trace["prompt"]
            assert len(trace["generated_ids"]) == 60 or trace["finish_reason"] == "stop"
    thinking = pl.read_parquet(traces / "reason" / "*.parquet")["segments"].to_list()
    assert all(parts[1]["segment"] == "think" for parts in thinking)
    bypassed = pl.read_parquet(traces / "bypass" / "*.parquet")["segments"].to_list()
    assert all(parts[1]["segment"] == "answer" for parts in bypassed)


def states_of_generate(model, trace):
    """What the notebook kept: `generate(output_hidden_states=True)` on one trace, made to write the trace's tokens.

    Returns the hidden states of every level for prompt and for generated tokens, (levels, tokens, width) each. The
    first step has the prompt's; each later one that of the token just read. So the last token has none.
    """
    from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

    prompt, written = trace["prompt_ids"], trace["generated_ids"]

    class Replay(LogitsProcessor):
        def __call__(self, input_ids, scores):
            token = written[input_ids.shape[1] - len(prompt)]
            return torch.full_like(scores, -torch.inf).index_fill_(1, torch.tensor([token]), 0.0)

    out = model.generate(
        torch.tensor([prompt]), logits_processor=LogitsProcessorList([Replay()]), output_hidden_states=True,
        return_dict_in_generate=True,
        generation_config=GenerationConfig(do_sample=False, max_new_tokens=len(written), pad_token_id=0),
    )  # fmt: skip
    assert out.sequences[0].tolist() == prompt + written
    first, *later = out.hidden_states
    of_prompt = torch.stack([level[0] for level in first])
    of_written = torch.stack([torch.stack([level[0, 0] for level in step]) for step in later], dim=1)
    assert of_written.shape[1] == len(written) - 1
    return of_prompt, of_written


def notebook(x, ids, sae):
    """What the notebook's functions compute from hidden states x (tokens, width), in plain torch.

    The 400 largest activations and their latents; the 70 most frequent latents and counts; the 10 relevant latents; of
    each of those the top 70 token ids and their activations; the histogram of all activations.
    """
    top = sae.encode(x)
    acts, latents = top.top_acts, top.top_indices
    flat = acts.flatten().sort(descending=True)
    largest = [(float(value), int(latents.flatten()[index])) for value, index in zip(*flat, strict=True)][:400]
    frequent = Counter(latents.flatten().tolist())
    relevant, seen = [], set()
    for value, index in zip(*flat, strict=True):
        latent = int(latents.flatten()[index])
        if latent not in seen:
            seen.add(latent)
            relevant.append((latent, float(value)))
    relevant = relevant[:10]
    tokens = {}
    for latent, _ in relevant:
        of_type = {}
        for position, slot in (latents == latent).nonzero().tolist():
            of_type[ids[position]] = max(of_type.get(ids[position], 0.0), float(acts[position, slot]))
        tokens[latent] = sorted(of_type.items(), key=lambda item: -item[1])[:70]
    counts, edges = torch.histogram(acts.flatten().double(), bins=50)
    return {"largest": largest, "frequent": frequent, "relevant": relevant, "tokens": tokens, "counts": counts,
            "edges": edges, "all": {(int(p), int(latents[p, s])): float(acts[p, s])
                                    for p in range(len(ids)) for s in range(32)}}  # fmt: skip


@pytest.fixture(scope="module")
def published(study):
    """The study read as it was published, on the same traces: (folder of results, model)."""
    from transformers import AutoModelForCausalLM

    folder, _, environment = study
    overlays = (folder / "smaller.yaml", REPO / "config" / "as-published.yaml")
    run = snakemake(folder, overlays=overlays, **environment)
    assert run.code == 0, run.output
    assert not {job.split()[0] for job in run.jobs} & {"generate", "model", "problems", "fetch_sae", "reconstruct"}
    results = folder / "results" / EXPERIMENT
    return results, AutoModelForCausalLM.from_pretrained(results / "model", dtype=torch.float32)


@pytest.mark.parametrize("condition", ["reason", "bypass"])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_per_trace_table_is_the_notebooks(published, layer, condition):
    """Both scopes; the states are those of step-by-step generation, so noise is all that may differ."""
    from sparsify import SparseCoder

    results, model = published
    site = f"layers.{layer}.mlp@residual_in"
    sae = SparseCoder.load_from_disk(results / "saes" / "trained" / f"layers.{layer}.mlp")
    folder = results / "tables" / "trained" / site / "traces" / condition / "00000-00003"
    tables = {path.stem: pl.read_parquet(path) for path in folder.glob("*.parquet")}
    for trace in pl.read_parquet(results / "traces" / condition / "*.parquet").iter_rows(named=True):
        with torch.inference_mode():
            of_prompt, of_written = (states[layer] for states in states_of_generate(model, trace))
            read = trace["generated_ids"][:-1]
            found = {"all": notebook(torch.cat([of_prompt, of_written]), trace["prompt_ids"] + read, sae),
                     "generated": notebook(of_written, read, sae)}  # fmt: skip
        for scope, expected in found.items():
            mine = {name: table.filter(trace_id=trace["trace_id"], scope=scope) for name, table in tables.items()}
            offset = len(trace["prompt_ids"]) if scope == "generated" else 0
            largest = mine["top_activations"]
            assert len(largest) == min(400, len(expected["all"]))
            assert largest["activation"].to_list() == pytest.approx([v for v, _ in expected["largest"]], rel=1e-3)
            for row in largest.iter_rows(named=True):  # each is that latent's own activation, whatever near-ties do
                key = row["position"] - offset, row["latent"]
                assert row["activation"] == pytest.approx(expected["all"][key], rel=1e-3)
            counts = dict(mine["frequencies"].select("latent", "tokens").iter_rows())
            assert counts == expected["frequent"]
            assert mine["frequencies"]["tokens"].to_list()[:70] == [n for _, n in expected["frequent"].most_common(70)]
            assert mine["relevant_latents"]["latent"].to_list() == [latent for latent, _ in expected["relevant"]]
            assert mine["relevant_latents"]["max"].to_list() == pytest.approx(
                [value for _, value in expected["relevant"]], rel=1e-3
            )
            for latent, types in expected["tokens"].items():
                rows = mine["top_tokens"].filter(latent=latent)
                assert rows["max"].to_list() == pytest.approx([value for _, value in types], rel=1e-3)
                assert dict(rows.select("token_id", "max").iter_rows()) == pytest.approx(dict(types), rel=1e-3)
            bins = mine["histograms"]
            assert bins["count"].sum() == int(expected["counts"].sum())
            # A value within noise of an edge may fall to either side.
            assert (bins["count"].cast(pl.Int64) - pl.Series(expected["counts"].long().tolist())).abs().max() <= 2
            assert bins["upper"].to_list() == pytest.approx(expected["edges"][1:].tolist(), rel=1e-3)


def test_states_are_those_of_step_by_step_generation(published):
    """One pass over the whole trace, batched and padded, against decoding with a cache, at every level."""
    import logging

    from thoughtscope import models as library
    from thoughtscope.readings.states import read_states

    results, model = published
    traces = pl.read_parquet(results / "traces" / "reason" / "*.parquet")
    manifest = json.loads((results / "model.json").read_text()) | {"folder": str(results / "model")}
    names = [f"layers.{layer}.mlp@residual_in" for layer in (0, *LAYERS, 27)]
    read = read_states(
        traces, model=library.load_model(manifest, "float32"), names=names, log=logging.getLogger("test")
    )
    for trace, states in chain.from_iterable(read):
        with torch.inference_mode():
            expected = torch.cat(states_of_generate(model, trace), dim=1)
        for name, x in states.items():
            level = expected[int(name.split(".")[1])]
            assert x.shape == level.shape
            assert (x - level).norm() / level.norm() < 1e-4


def test_the_read_site_is_warned_about_when_it_is_not_the_best(published):
    """On a random model no SAE fits; that, too, is said."""
    results, _ = published
    gate = pl.read_parquet(results / "tables" / "site_gate.parquet").filter(pl.col("condition").is_null())
    text = (results / "summary.md").read_text()
    log = (results / "logs" / "tables" / "site_gate.log").read_text()
    for (hookpoint,), group in gate.group_by("hookpoint"):
        (used,) = group.filter("used").iter_rows(named=True)
        assert used["site"] == f"{hookpoint}@residual_in"
        best = group.sort("fvu").row(0, named=True)
        for words, expected in (("the SAE leaves", used["fvu"] > 0.7), ("fits", best["site"] != used["site"])):
            lines = [line for line in text.splitlines() if f"WARNING: {used['site']}: " in line and words in line]
            assert bool(lines) == expected
            assert all(line.partition("WARNING: ")[2] in log for line in lines)
    assert "WARNING" in text


def test_the_shipped_config_is_planned_without_a_hub(tmp_path):
    run = snakemake(tmp_path, "--dry-run", HF_HOME=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9")
    assert run.code == 0, run.output
    assert {"generate reason 00000-00015", "generate bypass 00016-00031"} <= run.jobs


def test_an_unreachable_hub_says_how_to_fetch_ahead(tmp_path):
    """The commands are printed as they are to be typed; hf itself understands them."""
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    run = snakemake(tmp_path, "--until", "problems", **environment)
    assert run.code != 0
    assert "error: config: problems.name: dataset 'openai/gsm8k' can't be fetched" in run.output
    assert "then run with HF_HUB_OFFLINE=1" in run.output
    commands = [line.strip() for line in run.output.splitlines() if line.startswith("  hf download ")]
    assert len(set(commands)) == 3
    files = [word for command in commands for word in shlex.split(command)]
    for layer in LAYERS:
        assert {f"layers.{layer}.mlp/cfg.json", f"layers.{layer}.mlp/sae.safetensors"} <= set(files)
    assert "ad9f0ae0864d7fbcd1cd905e3c6c5b069cc8b562" in files
    assert "e53f048856ff4f594e959d75785d2c2d37b678ee" in files
    assert not (tmp_path / "results" / EXPERIMENT / "problems.parquet").exists()
    for command in set(commands):
        program, *words = shlex.split(command)
        done = subprocess.run(
            [str(Path(sys.executable).parent / program), *words], env=os.environ | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode != 2, done.stdout  # 2: it doesn't know such an option
        assert "Usage:" not in done.stdout
