"""Croissant 1.0 metadata of an export: files with their digests, and what each column holds, as JSON-LD."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ussim import __version__

from .card import describe, title
from .items import Shown

FILE = "croissant.json"
PARQUET = "application/x-parquet"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
TYPES = {"string": "sc:Text", "int64": "sc:Integer", "float64": "sc:Float", "float16": "sc:Float"}


def text(shown: Shown, features: dict[str, dict[str, Any]], folder: Path, files: list[str]) -> str:
    """Return the metadata of Parquet files; `features` as `datasets` writes them, `files` relative to their folder."""
    probes = list(dict.fromkeys(name.split("/")[1] for name in files))
    document = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": shown.name,
        "description": f"{title(shown)}. {describe(shown)}",
        "license": [licence.link or licence.text for licence in shown.licences],
        "url": shown.url or f"urn:sha256:{shown.pairs.attributes['digest']}",
        "creator": {"@type": "Organization", "name": shown.creator or f"unnamed, with ussim {__version__}"},
        "datePublished": _today(),
        "version": "1.0.0",
        "citeAs": "; ".join(source.citation for source in shown.pairs.sources if source.citation),
        "keywords": ["ultrasound", "speckle", "simulation", "MRI"],
        "distribution": [*(_file(folder, name) for name in files), *map(_file_set, probes)],
        "recordSet": [_record_set(probe, features) for probe in probes],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _file_set(probe: str) -> dict[str, Any]:
    """Return the files of one probe, which lie in a folder of their own."""
    name = f"files-{probe}"
    described = {"@type": "cr:FileSet", "@id": name, "name": name}
    return described | {"encodingFormat": PARQUET, "includes": f"data/{probe}/*.parquet"}


def _record_set(probe: str, features: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what the rows of one probe hold."""
    fields = []
    for column, feature in features.items():
        source: dict[str, Any] = {"fileSet": {"@id": f"files-{probe}"}, "extract": {"column": column}}
        field: dict[str, Any] = {"@type": "cr:Field", "@id": f"{probe}/{column}", "name": column}
        if feature["_type"] == "Image":
            field |= {"dataType": "sc:ImageObject", "source": source | {"transform": {"jsonPath": "bytes"}}}
        else:
            while feature["_type"] == "List":
                feature, field["repeated"] = feature["feature"], True
            field |= {"dataType": TYPES[feature["dtype"]], "source": source}
        fields.append(field)
    return {"@type": "cr:RecordSet", "@id": probe, "name": probe, "field": fields}


def _file(folder: Path, name: str) -> dict[str, Any]:
    with (folder / name).open("rb") as file:
        total = hashlib.file_digest(file, "sha256").hexdigest()
    described = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name}
    return described | {"encodingFormat": PARQUET, "sha256": total}


def _today() -> str:
    """Return the day, or that of SOURCE_DATE_EPOCH, by which builds of the same bytes are made."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = (
        datetime.datetime.now(datetime.UTC) if not epoch else datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
    )
    return now.date().isoformat()
