"""Training: what sparsify's Trainer makes alone, made together in one pass; held-out measures; what a run trains."""

import json
import logging

import polars as pl
import pytest
import torch
from conftest import QUESTIONS, new_study
from safetensors.torch import load_file
from sparsify import SparseCoder, SparseCoderConfig, TrainConfig, Trainer
from test_saes import save_sae

from thoughtscope import files, models
from thoughtscope.errors import InputError
from thoughtscope.saes import text, train

LOG = logging.getLogger("test")

TEXT = pl.DataFrame(
    {"question": [q for q, _ in QUESTIONS] * 12, "solution": [a for _, a in QUESTIONS] * 12, "text": [None] * 72},
    schema_overrides={"text": pl.String},
)

WIDTHS = {"layers.0.mlp": 32, "layers.1.mlp": 32, "layers.2.mlp": 32, "layers.2.mlp.up_proj": 64}


def train_together(root, hookpoints, model, tokenizer, **changes):
    """Train with small settings, each SAE into a folder under `root`; return the info of each."""
    settings = {"k": 8, "num_latents": 96, "tokens": 640, "heldout_tokens": 320, "context": 16, "batch_size": 4}
    settings |= {"optimizer": "signum", "lr": None, "seed": 3} | changes
    train.train(
        TEXT, model=model, tokenizer=tokenizer, folders={name: root / name for name in hookpoints}, widths=WIDTHS,
        requested={"sae": "this"}, log=LOG, **settings,
    )  # fmt: skip
    return {name: json.loads((root / name / "info.json").read_text()) for name in hookpoints}


def weights(root, hookpoints):
    return {
        (name, key): tensor for name in hookpoints for key, tensor in load_file(root / name / "sae.safetensors").items()
    }


@pytest.fixture
def plain(tmp_path, manifest, tokenizer):
    """Train one hookpoint with sparsify's Trainer alone, on the whole model; return the folder of all made so."""

    def make(hookpoint, optimizer):
        ids = torch.tensor(text.token_ids(TEXT, tokenizer, 40 * 16, {})).view(40, 16)
        config = TrainConfig(
            SparseCoderConfig(num_latents=96, k=8), batch_size=4, hookpoints=[hookpoint], optimizer=optimizer,
            init_seeds=[3], log_to_wandb=False, save_dir=str(tmp_path), run_name="plain",
        )  # fmt: skip
        Trainer(config, [{"input_ids": row} for row in ids], models.load_model(manifest, "float32")).fit()
        torch.set_float32_matmul_precision("highest")
        return tmp_path / "plain"

    return make


@pytest.mark.parametrize("optimizer", ["signum", "adam", "muon"])
def test_saes_trained_together_are_those_sparsify_trains_alone(tmp_path, model, tokenizer, plain, optimizer, caplog):
    """Bit for bit, of any width and depth."""
    caplog.set_level(logging.INFO)
    for hookpoint in WIDTHS:
        folder = plain(hookpoint, optimizer)
    alone = weights(folder, WIDTHS)
    train_together(tmp_path / "one", WIDTHS, model, tokenizer, optimizer=optimizer)
    assert [line.partition("together: ")[2] for line in caplog.messages if "together" in line] == ["4"]
    together = weights(tmp_path / "one", WIDTHS)
    assert together.keys() == alone.keys()
    assert all(torch.equal(together[key], alone[key]) for key in alone)


def test_large_saes_take_several_passes_deepest_first(tmp_path, manifest, tokenizer, monkeypatch, caplog):
    """Two fit of width 32, or one of width 64: it is next to nothing, in a pass of its own."""
    caplog.set_level(logging.INFO)
    train_together(tmp_path / "one", WIDTHS, models.load_model(manifest, "float32"), tokenizer)
    monkeypatch.setattr(train, "TOGETHER_BYTES", 4 * 3 * 2 * 96 * 65)
    caplog.clear()
    model = models.load_model(manifest, "float32")
    ran = [0, 0, 0, 0]

    def count(index):
        def hook(*_):
            ran[index] += 1

        return hook

    for index, block in enumerate(model.base_model.layers):
        block.register_forward_hook(count(index))
    train_together(tmp_path / "more", WIDTHS, model, tokenizer)
    assert [line.partition("together: ")[2] for line in caplog.messages if "together" in line] == ["1", "1", "2"]
    assert ran[3] == 0
    assert ran[2] / 2 == ran[1] / 3 == ran[0] / 3 > 0  # the last pass is of blocks 0 and 1
    one, more = weights(tmp_path / "one", WIDTHS), weights(tmp_path / "more", WIDTHS)
    assert all(torch.equal(one[key], more[key]) for key in one)


def test_fvu_is_summed_over_all_tokens():
    x = torch.randn(50, 4, dtype=torch.float64)
    residual = torch.randn(50, 4, dtype=torch.float64)
    top = sum(float(value) ** 2 for row in residual for value in row)
    mean = [sum(float(row[column]) for row in x) / 50 for column in range(4)]
    bottom = sum((float(row[column]) - mean[column]) ** 2 for row in x for column in range(4))
    assert train.fvu(x, residual) == pytest.approx(top / bottom, rel=1e-12)


def test_training_that_runs_out_of_memory_goes_on_by_halves_then_in_parts(
    tmp_path, manifest, tokenizer, monkeypatch, caplog
):
    """sparsify's Trainer, with memory for two SAEs or 16 tokens of a step: the gradient, so the SAE, is as it was."""
    hookpoints = ["layers.0.mlp", "layers.1.mlp", "layers.2.mlp"]

    def trained(name):
        model = models.load_model(manifest, "float32")
        train_together(tmp_path / name, hookpoints, model, tokenizer, optimizer="adam", lr=1e-3)
        return weights(tmp_path / name, hookpoints)

    whole = trained("whole")
    assert caplog.text == ""
    forward, init = SparseCoder.forward, Trainer.__init__

    def two(self, config, *args):
        if len(config.hookpoints) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        init(self, config, *args)

    monkeypatch.setattr(Trainer, "__init__", two)
    halved = trained("halved")
    assert caplog.messages == ["out of GPU memory with 3 SAEs together; training half of them at a time"]
    assert all(torch.equal(whole[key], halved[key]) for key in whole)

    def small(self, x, *args, **kwargs):
        if len(x) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(SparseCoder, "forward", small)
    parted = trained("parted")
    assert caplog.text.count("starting training again with each step's tokens in 4 parts") == 3
    assert all(torch.allclose(whole[key], parted[key], rtol=1e-3, atol=1e-4) for key in whole)
    monkeypatch.setattr(train, "MOST_PARTS", 2)
    with pytest.raises(InputError, match=r"training doesn't fit into the GPU's memory; lower sae\.batch_size"):
        trained("never")
    assert not list((tmp_path / "never").rglob("sae.safetensors"))


def test_train_learns_and_measures_on_held_out_text(tmp_path, model, tokenizer):
    hookpoint = "layers.1.mlp"
    info = train_together(tmp_path, [hookpoint], model, tokenizer, tokens=1500)[hookpoint]
    made = sorted(path.name for path in (tmp_path / hookpoint).iterdir())
    assert made == ["cfg.json", "info.json", "sae.safetensors"]
    assert info["heldout"]["fvu"] < 0.6  # the text repeats, so a trained SAE knows it; an untrained one is above 1
    assert 0 < info["heldout"]["l0"] <= 8
    assert 0 <= info["heldout"]["dead_share"] < 1
    assert info["heldout"]["sink_share"] == pytest.approx(1 / 16, abs=0.02)
    assert info["train"]["tokens"] == 1488  # whole sequences
    assert len(model.base_model.layers) == 4  # left whole
    assert info["requested"] == {"sae": "this"}


def test_evaluate_against_sparsifys_forward(tmp_path):
    sae = save_sae(tmp_path)
    x = torch.randn(64, 32) * 3
    measured = train.evaluate(sae, x, context=64)
    assert measured["fvu_with_sinks"] == pytest.approx(sae(x).fvu.item(), rel=1e-5)
    assert measured["fvu"] == pytest.approx(
        (((sae(x).sae_out - x)[1:] ** 2).sum() / ((x[1:] - x[1:].mean(0)) ** 2).sum()).item(), rel=1e-5
    )
    assert measured["dead_share"] == pytest.approx(1 - len(sae.encode(x).top_indices.unique()) / 96)


@pytest.mark.parametrize(("source", "remedy"), [("lessons", "raise sae.text.size"), ("jsonl", "give it more rows")])
def test_too_little_text_is_refused_with_a_remedy_that_its_source_has(tokenizer, source, remedy):
    few = pl.DataFrame({"question": ["q"] * 3, "solution": ["s", None, None], "text": [None] * 3})
    words = rf"sae\.text gives \d+ tokens \(2 of its 3 rows .* cot is empty\), but .* ask for 1000; {remedy}, or"
    with pytest.raises(InputError, match=words):
        text.token_ids(few, tokenizer, 1000, {"source": source, "solution": "cot", "text": None})
    many = pl.DataFrame({"question": ["q"], "solution": ["some text " * 50], "text": [None]})
    assert len(text.token_ids(many, tokenizer, 16, {})) == 16


def test_training_text_is_a_conversation_or_plain():
    class Tokenizer:
        chat_template = "yes"

        def apply_chat_template(self, turns, add_generation_prompt, tokenize):
            return "|".join(turn["content"] for turn in turns)

    frame = pl.DataFrame({"question": ["q", None, "r"], "solution": ["s", None, None], "text": [None, "plain", None]})
    assert text.training_texts(frame, Tokenizer()) == ["q|s", "plain"]


def test_a_run_trains_in_one_pass_what_it_has_to_and_nothing_else(tmp_path, tiny_model):
    """Real runs: what one job made together stands for each hookpoint's own job, and an edit trains what it affects."""

    def saes(study):
        return [
            study.results / "saes" / "trained" / f"layers.{layer}.mlp" / "sae.safetensors"
            for layer in study.config["layers"]
        ]

    def targets(study):
        return [str(path.relative_to(study.folder)) for path in saes(study)]

    two = new_study(tmp_path / "study", tiny_model).edit(layers=[0, 2])
    assert two.run(*targets(two)).jobs == {"model", "sae_text", "train_saes"}
    assert two.plan(*targets(two)) == set()
    made = {path: files.sha256(path) for path in saes(two)}
    three = two.edit(layers=[0, 1, 2])
    assert three.run(*targets(three)).jobs == {"train_sae layers.1.mlp"}
    assert {path: files.sha256(path) for path in saes(two)} == made

    other = three.edit(sae__k=5)
    assert other.run(*targets(other)).jobs == {"train_saes"}
    assert other.plan(*targets(other)) == set()
    assert other.edit(sae__text__seed=5).plan(*targets(other)) == {"sae_text", "train_saes"}
    # Two are lost: those two are trained.
    for path in saes(two):
        path.unlink()
    lost = other.run("--dry-run", *targets(other)).output
    assert "saes/trained/layers.0.mlp/sae.safetensors" in lost
    assert "saes/trained/layers.2.mlp/sae.safetensors" in lost
    assert "saes/trained/layers.1.mlp" not in lost
