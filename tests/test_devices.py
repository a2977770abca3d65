"""Devices: concurrent jobs take different GPUs, and what runs out of memory goes on in smaller batches."""

import logging
import os
import subprocess
import sys

import pytest
import torch
from conftest import REPO, generate_four

from thoughtscope import devices
from thoughtscope.errors import InputError
from thoughtscope.saes import bounded, formats

LOG = logging.getLogger("test")

CLAIM = """
import sys
from pathlib import Path
from thoughtscope import devices
print(devices.claim(["a", "b"], Path(sys.argv[1])), flush=True)
sys.stdin.readline()
"""


def job(folder):
    """Start another process that claims a GPU and holds it until its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(REPO / "workflow" / "scripts")},
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def test_concurrent_jobs_use_different_gpus(tmp_path):
    first, of_first = job(tmp_path)
    second, of_second = job(tmp_path)
    third, of_third = job(tmp_path)
    try:
        assert (of_first, of_second, of_third) == ("a", "b", "None")
        first.kill()  # a job that ends in any way gives its GPU back
        first.wait()
        fourth, of_fourth = job(tmp_path)
        assert of_fourth == "a"
        fourth.kill()
        fourth.wait()
    finally:
        for process in (first, second, third):
            process.kill()
            process.wait()


def test_the_emptiest_free_gpu_is_chosen(monkeypatch, tmp_path):
    """The choice among what CUDA and its driver report; these two are replaced, as there is no GPU here."""
    from types import SimpleNamespace

    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"gpu{index}"))
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho GPU-gpu0, 200\necho GPU-gpu1, 500\necho GPU-gpu2, 300\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(devices, "_held", [])
    fresh = devices.device.__wrapped__
    assert [fresh() for _ in range(3)] == [torch.device("cuda", index) for index in (1, 2, 0)]
    assert fresh() == torch.device("cuda", 1)  # all are held: where most memory is free
    assert chosen == [1, 2, 0, 1]


def test_a_folder_that_cannot_be_written_keeps_no_job_from_its_gpu(tmp_path):
    (tmp_path / "file").touch()
    assert devices.claim(["a"], tmp_path / "file") == "a"


def test_without_a_gpu_it_is_the_processor_and_says_so(caplog, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.device() == torch.device("cpu")
    caplog.set_level(logging.INFO)
    devices.report(torch.nn.Linear(2, 2), LOG)
    assert caplog.messages == [f"on the processor, {torch.get_num_threads()} threads, float32"]
    monkeypatch.setattr(devices, "LARGE", 4)
    devices.report(torch.nn.Linear(2, 2), LOG)
    assert "no GPU is used" in caplog.messages[-1]
    assert "this is slow" in caplog.messages[-1]


def test_a_gpu_that_pytorch_cannot_use_is_pointed_out(caplog, monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    devices.report(torch.nn.Linear(2, 2), LOG)
    assert caplog.text == ""  # CUDA_VISIBLE_DEVICES is empty: it is not to be used
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    devices.report(torch.nn.Linear(2, 2), LOG)
    assert "seems to have a GPU, but PyTorch" in caplog.text


FULL = torch.OutOfMemoryError("CUDA out of memory")


def batches_of(most, rows=range(10), size=8, error=FULL):
    """Batches that come out where more than `most` rows don't fit into memory."""

    def work(batch):
        if len(batch) > most:
            raise error
        return sum(batch)

    return list(devices.in_batches(rows, size, lambda rows, size: max(1, min(len(rows), size)), work, LOG))


def test_out_of_memory_halves_the_batch_and_goes_on(caplog):
    assert [len(batch) for batch, _ in batches_of(8)] == [8, 2]
    assert caplog.text == ""
    found = batches_of(3)
    assert [list(batch) for batch, _ in found] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [result for _, result in found] == [1, 5, 9, 13, 17]
    assert caplog.messages == [
        "out of GPU memory with 8 traces at a time; going on with 4",
        "out of GPU memory with 4 traces at a time; going on with 2",
    ]
    assert [len(batch) for batch, _ in batches_of(1)] == [1] * 10
    with pytest.raises(InputError, match="one trace alone doesn't fit into the GPU's memory"):
        batches_of(0)
    full = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
    assert [len(batch) for batch, _ in batches_of(4, error=full)] == [4, 4, 2]
    with pytest.raises(RuntimeError, match="another"):
        batches_of(4, error=RuntimeError("another"))
    with (
        pytest.raises(InputError, match="the model doesn't fit into the memory left on cpu"),
        devices.loading("the model"),
    ):
        raise full


def test_encoding_that_runs_out_of_memory_goes_on_by_halves(tmp_path, monkeypatch, caplog):
    from test_saes import save_sae

    save_sae(tmp_path)
    sae = formats.load(tmp_path, torch.device("cpu"))
    x = torch.randn(37, 32)
    whole = sae.encode(x)
    dense = bounded.BoundedTopK._encode_dense

    def small(self, x, space):
        if len(x) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return dense(self, x, space)

    monkeypatch.setattr(bounded.BoundedTopK, "_encode_dense", small)
    for mine, expected in zip(sae.encode(x), whole, strict=True):
        assert torch.allclose(mine.float(), expected.float(), rtol=1e-5)
    assert sae.encode(x[:0])[0].shape == (0, 8)


def no_more_than(rows):
    """A hook for a module that has memory for so many rows only."""

    def hook(_module, args, kwargs):
        batch = args[0] if args else kwargs["hidden_states"]
        if len(batch) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return hook


def test_generation_and_encoding_are_the_same_in_what_memory_there_is(tmp_path, manifest, tokenizer, written, caplog):
    """The model itself runs out of memory in mid-batch; texts and activations stay what they were."""
    from test_saes import save_sae

    from thoughtscope import models
    from thoughtscope.readings import block

    save_sae(tmp_path)
    sae = formats.load(tmp_path, torch.device("cpu"))
    tables = []
    for rows in (4, 2):
        model = models.load_model(manifest, "float32")
        model.base_model.layers[1].register_forward_pre_hook(no_more_than(rows), with_kwargs=True)
        assert generate_four(model, tokenizer).equals(written)
        reading = block.read(written, model=model, sae=sae, site="layers.2.mlp", compared=[], log=LOG)
        tables.append(reading.activations)
    assert tables[0].drop("activation").equals(tables[1].drop("activation"))
    assert tables[0]["activation"].to_list() == pytest.approx(tables[1]["activation"].to_list(), rel=1e-4)
    assert caplog.text.count("out of GPU memory with 4 traces at a time; going on with 2") == 2
