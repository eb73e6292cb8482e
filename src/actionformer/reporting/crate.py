"""An RO-Crate of results: what each file is, and which runs of the workflow made it.

Workflow Run Crate 0.5 (https://w3id.org/ro/wfrun/workflow/0.5), written with `rocrate`: the
workflow is the main entity, every evaluated run an action that has its data as objects and its
files as results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
# where the term md5 is defined
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
LICENCE = "https://spdx.org/licenses/Apache-2.0"
METADATA = "ro-crate-metadata.json"
WORKFLOW = "Snakefile"
FORMATS = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".md": "text/markdown",
    ".html": "text/html",
    ".svg": "image/svg+xml",
    ".tex": "application/x-tex",
    ".yaml": "application/yaml",
    ".txt": "text/plain",
}


@dataclass(frozen=True)
class RunAction:
    """A run of the workflow: one seed of a row, or a published checkpoint, evaluated."""

    name: str
    description: str
    # ISO 8601
    ended: str
    # path -> md5 of the publishers' files that it read, which are not in the crate
    read: Mapping[str, str]
    # files in the crate that it made
    made: Sequence[str]


@dataclass(frozen=True)
class Terms:
    """Whose a file is that is not this project's."""

    owner: str
    licence: str
    homepage: str | None
    citation: str | None


def metadata(
    files: Mapping[str, tuple[str, int]],
    actions: Sequence[RunAction],
    terms: Mapping[str, Terms],
    *,
    title: str,
    text: str,
) -> dict[str, Any]:
    """The content of ro-crate-metadata.json.

    Args:
        files: path in the crate -> md5 and bytes; `Snakefile` is among them.
        terms: of those of these files that are under another licence than the crate.
        text: what the crate holds, in a sentence or two.
    """
    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(TERMS)
    crate.name, crate.description = title, text
    # of the results, and not of whoever archives them: the same files make the same archive
    crate.datePublished = datetime.fromisoformat(max(action.ended for action in actions))
    for address, (name, version) in PROFILES.items():
        properties = {"@type": "CreativeWork", "name": name, "version": version}
        crate.add(ContextEntity(crate, address, properties=properties))
    crate.root_dataset["conformsTo"] = [{"@id": address} for address in PROFILES]
    licence = {"@type": "CreativeWork", "name": "Apache License 2.0"}
    crate.root_dataset["license"] = crate.add(ContextEntity(crate, LICENCE, properties=licence))
    entities = {}
    for path in sorted(files):
        entities[path] = _file(crate, path, *files[path])
        if path in terms:
            entities[path]["license"] = _licence(crate, terms[path])
    crate.mainEntity = entities[WORKFLOW]
    done = []
    for action in actions:
        done.append(_action(crate, action, entities))
    crate.root_dataset["mentions"] = done
    content: dict[str, Any] = crate.metadata.generate()
    return content


def _file(crate: ROCrate, path: str, md5: str, size: int) -> Any:
    properties: dict[str, Any] = {"md5": md5, "contentSize": str(size)}
    for ending, kind in FORMATS.items():
        if path.endswith(ending):
            properties["encodingFormat"] = kind
    if path != WORKFLOW:
        return crate.add_file(dest_path=path, properties={"name": path, **properties})
    properties["name"] = "From publishers' files to results tables"
    return crate.add_workflow(
        dest_path=path, properties=properties, main=True, lang="snakemake", lang_version=">=9"
    )


def _licence(crate: ROCrate, terms: Terms) -> Any:
    properties = {"@type": "CreativeWork", "name": f"{terms.owner}: {terms.licence}"}
    if terms.homepage is not None:
        properties["url"] = terms.homepage
    if terms.citation is not None:
        properties["citation"] = terms.citation
    # one entity, however many files stand under it
    name = f"#licence of {terms.owner}"
    return crate.get(name) or crate.add(ContextEntity(crate, name, properties=properties))


def _action(crate: ROCrate, action: RunAction, entities: Mapping[str, Any]) -> Any:
    objects = []
    for path, md5 in action.read.items():
        named = {"@type": "PropertyValue", "name": path, "propertyID": "md5", "value": md5}
        objects.append(crate.add(ContextEntity(crate, f"#{path}", properties=named)))
    properties = {
        "@type": "CreateAction",
        "name": action.name,
        "description": action.description,
        "endTime": action.ended,
    }
    entity = crate.add(ContextEntity(crate, f"#{action.name}", properties=properties))
    entity["instrument"] = entities[WORKFLOW]
    entity["object"] = objects
    entity["result"] = [entities[path] for path in action.made if path in entities]
    return entity
