"""What tests share: a tiny random language model with a tokenizer of its own, and studies of it run by Snakemake."""

import copy
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # tests are of the processor's results, also where there is a GPU

import pytest
import torch
import yaml
from playwright.sync_api import Browser, Page, sync_playwright

REPO = Path(__file__).parents[1]

SLOW_FIRST = ["test_study.py", "test_workflow.py", "test_slurm.py", "test_bad_input.py", "test_embedded.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first, so that the two workers end together."""
    order = {name: index for index, name in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


QUESTIONS = [
    ("Natalia sold 48 clips in April and half as many in May. How many in all?", "She sold 48+24 = 72.\n#### 72"),
    ("Weng earns $12 an hour. She worked 50 minutes. How much did she earn?", "12/60*50 = 10.\n#### 10"),
    ("A pen costs 3 and a book 7. What do both cost?", "3+7 = 10.\n#### 10"),
    ("Tom had 1,000 stamps and gave away 400. How many are left?", "1000-400 = 600.\n#### 600"),
    ("Half of a number is 9. What is the number?", "9*2 = 18.\n#### 18"),
    ("Six eggs cost 3 dollars. What does one cost?", "3/6 = 0.5.\n#### 0.5"),
]

CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|><think>' }}{% endif %}"
)


def build_model(folder: Path, *, layers: int = 4, width: int = 32, seed: int = 0) -> Path:
    """Save a random Llama with a byte-level BPE tokenizer trained on QUESTIONS, chat template and think markers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>", "<|begin|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for pair in QUESTIONS for text in pair], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|end|>"
    )
    fast.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    fast.add_tokens(["<think>", "</think>"])
    fast.chat_template = CHAT_TEMPLATE

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        initializer_range=0.3,  # wide enough that logits, and so samples, differ between steps
    )
    model = LlamaForCausalLM(config)
    model.generation_config.temperature = 0.6
    model.generation_config.top_p = 0.95
    model.generation_config.do_sample = True
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def manifest(tiny_model: Path) -> dict[str, Any]:
    return {"folder": str(tiny_model), "files": {}, "name": "tiny", "num_layers": 4}


@pytest.fixture
def model(manifest: dict[str, Any]):
    from thoughtscope import models

    return models.load_model(manifest, "float32")


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path):
    from thoughtscope import models

    return models.load_tokenizer({"folder": str(tiny_model), "files": {}})


def generate_four(model, tokenizer):
    """Four traces of the tiny model, sampled in one batch."""
    import logging

    import polars as pl
    from transformers import GenerationConfig

    from thoughtscope.traces import generate as traces

    problems = pl.DataFrame(
        {"trace_id": range(4), "question": [q for q, _ in QUESTIONS[:4]], "answer": ["1"] * 4},
        schema_overrides={"trace_id": pl.UInt32},
    )
    return traces.generate(
        problems, model=model, tokenizer=tokenizer, card=GenerationConfig(eos_token_id=0), condition="reason",
        prompt={"user": "{question}"}, think={"open": "<think>", "close": "</think>"}, seed=0, temperature=1.0,
        top_p=1.0, max_new_tokens=9, batch_size=4, log=logging.getLogger("test"),
    )  # fmt: skip


@pytest.fixture
def written(model, tokenizer):
    return generate_four(model, tokenizer)


@pytest.fixture
def hub_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make empty snapshots in a Hugging Face cache of the test's own, laid out as `hf download` does."""
    import huggingface_hub

    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    def make(repository: str, commit: str) -> Path:
        (cache / repository / "refs").mkdir(parents=True, exist_ok=True)
        (cache / repository / "refs" / "main").write_text(commit)
        snapshot = cache / repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        return snapshot

    return make


def write_jsonl(path: Path, times: int = 1) -> Path:
    import json

    rows = [{"question": question, "answer": answer} for question, answer in QUESTIONS] * times
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass
class Run:
    """What a call of snakemake printed, and the jobs it named: `rule wildcard=…, …`."""

    code: int
    output: str

    @property
    def jobs(self) -> set[str]:
        jobs = set()
        for rule, body in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n?)+)", self.output, re.M):
            wildcards = re.search(r"^    wildcards: (.*)$", body, re.M)
            named = wildcards.group(1).split(", ") if wildcards else []
            jobs.add(
                " ".join(
                    [rule, *[item.split("=")[1] for item in named if not item.startswith(("experiment", "reader"))]]
                )
            )
        return jobs - {"all"}


@dataclass
class Study:
    """A folder with a config, in which snakemake is called as a user would."""

    folder: Path
    config: dict[str, Any]

    @property
    def results(self) -> Path:
        return self.folder / "results" / self.config["experiment"]

    def edit(self, **values: Any) -> "Study":
        """Return a study in the same folder with config keys changed; `section__key` reaches into a section."""
        config = copy.deepcopy(self.config)
        for key, value in values.items():
            *parents, name = key.split("__")
            section = config
            for parent in parents:
                section = section[parent]
            if value is None and name in section:
                del section[name]
            else:
                section[name] = value
        return Study(self.folder, config)

    def command(self, *arguments: str) -> list[str]:
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        return [str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(REPO / "Snakefile"),
                "--configfile", str(path), "--quiet", "host", "--cores", "2", *arguments]  # fmt: skip

    def snakemake(self, *arguments: str, timeout: float = 900, **environment: str) -> Run:
        done = subprocess.run(
            self.command(*arguments), cwd=self.folder, env=os.environ | environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        return Run(done.returncode, done.stdout)

    def run(self, *arguments: str, **environment: str) -> Run:
        """Run to the end; a failure shows all that was printed."""
        run = self.snakemake(*arguments, **environment)
        assert run.code == 0, run.output
        return run

    def plan(self, *arguments: str) -> set[str]:
        """Return the jobs a dry run names."""
        return self.run("--dry-run", *arguments).jobs


def tiny_config(folder: Path, model: Path) -> dict[str, Any]:
    """A study of the tiny model: two conditions, one block of two traces each, one layer, an SAE trained here."""
    return {
        "experiment": "tiny",
        "problems": {"source": "jsonl", "path": "problems.jsonl"},
        "model": {"source": "path", "path": str(model), "think": {"open": "<think>", "close": "</think>"}},
        "inferences": 2,
        "block_size": 2,
        "conditions": ["reason", "bypass"],
        "prompts": {"reason": {"user": "{question} Think."}, "bypass": {"user": "{question}", "assistant": "</think>"}},
        "layers": [1],
        "generation": {"seed": 5, "temperature": 1.0, "max_new_tokens": 12},
        "sae": {
            "source": "train",
            "k": 4,
            "num_latents": 48,
            "tokens": 512,
            "heldout_tokens": 128,
            "context": 16,
            "text": {"source": "jsonl", "path": "text.jsonl"},
        },
        "analysis": {"top_latents": 3, "top_activations": 20, "top_tokens": 5},
    }


def new_study(folder: Path, model: Path) -> Study:
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "problems.jsonl")
    write_jsonl(folder / "text.jsonl", times=4)
    return Study(folder, tiny_config(folder, model))


@pytest.fixture
def study(tmp_path: Path, tiny_model: Path) -> Study:
    return new_study(tmp_path / "study", tiny_model)


FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    """Chromium as the machine has it, or else the one that `playwright install chromium` has put there."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as driver:
        if path is None and not os.path.exists(driver.chromium.executable_path):
            pytest.fail("no Chromium; install your system's, or run: .venv/bin/playwright install chromium")
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def open_page(browser: Browser, folder: Path, hash_: str = "", **options) -> Page:
    """Open the report from its file, with the network off; `page.seen` collects what must not be."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    context.set_offline(True)
    page = context.new_page()
    page.seen = []
    page.on("console", lambda message: page.seen.append(message.text))
    page.on("pageerror", lambda error: page.seen.append(str(error)))
    page.on("dialog", lambda dialog: page.seen.append(dialog.message))
    own = ("file:", "data:", "blob:")
    page.on("request", lambda request: request.url.startswith(own) or page.seen.append(request.url))
    page.goto((folder / "report.html").as_uri() + hash_)
    return page


def open_board(page: Page, latent: int) -> None:
    page.locator(f'#latents-0 tr[data-latent="{latent}"] a').click()
    page.get_by_role("heading", name=f"Latent {latent}").wait_for()


def cells(page: Page, label: str) -> list[list[str]]:
    """Return the cells of a dashboard's table, row by row."""
    rows = page.locator(f'#dashboard [aria-label="{label}"] tbody tr')
    return rows.evaluate_all("rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))")
