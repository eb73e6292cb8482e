"""Croissant metadata of a data set: where its files come from, and its ground truth as records.

Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html), which data set search
engines and `mlcroissant` read. A file that it lists has a checksum: one whose md5 nobody knows has
no place in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERSION = "http://mlcommons.org/croissant/1.0"
# the terms used below, as the specification defines them
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "key": "cr:key",
    "md5": "cr:md5",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "source": "cr:source",
}
FORMATS = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".txt": "text/plain",
    ".zip": "application/zip",
    ".gz": "application/gzip",
}
OTHER_FORMAT = "application/octet-stream"


@dataclass(frozen=True)
class Listed:
    """A file of a data set: its path there, where it can be had, and what it must be."""

    name: str
    address: str
    md5: str
    archive: str | None = None


@dataclass(frozen=True)
class Column:
    """A column of a csv file: what it holds and, of one that names something, where that is."""

    name: str
    kind: str  # sc:Text, sc:Float or sc:Boolean
    text: str
    # 'videos/video': the column that has each of these values once
    references: str | None = None


@dataclass(frozen=True)
class Records:
    """A csv file, which is listed too, whose lines are records."""

    name: str
    file: str
    text: str
    columns: Sequence[Column]
    # the column by which a record is known, if there is one
    key: str | None = None


@dataclass(frozen=True)
class Described:
    """What is said of the data set as a whole."""

    name: str
    text: str
    licence: str
    homepage: str | None
    citation: str | None


def metadata(
    described: Described, files: Sequence[Listed], records: Sequence[Records]
) -> dict[str, Any]:
    """The content of croissant.json."""
    content: dict[str, Any] = {
        "@context": dict(CONTEXT),
        "@type": "sc:Dataset",
        "name": described.name,
        "description": described.text,
        "conformsTo": VERSION,
        "license": described.licence,
    }
    if described.homepage is not None:
        content["url"] = described.homepage
    if described.citation is not None:
        content["citeAs"] = described.citation
    content["distribution"] = [_file(listed) for listed in files]
    content["recordSet"] = [_records(table) for table in records]
    return content


def _file(listed: Listed) -> dict[str, Any]:
    ending = listed.name[listed.name.rfind(".") :]
    entity = {
        "@type": "cr:FileObject",
        "@id": listed.name,
        "name": listed.name,
        "contentUrl": listed.address,
        "encodingFormat": FORMATS.get(ending, OTHER_FORMAT),
        "md5": listed.md5,
    }
    if listed.archive is not None:
        # not `sameAs`, which would promise the same bytes
        entity["description"] = f"also archived at {listed.archive}"
    return entity


def _records(table: Records) -> dict[str, Any]:
    fields = []
    for column in table.columns:
        entity: dict[str, Any] = {
            "@type": "cr:Field",
            "@id": f"{table.name}/{column.name}",
            "name": column.name,
            "description": column.text,
            "dataType": column.kind,
            "source": {
                "fileObject": {"@id": table.file},
                "extract": {"column": column.name},
            },
        }
        if column.references is not None:
            entity["references"] = {"field": {"@id": column.references}}
        fields.append(entity)
    content: dict[str, Any] = {
        "@type": "cr:RecordSet",
        "@id": table.name,
        "name": table.name,
        "description": table.text,
        "field": fields,
    }
    if table.key is not None:
        content["key"] = {"@id": f"{table.name}/{table.key}"}
    return content
