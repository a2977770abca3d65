"""Config: what the schema cannot check, and the names that follow from it. Standard library only.

Snakemake reads this while it parses the workflow, so nothing heavy may be imported here.
"""

import difflib
import json
import math
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from .errors import InputError

SEGMENTS = ("prompt", "think", "answer")
"""Parts of a trace, in order."""


REPORT_TABLES = (
    "controls", "presence", "contrasts", "outcomes", "pattern_tests", "reason_scores", "lexicality", "verdict",
    "top_tokens", "passages", "latent_histograms", "strips", "coactivation", "logit_effects", "neighbours",
    "descriptions", "coherence",
)  # fmt: skip
"""The tables of a site that the report shows."""

REPORT_PICTURES = {
    "verdict": "The verdict on each candidate latent, by what share of its activation is beside a thinking pattern's"
    " words, beyond what the same tokens have elsewhere, and what share its token types alone would give",
    "patterns": "What share of each leading latent's activation is before a thinking pattern's words (it leads to it),"
    " on them (it is the word) and after them (it goes with it), beyond what such tokens have; frames mark links",
    "recurrence": "In how many traces each leading latent is among the top, by condition, with 95% intervals",
    "outcomes": "How well each leading latent tells correct and truncated traces, in all and at equal length, beside"
    " what trace length alone tells",
}
"""The pictures of a site that every report shows, and what is in them."""

REPORT_PICTURES_ACROSS = {
    "site_gate": "How much of the variance each SAE leaves unexplained at its site and around it, with 95% intervals",
    "layers": "How recurrence falls off from latent to latent at each site, by condition",
    "pattern_counts": "How often each thinking pattern is in the text, by condition",
}
"""The pictures across sites that every report shows, and what is in them."""


def report_pictures(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the pictures of a site that a config's report shows, and what is in them."""
    effects = {
        "effects": "What taking each latent away does at its pattern, beside its controls, and what adding it elsewhere"
        " does, in log-odds with 95% intervals over traces"
    }
    return REPORT_PICTURES | (effects if config["interventions"] else {})


def report_pictures_across(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the pictures across sites that a config's report shows, and what is in them."""
    twins = {
        "twins": "How many latents the study’s own reader and each twin have that are linked to a pattern, that pass"
        " the other checks, and whose SAE fits, too"
    }
    return REPORT_PICTURES_ACROSS | (twins if config["twins"] else {})


_PROBLEM_KEYS = {
    "hub": ("name", "config", "split", "revision", "question", "answer", "solution", "text", "seed"),
    "reasoning_gym": ("name", "size", "seed"),
    "lessons": ("kind", "size", "seed"),
    "jsonl": ("path", "question", "answer", "solution", "text", "seed"),
}
_TRAINING_KEYS = ("k", "num_latents", "tokens", "heldout_tokens", "context", "batch_size", "optimizer", "lr", "seed")
SOURCE_KEYS = {
    "problems": _PROBLEM_KEYS,
    "sae.text": _PROBLEM_KEYS,
    "model": {"hub": ("name", "revision"), "wheel": ("name", "version", "sha256"), "path": ("path",)},
    "model.adapter": {
        "path": ("path", "sha256"),
        "hub": ("name", "revision", "sha256"),
        "teach": (),
    },
    "sae": {
        "train": _TRAINING_KEYS,
        "hub": ("name", "revision", "format", "folder"),
        "path": ("path", "format", "folder"),
    },
}
"""The keys that a section's source reads, by section and source: what it is made from, and so what reruns it."""

LESSON_MARKERS = {"open": "<think>", "close": "</think>"}
"""Markers of the thinking in a lesson."""

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""The files of a model repository that are used: no pickled weights, no code."""

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""The files of an adapter in PEFT's format."""

SAE_FILES = ("cfg.json", "sae.safetensors")
"""The files of one SAE in sparsify's format."""

SAE_FORMATS = {
    "sparsify": SAE_FILES,
    "saelens": ("cfg.json", "sae_weights.safetensors"),
    "dictionary_learning": ("config.json", "ae.pt"),
    "gemma_scope": ("params.npz",),
    "gemma_scope_2": ("params.safetensors",),
    "llama_scope": ("hyperparams.json", "checkpoints/final.safetensors"),
    "llamascopium": ("config.json", "sae_weights.safetensors"),
    "qwen_scope": ("layer{layer}.sae.pt",),
}
"""The files of one SAE, by the library or release whose format they are in."""


def is_commit(revision: str | None) -> bool:
    """Return whether a hub revision is pinned: a whole commit hash, not a branch or tag, which may move."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def fetch_ahead(config: Mapping[str, Any]) -> str:
    """Say how to run a config where the hub can't be reached: the commands that fetch all it needs, file by file."""
    commands = []
    for section, kind in ((config["problems"], "dataset"), (config["model"], "model"), (config["sae"], "sae")):
        if section["source"] == "hub":
            words = ["hf", "download", section["name"], "--revision", section["revision"] or "main"]
            if kind == "dataset":
                words += ["--repo-type", "dataset"]
            elif kind == "model":
                words += [word for pattern in MODEL_FILES for word in ("--include", pattern)]
            else:
                for hookpoint in hookpoints(section["hookpoint"], config["layers"]):
                    words += files_of_sae(section, hookpoint).values()
            commands.append(shlex.join(words))
    if (adapter := config["model"]["adapter"]) and adapter["source"] == "hub":
        words = ["hf", "download", adapter["name"], "--revision", adapter["revision"] or "main"]
        commands.append(shlex.join([*words, *ADAPTER_FILES]))
    if (text := config["sae"].get("text")) and text["source"] == "hub":
        commands.append(
            shlex.join(
                ["hf", "download", text["name"], "--revision", text["revision"] or "main", "--repo-type", "dataset"]
            )
        )
    return "\n".join(
        [
            "To run without the hub, fetch all that this config needs on a machine that reaches it:",
            *[f"  {command}" for command in commands],
            "then run with HF_HUB_OFFLINE=1 where that cache is seen (its folder, ~/.cache/huggingface or what HF_HOME"
            " names, may be copied). config/config.yaml needs no hub at all.",
        ]
    )


def describe_violation(violation: Any) -> str:
    """Say in one line which config key broke the schema, its value, and what is allowed.

    `violation` is a `jsonschema.ValidationError`.
    """
    keys = [str(key) for key in violation.absolute_path]
    key = ".".join(keys) or "config"
    value, allowed = violation.instance, violation.validator_value
    match violation.validator:
        case "additionalProperties":
            known = list(violation.schema["properties"])
            unknown = [name for name in value if name not in known]
            parent = "".join(f"{name}." for name in keys)
            guess = difflib.get_close_matches(str(unknown[0]), known, n=1)
            hint = f" Did you mean '{parent}{guess[0]}'?" if guess else ""
            return f"config: unknown key '{parent}{unknown[0]}'; allowed here: {', '.join(known)}.{hint}"
        case "required":
            missing = [name for name in allowed if name not in value]
            parent = "".join(f"{name}." for name in keys)
            source = f" with source '{value['source']}'" if value.get("source") and missing != ["source"] else ""
            return f"config: key '{parent}{missing[0]}' is missing; it is needed{source}."
        case "type":
            names = [allowed] if isinstance(allowed, str) else list(allowed)
            return f"config: {key} is {value!r} ({type(value).__name__}); it must be {' or '.join(names)}."
        case "enum":
            return f"config: {key} is {value!r}; allowed: {', '.join(map(str, allowed))}."
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            sign = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
            return f"config: {key} is {value!r}; it must be {sign[violation.validator]} {allowed}."
        case "uniqueItems":
            twice = next(item for item in value if value.count(item) > 1)
            return f"config: {key} is {value!r}; {twice!r} stands in it twice, list it once."
        case "maxItems" | "maxLength":
            what = "entries" if violation.validator == "maxItems" else "characters"
            return f"config: {key} has {len(value)} {what}, of which {allowed} are allowed: {str(value)[:40]!r}…"
        case "minItems" | "minLength":
            return f"config: {key} is {value!r}; it must not be empty."
        case "pattern" if "propertyNames" in violation.absolute_schema_path:
            return f"config: {key}: {value!r} is no name; one must match {allowed}."
        case "pattern":
            return f"config: {key} is {value!r}; it must match {allowed}."
        case "anyOf":  # a section or null: what is wrong with the section
            inner = [error for error in violation.context if error.validator_value != "null"]
            return describe_violation(inner[0])
        case _:
            return f"config: {key}: {violation.message}"


def source_settings(key: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section's source and the settings that source reads; `key` is the section's name in SOURCE_KEYS."""
    return {name: section[name] for name in ("source", *SOURCE_KEYS[key][section["source"]])}


def model_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that says which model a study is of: its source, and its adapter's or the lessons that make it."""
    found = source_settings("model", config["model"])
    if adapter := config["model"]["adapter"]:
        found["adapter"] = source_settings("model.adapter", adapter)
        if adapter["source"] == "teach":
            found |= {"teach": config["teach"], "prompts": prompts_of(config)}
    return found


def prompts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the prompt templates of the study's conditions, in their order."""
    return {condition: config["prompts"][condition] for condition in config["conditions"]}


def check(config: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check what the schema cannot: names that refer to each other, and files that must exist.

    `config` has its defaults filled in, `given` is as the user wrote it. Raises InputError, one line, at the first
    problem. Touches no network and loads no model.
    """
    _check_numbers(config, "")
    _check_text(config, "config")
    for key in ("problems", "model", "sae"):
        _check_source(key, given[key])
    if config["sae"]["source"] == "train":
        _check_source("sae.text", given["sae"]["text"])
    _check_prompts(config["conditions"], config["prompts"])
    _check_lexicon(config["patterns"], config["reason_words"])
    _check_problems("problems", config["problems"], config["inferences"])
    if config["problems"]["text"] is not None:
        raise InputError("config: problems.text is set; that key is for sae.text. Name problems.question instead.")
    model, sae = config["model"], config["sae"]
    if model["source"] == "path":
        _need_file("model.path", Path(model["path"]) / "config.json", "a model folder saved by save_pretrained")
        if not any(Path(model["path"]).glob("*.safetensors")):
            raise InputError(
                f"config: model.path: there are no safetensors in {model['path']}; pickled weights are never loaded."
                " Convert the model with save_pretrained."
            )
    if adapter := model["adapter"]:
        if adapter["source"] != "teach":  # that may be laid over a config that names one, to make it anew
            _check_source("model.adapter", given["model"]["adapter"])
        if adapter["source"] == "path":
            for name in ADAPTER_FILES:
                _need_file("model.adapter.path", Path(adapter["path"]) / name, "an adapter in PEFT's format")
        if adapter["source"] == "teach" and config["teach"] is None:
            raise InputError(
                "config: model.adapter.source is 'teach', but there is no section teach; say there which lessons."
            )
    if config["teach"] is not None:
        _check_teach(config)
    _check_twins(config)
    if config["interventions"]:
        _check_named(config)
    if sae["source"] == "path":
        for hookpoint in hookpoints(sae["hookpoint"], config["layers"]):
            files = [Path(sae["path"], file) for file in files_of_sae(sae, hookpoint).values()]
            present = [] if all(file.exists() for file in files) else _saes_below(Path(sae["path"]), sae["format"])
            for file in files:
                what = f"one of {sae['format']}'s SAEs in sae.folder (there: {', '.join(present) or 'none'})"
                _need_file("sae.path", file, what)
    if sae["source"] == "train":
        if sae["k"] > sae["num_latents"]:
            raise InputError(
                f"config: sae.k is {sae['k']}; it must be <= sae.num_latents, which is {sae['num_latents']}."
            )
        _check_problems("sae.text", sae["text"], 0)
    second = sae.get("second_seed")
    if second is not None and sae["source"] != "train":
        raise InputError(
            f"config: sae.second_seed is {second}, but SAEs with source {sae['source']!r} aren't trained here; remove"
            " it."
        )
    if second is not None and second == sae["seed"]:
        raise InputError(f"config: sae.second_seed is {second}, which is sae.seed, too; set it to another number.")


def warnings(config: Mapping[str, Any]) -> list[str]:
    """Return what may be meant but is likely a mistake, a line each."""
    found = []
    think, text, problems = config["model"]["think"], config["sae"].get("text"), config["problems"]
    if think and think["open"] == think["close"]:
        found.append(
            f"config: model.think: both markers are {think['open']!r}, so nobody can tell where thinking ends: all that"
            " follows the first one counts as thinking."
        )
    if config["sae"]["source"] == "train" and problems["source"] != "lessons":  # those of studies are in no lesson
        same: tuple[str, ...] = ("source", "name", "config", "split", "path")
        same += ("seed",) if problems["source"] == "reasoning_gym" else ()
        if all(text.get(key) == problems.get(key) for key in same):
            found.append(
                "config: sae.text is the same as problems: the SAE will be trained on the problems that are studied,"
                " and fit them better than others. Use another split, file or seed."
            )
    if (interventions := config["interventions"]) and (steering := interventions["steering"]):
        times = 0
        for layer in config["layers"]:
            latents = steering["latents"] + len(named_in(interventions, layer))
            times += 1 + latents * (3 * len(steering["strengths"]) + (steering["instruction"] is not None))
        traces, sites = min(steering["traces"], config["inferences"]), len(config["layers"])
        most = times * traces * config["generation"]["max_new_tokens"]
        found.append(
            f"config: interventions.steering writes up to {most:,} tokens: {times} times {traces} traces, at"
            f" {sites} {'site' if sites == 1 else 'sites'}."
        )
    return found


def named_in(interventions: Mapping[str, Any], layer: int) -> list[int]:
    """Return the latents of a layer that `interventions.named` names."""
    named = [tuple(map(int, name.split("/"))) for name in interventions["named"]]
    return [latent for of_layer, latent in named if of_layer == layer]


def _check_named(config: Mapping[str, Any]) -> None:
    """Refuse names of latents that this study can't have, as far as the config says."""
    sae = config["sae"]
    for name in config["interventions"]["named"]:
        layer, latent = map(int, name.split("/"))
        if layer not in config["layers"]:
            raise InputError(
                f"config: interventions.named: {name!r} is of layer {layer}, which isn't read; layers is"
                f" {config['layers']}."
            )
        if sae["source"] == "train" and latent >= sae["num_latents"]:
            raise InputError(
                f"config: interventions.named: {name!r} is no latent of the SAE, which has sae.num_latents ="
                f" {sae['num_latents']}, 0 to {sae['num_latents'] - 1}."
            )


def _check_twins(config: Mapping[str, Any]) -> None:
    """Refuse twins that this study can't have."""
    if "base_model" in config["twins"] and config["model"]["adapter"] is None:
        raise InputError(
            "config: twins: base_model is the model before its adapter, but model.adapter is null; remove that twin."
        )
    if "random_model" in config["twins"] and config["sae"]["source"] != "train":
        raise InputError(
            f"config: twins: random_model needs an SAE trained on that model, but sae.source is"
            f" {config['sae']['source']!r}; set it to train, or take the twin random_sae."
        )


def _check_teach(config: Mapping[str, Any]) -> None:
    """Check that a study with lessons can be one: of a model with an adapter, with markers and another condition."""
    if config["model"]["adapter"] is None:
        raise InputError("config: teach is set, but the model has no adapter; set model.adapter or remove teach.")
    if config["model"]["think"] != LESSON_MARKERS:
        raise InputError(
            f"config: model.think is {config['model']['think']!r}; with teach it must be {LESSON_MARKERS!r}, the"
            " markers of lessons."
        )
    if config["problems"]["source"] != "lessons":
        raise InputError(
            f"config: problems.source is {config['problems']['source']!r}; with teach it must be lessons, as only on"
            " such problems the truth is known."
        )


def _check_source(key: str, given: Mapping[str, Any]) -> None:
    """Refuse a key that the section's source doesn't read: it would be passed over in silence."""
    sources = SOURCE_KEYS[key]
    readers = {name: [source for source in sources if name in sources[source]] for name in given}
    for name, read_by in readers.items():
        if read_by and given["source"] not in read_by:
            raise InputError(
                f"config: {key}.{name} isn't read with source {given['source']!r}, only with {' and '.join(read_by)};"
                " remove it."
            )


_FRACTIONAL = (
    "temperature",
    "top_p",
    "lr",
    "max_fvu",
    "alpha",
    "min_excess",
    "min_share",
    "max_sink_share",
    "max_typed",
    "max_twins",
    "min_effect",
    "strengths",
)
"""Keys whose value need not be a whole number."""


def _check_numbers(section: Mapping[str, Any], parent: str) -> None:
    """Refuse what JSON schema lets through: NaN and infinity, and 16.0 for an integer."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            _check_numbers(value, f"{parent}{key}.")
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, float):
                continue
            if not math.isfinite(number):
                raise InputError(f"config: {parent}{key} is {number!r}; it must be finite.")
            if key not in _FRACTIONAL:
                raise InputError(f"config: {parent}{key} is {number!r}; write it as a whole number, without a point.")


def _check_text(value: Any, key: str) -> None:
    """Refuse text that no file can hold: half of a character, as an escape may write it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_text(name, key)
            _check_text(inner, str(name) if key == "config" else f"{key}.{name}")
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner, key)
    elif isinstance(value, str) and not is_text(value):
        raise InputError(f"config: {key} is {value!a}; a lone surrogate is no character, remove it.")


def is_text(value: str) -> bool:
    """Return whether a string can be written down: it has no half of a character."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_prompts(conditions: Sequence[str], prompts: Mapping[str, Mapping[str, str]]) -> None:
    for condition in conditions:
        if condition not in prompts:
            raise InputError(
                f"config: conditions: unknown condition {condition!r}; prompts has: {', '.join(map(str, prompts))}."
                " Add a template there or correct the name."
            )
        prompt = prompts[condition]
        if ("user" in prompt) == ("raw" in prompt):
            raise InputError(f"config: prompts.{condition} must have one of 'user' and 'raw', it has {list(prompt)}.")
        if "raw" in prompt and "assistant" in prompt:
            raise InputError(f"config: prompts.{condition}.assistant goes with 'user' only; put the text into 'raw'.")
        key = "raw" if "raw" in prompt else "user"
        if prompt[key].count("{question}") != 1:
            raise InputError(f"config: prompts.{condition}.{key} must contain '{{question}}' once: {prompt[key]!r}.")


def is_expression(entry: str) -> bool:
    """Return whether an entry of the lexicon is a regular expression, /between slashes/, and not a word or phrase."""
    return len(entry) > 2 and entry.startswith("/") and entry.endswith("/")


def _check_lexicon(patterns: Mapping[str, Sequence[str]], reason_words: Sequence[str]) -> None:
    entries = [(f"patterns.{name}", entry) for name, group in patterns.items() for entry in group]
    for key, entry in [*entries, *[("reason_words", word) for word in reason_words]]:
        if not entry.strip():
            raise InputError(
                f"config: {key}: an entry is empty ({entry!r}); write a word, a phrase or /an expression/."
            )
        if is_expression(entry):
            try:
                re.compile(entry[1:-1])
            except (re.error, OverflowError, RecursionError) as error:
                raise InputError(f"config: {key}: {entry!r} is no regular expression ({error}).") from None


def _check_problems(key: str, source: Mapping[str, Any], inferences: int) -> None:
    if source["source"] in ("reasoning_gym", "lessons") and source["size"] < inferences:
        raise InputError(
            f"config: inferences is {inferences}, more than the {source['size']} problems of {key}.size;"
            " raise the size or lower inferences."
        )
    if source["source"] != "jsonl":
        return
    path = Path(source["path"])
    _need_file(f"{key}.path", path, "a file with one JSON object a line")
    with path.open("rb") as lines:  # whether every line can be read is for rule problems to see
        try:
            first = json.loads(next(lines, b"null"))
        except (ValueError, RecursionError):
            first = None
        if not isinstance(first, dict):
            raise InputError(f"config: {key}.path: the first line of {path} is no JSON object; one a line is needed.")
        check_columns(key, source, list(first), str(path))
        count = 1 + sum(1 for line in lines if line.strip())
    if count < inferences:
        raise InputError(
            f"config: inferences is {inferences}, more than the {count} problems in {path};"
            " lower inferences or give more problems."
        )


def columns(source: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns a problems section reads, by their keys in the config: plain text, or a problem's parts."""
    keys = ("text",) if source["text"] is not None else ("question", "answer", "solution")
    return {key: source[key] for key in keys if source[key] is not None}


def check_columns(key: str, source: Mapping[str, Any], present: Sequence[str], name: str) -> None:
    """Check that a dataset has the columns a problems section names. Raises InputError with those it has."""
    for part, column in columns(source).items():
        if column not in present:
            raise InputError(f"config: {key}.{part} is {column!r}, but {name} has the columns: {', '.join(present)}.")


def _need_file(key: str, path: Path, what: str) -> None:
    if "{" in str(path) or "}" in str(path):
        raise InputError(f"config: {key}: {path} has braces in it, which Snakemake takes for wildcards; rename it.")
    if not path.is_file():
        raise InputError(
            f"config: {key}: there is no file {path} (seen from {Path.cwd()}); {what} is needed,"
            " relative to where snakemake is started."
        )


def blocks(inferences: int, block_size: int) -> list[str]:
    """Name the blocks of traces `0 … inferences-1`: first and last trace, zero-padded, e.g. `00000-00015`.

    Blocks are cut by index, so more inferences add blocks and leave the full ones as they are.
    """
    firsts = range(0, inferences, block_size)
    return [f"{first:05d}-{min(first + block_size, inferences) - 1:05d}" for first in firsts]


def traces_of(block: str) -> range:
    """Return the trace ids of a block named by `blocks`."""
    first, last = block.split("-")
    return range(int(first), int(last) + 1)


def hookpoints(template: str, layers: Sequence[int]) -> list[str]:
    """Fill each layer into a hookpoint template such as `layers.{layer}.mlp`, in ascending order of layers."""
    return [template.replace("{layer}", str(layer)) for layer in sorted(layers)]


def site(hookpoint: str, read_from: str) -> str:
    """Name what is read: the hookpoint itself, or `hookpoint@residual_in` where the SAE is used off its site."""
    return hookpoint if read_from == "hookpoint" else f"{hookpoint}@{read_from}"


def parse_site(name: str) -> tuple[str, str]:
    """Split a name made by `site` into hookpoint and read_from."""
    hookpoint, _, read_from = name.partition("@")
    return hookpoint, read_from or "hookpoint"


def layer_of(hookpoint: str) -> int:
    """Return the block a hookpoint lies in: the first whole number in its path (`layers.10.mlp`: 10)."""
    for part in hookpoint.split("."):
        if part.isdigit():
            return int(part)
    raise InputError(f"hookpoint {hookpoint!r} names no block; use a path such as 'layers.{{layer}}.mlp'.")


def files_of_sae(sae: Mapping[str, Any], hookpoint: str) -> dict[str, str]:
    """Return the files of one hookpoint's SAE, by their names in its format: paths below sae.path, or in sae.name."""

    def filled(template: str) -> str:
        return template.replace("{hookpoint}", hookpoint).replace("{layer}", str(layer_of(hookpoint)))

    return {name: str(Path(filled(sae["folder"]), filled(name))) for name in SAE_FORMATS[sae["format"]]}


def _saes_below(folder: Path, form: str) -> list[str]:
    """Return where there are SAEs of a format in a folder, to the depth at which they are published."""
    found = [path for depth in range(4) for path in folder.glob("*/" * depth + SAE_FORMATS[form][0].format(layer="*"))]
    return sae_places((str(path.relative_to(folder)) for path in found), form)


def sae_places(listing: Iterable[str], form: str) -> list[str]:
    """Return where in a listing of files there are SAEs of a format: their folders, or files where these tell them."""
    first = SAE_FORMATS[form][0]
    found = sorted(name for name in listing if PurePath(name).match(first.format(layer="*")))
    return [name.removesuffix(first).removesuffix("/") or "." for name in found]


def is_block(hookpoint: str) -> bool:
    """Return whether a hookpoint is a block itself (`layers.10`), whose output is the residual stream leaving it."""
    return hookpoint.rpartition(".")[2].isdigit()


ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
MLPS = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
"""What architectures of transformers call the two modules of a block whose outputs are added to the residual stream."""

LAST_PROJECTIONS = ("down_proj", "o_proj", "c_proj", "out_proj", "dense", "dense_4h_to_h")
"""What they call the last module in either, whose output is its."""

OUTPUT_NORMS = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
"""What Gemma 2 and 3 and OLMo 2, and GLM-4, call the norms between the two and the residual stream. Where there is no
second one of a pair, `post_attention_layernorm` is the norm before the MLP."""


def adds(hookpoint: str, modules: Collection[str] = ()) -> str | None:
    """Return what puts out at a hookpoint what the residual stream takes as it is: `block`, `attention` or `mlp`.

    A block's is the residual stream itself. Where a block normalises what attention and MLP put out before it adds it
    (OUTPUT_NORMS; `modules` are the model's, by which that is told), it is the norm's output that is added. None of any
    other module.
    """
    if is_block(hookpoint):
        return "block"
    block, _, module = hookpoint.rpartition(".")
    if module in LAST_PROJECTIONS:
        block, _, module = block.rpartition(".")
    if not is_block(block):
        return None
    parts: tuple[Collection[str], Collection[str]] = (ATTENTIONS, MLPS)
    for norms in OUTPUT_NORMS:
        if f"{block}.{norms[1]}" in modules:
            parts = ([norms[0]], [norms[1]])
    return next((name for name, known in zip(("attention", "mlp"), parts, strict=True) if module in known), None)


def check_sites(manifest: Mapping[str, Any], template: str, layers: Sequence[int], read_from: str) -> None:
    """Check layers and hookpoints against a model's manifest. Raises InputError, one line, at the first problem."""
    count, widths = manifest["num_layers"], manifest["widths"]
    for layer in sorted(layers):
        if layer >= count:
            raise InputError(
                f"config: layers: {layer} is out of range; {manifest['name']} has {count} layers, 0 to {count - 1}."
            )
    for layer, hookpoint in zip(sorted(layers), hookpoints(template, layers), strict=True):
        if hookpoint not in widths:
            known = sorted(
                {re.sub(rf"\b{layer}\b", "{layer}", name) for name in widths if str(layer) in name.split(".")}
            )
            raise InputError(
                f"config: sae.hookpoint is {template!r}, but {manifest['name']} has no module {hookpoint};"
                f" those it has: {', '.join(known)}."
            )
        if read_from == "residual_out" and is_block(hookpoint):
            raise InputError(
                f"config: sae.read_from is 'residual_out', but {hookpoint} is a block, whose output that is;"
                " set it to hookpoint."
            )
        if read_from != "hookpoint" and widths[hookpoint] != manifest["hidden_size"]:
            raise InputError(
                f"config: sae.read_from is {read_from!r}, where vectors are {manifest['hidden_size']} wide, but those"
                f" of {hookpoint} are {widths[hookpoint]} wide; an SAE for one can't read the other."
            )
