"""What the rooms share: the checked config, paths and names that follow from it, helpers for params and inputs.

Standard library only: this runs each time the workflow is parsed. What begins with
an underscore is a base, from which others take all that they don't say themselves.
"""

import copy
import glob
import json
import os
import shutil
import sys
import zlib
from pathlib import Path

import yaml
from snakemake.common import async_run
from snakemake.io import get_flag_value

# Of this file, wherever it is: as a module of another workflow, `workflow.basedir` is that workflow's.
WORKFLOW = Path(workflow.current_basedir.get_path_or_uri(secret_free=False)).parent
SCRIPTS = WORKFLOW / "scripts"
sys.path.insert(0, str(SCRIPTS))

from thoughtscope import paths
from thoughtscope.code import digest, digest_of_script
from thoughtscope.config import (
    ADAPTER_FILES,
    MODEL_FILES,
    REPORT_TABLES,
    blocks,
    check,
    check_sites,
    describe_violation,
    fetch_ahead,
    files_of_sae,
    hookpoints,
    layer_of,
    model_settings,
    named_in,
    parse_site,
    prompts_of,
    report_pictures,
    report_pictures_across,
    site,
    source_settings,
    traces_of,
    warnings,
)
from thoughtscope import given as user, run
from thoughtscope.errors import InputError
from thoughtscope.progress import attach as speak

# As a module of another workflow this one has the config that it is given, and leaves files and terminal to that one.
IS_MODULE = not workflow.modifier.is_main_snakefile()

try:
    if workflow.is_main_process and not IS_MODULE:  # jobs have the file that the run has kept
        user.check_files(workflow.overwrite_configfiles or ["config/config.yaml"])
except InputError as error:
    raise WorkflowError(str(error)) from None

# A config file given on the command line stands alone. Snakemake would lay it over the default one, and keys that it
# leaves out would silently be the embedded model's instead of the documented defaults.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


if IS_MODULE:
    config = copy.deepcopy(config)  # which is read anew for each `use rule`; defaults go in below
else:
    user.as_yaml(config, workflow.config_settings.config)
given = copy.deepcopy(config)
try:
    validate(config, "../schemas/config.schema.yaml")
    check(config, given)
except WorkflowError as error:
    if not hasattr(error.__context__, "absolute_path"):
        raise
    raise WorkflowError(describe_violation(error.__context__)) from None
except InputError as error:
    raise WorkflowError(str(error)) from None

if workflow.is_main_process:
    for line in warnings(config):
        print(f"WARNING: {line}", file=sys.stderr)

EXPERIMENT = config["experiment"]
CONDITIONS = config["conditions"]
BLOCKS = blocks(config["inferences"], config["block_size"])
HOOKPOINTS = hookpoints(config["sae"]["hookpoint"], config["layers"])
SITES = [site(hookpoint, config["sae"]["read_from"]) for hookpoint in HOOKPOINTS]


READER = "trained"  # who reads the traces: the config's SAE on the config's model
TWINS = config["twins"]  # who else does

# What a twin has of its own, and with whose SAE it reads; all else is the study's.
MATCHES = paths.STUDY_TABLE.replace("{table}", "matches")
OWN = {
    "random_model": {paths.MANIFEST: paths.TWIN_MANIFEST, paths.MODEL: paths.TWIN_MODEL},
    "base_model": {paths.MANIFEST: paths.BASE_MANIFEST, paths.MODEL: paths.BASE_MODEL},
    "shuffled_text": {
        paths.TRACES: paths.TWIN_TRACES,
        MATCHES: paths.READER_TABLE.replace("{table}", "matches"),
    },
}
WITH_OWN_SAE = (READER, "random_sae", "random_model", "second_seed")
SECOND = ["second_seed"] if config["sae"].get("second_seed") is not None else []  # an SAE trained from another seed
TRACE_TABLES = ["top_activations", "frequencies", "histograms", "relevant_latents", "top_tokens"]


pathvars:
    results=paths.RESULTS,
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",
    reading="{reader}/{site}/{condition}/{block}",
    table="of_a_base_rule",
    picture="of_a_base_rule",


wildcard_constraints:
    **paths.WILDCARDS,


if workflow.storage_settings.default_storage_provider:
    _rule_pathvars = workflow.rule_pathvars

    def of_rule_and_workflow(**names):
        """Take a rule's own pathvars for the workflow's too, until the next rule has others.

        Snakemake fills a rule's own in everywhere but in the names of objects in a storage: there the workflow's.
        """
        workflow.register_pathvars(**names)
        return _rule_pathvars(**names)

    workflow.rule_pathvars = of_rule_and_workflow


def in_storage(path):
    """Return the object that a result is where results are in a storage; None where they are files here."""
    return get_flag_value(workflow.modifier.path_modifier.apply_default_storage(path), "storage_object")


def placed(path):
    """Return a result's path with the prefix that it has where this workflow is a module of another one."""
    return workflow.modifier.path_modifier.replace_prefix(path, "output")


def earlier(path):
    """Return the text of a result, fetched where it is in a storage, and when it was made; twice None without it."""
    path = placed(path)
    if not exists(path):
        return None, None
    if stored := in_storage(path):
        made = async_run(stored.managed_mtime())
        async_run(stored.managed_retrieve())
        path = stored.local_path()
    else:
        made = os.stat(path).st_mtime
    return Path(path).read_text(encoding="utf-8", errors="replace"), made


def read_if_whole(path):
    """Return what a JSON file of an earlier run says, and when it was made; nothing where it is missing or damaged.

    A job that needs it says so.
    """
    text, made = earlier(path)
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}, made
    return (found if isinstance(found, dict) else {}), made


def check_against_manifest():
    """Check layers and hookpoints before any job, if the model's manifest is there and that of this config's model.

    In a first run, or with another model, rule model does it as soon as it knows.
    """
    manifest, made = read_if_whole(paths.MANIFEST.format(experiment=EXPERIMENT))
    if not {"name", "num_layers", "hidden_size", "widths"} <= set(manifest):
        return
    newer = [file for file in model_files() if Path(file).stat().st_mtime > made]
    if manifest.get("requested") == source_settings("model", config["model"]) and not newer:
        check_sites(
            manifest,
            config["sae"]["hookpoint"],
            config["layers"],
            config["sae"]["read_from"],
        )


def untracked(value):
    """Return a config value as a param whose edit reruns nothing: how the work is done, not what comes out.

    Snakemake takes a param that is a function of the job's input for a consequence of it, and doesn't compare it.
    """

    def given(wildcards, input):
        return value

    return given


def settings(of, *keys, **sections):
    """Return params: what the job calls, and config values under the names they have there.

    `of` is a function of the library, or the job's own script. `keys` are of the config's top level, `sections` say a
    section's, as in analysis="alpha min_share".
    """
    values = {key: config[key] for key in keys}
    for section, names in sections.items():
        values |= {name: config[section][name] for name in names.split()}
    return as_params(of, **values)


def as_params(of, **values):
    """Return values as params, with `function`, unless `of` is a script, `names` and `code`.

    A mapping becomes JSON with its keys in order, so that it compares as what it says. Snakemake compares the values of
    params without their names, so two that swap values would go unseen but for `names`. `code` is a digest of what the
    result depends on of the library.
    """
    own = of.endswith(".py")
    values |= {name: json.dumps(value, sort_keys=True) for name, value in values.items() if isinstance(value, dict)}
    values["names"] = " ".join(f"{name}={value!r}" for name, value in values.items())
    values["code"] = digest_of_script(SCRIPTS / of) if own else digest(of)
    return {name: _param(value) for name, value in values.items()} | ({} if own else {"function": of})


def _param(value):
    """Return a value as a param. Text with braces goes through a function, or they would be taken for wildcards."""

    def given(wildcards):
        return value

    return given if "{" in str(value) else value


def on_cluster(group):
    """Return a group function: jobs of it that follow from each other are one job where jobs are sent somewhere.

    Where they run here they are none: Snakemake would look through all jobs of a group each time one of them ends.
    """

    def name(wildcards):
        return None if workflow.local_exec else group

    return name


def source_file(section):
    """Return an input function: the local file a problems section reads; none for other sources."""

    def path(wildcards):
        return [local(section["path"])] if section["source"] == "jsonl" else []

    return path


def content_of(section):
    """Return a param function: a digest of the local file a problems section reads, so that its change is seen whatever
    the file's time says; empty for other sources."""

    def digest(wildcards):
        return files_digest([section["path"]] if section["source"] == "jsonl" else [])

    return digest


def files_digest(listed):
    """Return a digest of files' content, as text."""
    crc = 0
    for path in listed:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                crc = zlib.crc32(part, crc)
    return f"{crc:08x}"


def model_files(wildcards=None):
    """Return the files of a model given as a path, so that their change is seen; none for other sources."""
    if config["model"]["source"] != "path":
        return []
    folder = Path(config["model"]["path"])
    return [local(path) for path in sorted(str(path) for pattern in MODEL_FILES for path in folder.glob(pattern))]


def adapter_files(wildcards):
    """Return the files of an adapter given as a path, so that its change is seen; empty for the hub."""
    adapter = config["model"]["adapter"]
    return [local(str(Path(adapter["path"]) / name)) for name in ADAPTER_FILES] if adapter["source"] == "path" else []


def sae_files(wildcards):
    """Return the files of an SAE given as a path, so that its change is seen; empty for the hub."""
    if config["sae"]["source"] != "path":
        return []
    files = files_of_sae(config["sae"], wildcards.hookpoint).values()
    return [local(str(Path(config["sae"]["path"], file))) for file in files]


def sae_of_site(file, reader=None):
    """Return an input function: that file of the SAE a site is read with, by the job's reader or the one given."""

    def path(wildcards):
        hookpoint = parse_site(wildcards.site)[0]
        who = reader or wildcards.reader
        who = who if who in WITH_OWN_SAE else READER
        return expand(file, hookpoint=hookpoint, reader=who, experiment=wildcards.experiment)[0]

    return path


def of_reader(pattern, spread=None):
    """Return an input function: a file as a reader has it, its own or the study's. spread: per_block or of_studied."""

    def found(wildcards):
        own = OWN.get(wildcards.reader, {}).get(pattern, pattern)
        listed = expand(spread(own) if spread else own, **dict(wildcards.items()))
        return listed if spread else listed[0]

    return found


def of_study(pattern):
    """Return an input function: a file of the study's own reader; none where a twin asks."""

    def found(wildcards):
        return expand(pattern, **dict(wildcards.items())) if wildcards.reader == READER else []

    return found


def twins_of(wildcards):
    """Return who else reads a study, as a param of what its own reader has; a twin has none."""
    return TWINS if wildcards.reader == READER else []


def of_twins(pattern):
    """Return an input function: the files of a pattern that are of the study's twins; none where a twin asks."""

    def found(wildcards):
        return expand(pattern, **dict(wildcards.items()) | {"reader": twins_of(wildcards)})

    return found


def named_at(wildcards):
    """Return the latents that the config names at a job's site, as a param."""
    return named_in(config["interventions"], layer_of(parse_site(wildcards.site)[0]))


def prompt_part(name):
    """Return a param function: that part of the condition's prompt template, or an empty text."""

    def part(wildcards):
        return config["prompts"][wildcards.condition].get(name, "")

    return part


def prompt_names(wildcards):
    """Return the parts a condition's prompt template has; with them a text that moves to another part is seen."""
    return " ".join(sorted(config["prompts"][wildcards.condition]))


def files_of(pattern, **levels):
    """Return a pattern's files for what is given at each level; its other wildcards stay open.

    Where results are in a storage, a rule's outputs are paths of local copies: the pattern is what the rule says.
    """
    if isinstance(pattern, str) and (stored := get_flag_value(pattern, "storage_object")):
        pattern = stored.query.removeprefix(workflow.storage_settings.default_storage_prefix).lstrip("/")
    return expand(pattern, **levels, allow_missing=True)


def per_block(pattern):
    """Return a pattern's files for all conditions and blocks; its other wildcards stay open."""
    return files_of(pattern, condition=CONDITIONS, block=BLOCKS)


def of_studied(pattern):
    """Return a pattern's files for all blocks of the condition under study, the first; other wildcards stay open."""
    return files_of(pattern, condition=CONDITIONS[0], block=BLOCKS)


def per_site(pattern):
    """Return a pattern's files for all sites, as the config's SAE reads them; other wildcards stay open."""
    return files_of(pattern, reader=READER, site=SITES)


def picture(caption, category, name):
    """Return a site's picture as an output that Snakemake's own report shows."""
    return report(
        paths.SITE_PICTURE.replace("{picture}", "<picture>"),
        caption=f"../report/{caption}.rst",
        category=category,
        subcategory="{site}",
        labels={"site": "{site}", "picture": name},
    )


def picture_across(caption, category, name):
    """Return a picture across sites as an output that Snakemake's own report shows."""
    return report(
        paths.STUDY_PICTURE.replace("{picture}", "<picture>"),
        caption=f"../report/{caption}.rst",
        category=category,
        labels={"site": "all", "picture": name},
    )


def sae_files_of(hookpoint, reader=READER):
    """Return the files of an SAE."""
    return expand(paths.SAE_FILES, hookpoint=hookpoint, reader=reader, allow_missing=True)


def requested_by(reader, requested):
    """Return by what a reader's SAEs are known again: another seed, or of a twin, of another model than the study's."""
    if reader in SECOND:
        return requested | {"sae": requested["sae"] | {"seed": config["sae"]["second_seed"]}}
    return requested if reader == READER else requested | {"twin": reader}


def seed_of_reader(wildcards):
    """Return the seed that a reader's SAEs are trained from, as a param."""
    return config["sae"]["second_seed" if wildcards.reader in SECOND else "seed"]


def requested_of_reader(requested):
    """Return a param function whose edit reruns nothing: by what the SAEs of a job's reader are known again."""

    def given(wildcards, input):
        return requested_by(wildcards.reader, requested)

    return given


def own(twin, pattern):
    """Return the pattern of a file that is a twin's own."""
    return OWN[twin][pattern].replace("{reader}", twin)


def untrained(requested, reader=READER):
    """Return the hookpoints whose SAE isn't there as this config asks for it."""

    def is_there(hookpoint):
        *_, info = files = expand(sae_files_of(hookpoint, reader), experiment=EXPERIMENT)
        return all(exists(placed(path)) for path in files) and read_if_whole(info)[0].get("requested") == requested

    return [hookpoint for hookpoint in HOOKPOINTS if not is_there(hookpoint)]


def site_table(name):
    """Return the pattern of a site's table."""
    return paths.SITE_TABLE.replace("{table}", name)


def reader_table(name):
    """Return the pattern of a table over all sites of a reader."""
    return paths.READER_TABLE.replace("{table}", name)


def gigabytes(size):
    """Return a resource function: `size` GB of memory in MB, as much again with each further attempt."""

    def megabytes(wildcards, attempt):
        return 1000 * size * attempt

    return megabytes


def remove_stale_blocks():
    """Remove what an earlier run, with blocks cut otherwise, has left of traces of this config's blocks.

    Whoever reads all files of a folder would have these traces twice.
    """
    stale, ours = [], set(BLOCKS)
    for pattern in (paths.TRACES, paths.TWIN_TRACES, paths.READING, paths.TRACE_TABLES, paths.TRACE_PICTURES):
        for path in glob.glob(pattern.format(experiment=EXPERIMENT, reader="*", site="*", condition="*", block="*")):
            try:
                block = paths.parse(pattern, path)["block"]
            except ValueError:  # nothing of ours
                continue
            if block not in ours and traces_of(block).start < config["inferences"]:
                shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
                stale.append(path)
    if stale:
        print(
            f"removed, as blocks are cut otherwise now: {len(stale)} files and folders, such as {stale[0]}",
            file=sys.stderr,
        )


def minutes(length):
    """Return a resource function: `length` minutes, as much again with each further attempt."""

    def runtime(wildcards, attempt):
        return length * attempt

    return runtime


def show_summary():
    """Print the summary of a whole run, and at last the path of the report."""
    if any(job.rule.name == "all" for job in workflow.dag.jobs):
        summary, report = (path.format(experiment=EXPERIMENT) for path in (paths.SUMMARY, paths.REPORT))
        print(earlier(summary)[0])
        print(f"Report: {stored.query if (stored := in_storage(report)) else report}")


def save_rule_graph():
    """Write which rules there are, by rule file, and which takes from which, for the report.

    Only where the report is among what is asked for, as the graph has only what is.
    """
    rooms, needs = {}, {}
    for job, sources in workflow.dag.dependencies.items():
        rooms[job.rule.name] = Path(str(job.rule.snakefile)).stem
        needs.setdefault(job.rule.name, set()).update(source.rule.name for source in sources)
    if "report" not in rooms:
        return
    order = [rule.name for rule in workflow.rules if rule.name in rooms]
    graph = {
        "rooms": {rule: rooms[rule] for rule in order if rule != "all"},
        "needs": {rule: sorted(needs[rule]) for rule in order if rule != "all"},
    }
    Path(f"results/{EXPERIMENT}").mkdir(parents=True, exist_ok=True)
    Path(f"results/{EXPERIMENT}/rules.json").write_text(json.dumps(graph, indent=1))


def made_in(folder):
    """Return the names of what the rules so far make in a folder of the results (`tables`, `plots`)."""
    files = [Path(str(file)) for rule in workflow.rules for file in rule.output]
    return sorted({file.stem for file in files if folder in file.parts})


if not workflow.is_main_process and not IS_MODULE:
    run.join(workflow.overwrite_configfiles)

try:
    check_against_manifest()
except InputError as error:
    raise WorkflowError(str(error)) from None
