"""A study as an RO-Crate: report, tables, traces and config, with a description of how they were made that others read.

The description is by the Workflow Run Crate profile 0.5 (Leo et al. 2024, doi 10.1371/journal.pone.0309210): the
workflow, the run of it, what this took and what it gave, with the files' hashes.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from .. import __version__, api, files

PROFILES = (
    "https://w3id.org/ro/wfrun/process/0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
)
"""Profiles that the crate keeps to."""

TERMS = "https://w3id.org/ro/terms/workflow-run/context"
"""Has what RO-Crate's own context lacks, such as sha256."""

KINDS = {
    ".parquet": "application/vnd.apache.parquet", ".html": "text/html", ".md": "text/markdown",
    ".yaml": "application/yaml", ".png": "image/png", ".txt": "text/plain",
}  # fmt: skip
"""Media types by a file's ending."""


def rocrate(study: api.Study, folder: Path, *, config: str, workflow: Path) -> int:
    """Write a study as a crate to `folder`; return how many files it has.

    config: as the user gave it, in YAML; workflow: the folder of the Snakefile and the lock file.
    """
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")  # on which the profiles build
    crate.metadata.extra_contexts.append(TERMS)
    results = sorted(study.results())
    times = [path.stat().st_mtime for path in results]
    crate.name = f"{study.folder.name}: a thoughtscope study of {study.model['name']}"
    crate.description = (
        "Traces of a language model, what sparse autoencoders say of them, and which of their latents are thinking"
        " patterns. report.html says what was found; results/README.md of thoughtscope has every column."
    )
    crate.datePublished = _when(max(times))
    crate.license = crate.add_jsonld(_entity("#license", "CreativeWork", name="None given by who ran the study"))
    for profile in PROFILES:
        version = profile.rpartition("/")[2]
        name = f"{profile.split('/')[-2]} profile"
        crate.add_jsonld(_entity(profile, ["CreativeWork", "Profile"], name=name, version=version))
    crate.root_dataset["conformsTo"] = [{"@id": profile} for profile in PROFILES]

    main = crate.add_workflow(
        workflow / "Snakefile", "Snakefile", main=True, lang="snakemake",
        properties={"name": "thoughtscope", "version": __version__},
    )  # fmt: skip
    lock = crate.add_file(workflow / "requirements.lock", properties=_about(workflow / "requirements.lock"))
    main["softwareRequirements"] = lock
    about = {"name": "config", "encodingFormat": KINDS[".yaml"]}
    given = [crate.add_file(StringIO(config), "config.yaml", properties=about)]
    hashes = [f"{name} {digest}" for name, digest in sorted(study.model["files"].items())]
    of_model: dict[str, Any] = {"name": study.model["name"], "description": "the language model", "identifier": hashes}
    given.append(crate.add_jsonld(_entity("#model", "CreativeWork", **of_model)))
    made: list[Any] = []
    for path in results:
        inner = str(path.relative_to(study.folder))
        which = given if inner == "problems.parquet" else made
        which.append(crate.add_file(path, inner, properties=_about(path)))
    run = _entity(
        "#run", "CreateAction", name=f"thoughtscope {__version__} on {study.folder.name}", instrument=_ref(main),
        object=list(map(_ref, given)), result=list(map(_ref, made)), startTime=_when(min(times)),
        endTime=_when(max(times)), actionStatus="http://schema.org/CompletedActionStatus",
        description="snakemake --configfile config.yaml",
    )  # fmt: skip
    crate.root_dataset["mentions"] = crate.add_jsonld(run)
    crate.write(folder)
    return len(results) + 3


def _about(path: Path) -> dict[str, Any]:
    about = {"sha256": files.sha256(path), "contentSize": str(path.stat().st_size), "name": path.name}
    return about | {"encodingFormat": KINDS.get(path.suffix, "text/plain")}


def _entity(address: str, kind: str | list[str], **properties: Any) -> dict[str, Any]:
    return {"@id": address, "@type": kind, **properties}


def _ref(entity: Any) -> Mapping[str, str]:
    return {"@id": entity.id if hasattr(entity, "id") else entity["@id"]}


def _when(seconds: float) -> str:
    return re.sub(r"\.\d+", "", datetime.fromtimestamp(seconds, UTC).isoformat())
