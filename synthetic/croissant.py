"""What a folder of synthetic images is, as Croissant metadata (MLCommons, version 1.0): files with digests, classes.

`python -m synthetic.images DIRECTORY` writes them beside the data cache, as `croissant.json`. Data portals and loaders
that know the format find there what the files are, and the classes; the pixels are arrays in NumPy's format. Read next:
`images.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharp_maml import Dataset, write_atomically

FILE = "croissant.json"
_FORMATS = {".json": "application/json", ".npy": "application/x-npy"}
_TERMS = """citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset
jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source subField
transform"""
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
"""The context that the specification recommends, which says whose vocabulary each term is."""


def croissant(directory: Path, dataset: Dataset) -> dict[str, Any]:
    """The metadata of a data cache of synthetic images, as JSON-LD.

    Args:
        directory: The cache's folder.
        dataset: The cache, opened.

    Returns:
        A `sc:Dataset` with a file object for each file of the cache, and a record set of classes for each split.

    Source: https://docs.mlcommons.org/croissant/docs/croissant-spec.html
    """
    files = ["index.json", *(f"{split}.npy" for split in dataset.splits)]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": dataset.name,
        "description": (
            "Few-shot colour images drawn by random programs, one program per class: "
            f"{', '.join(f'{len(part.names)} {split} classes' for split, part in dataset.splits.items())}, images of "
            f"{dataset.size} x {dataset.size} pixels. Made on the spot, the same bytes on every machine."
        ),
        "license": "https://spdx.org/licenses/MIT.html",
        "version": "1.0.0",
        "isLiveDataset": False,
        "citeAs": "The sharp-maml developers, synthetic images of sharp-maml",
        "keywords": ["few-shot learning", "meta-learning", "synthetic images"],
        "distribution": [_file(directory / name) for name in files],
        "recordSet": [_classes(split, part.names, part.counts) for split, part in dataset.splits.items()],
    }


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _FORMATS[path.suffix],
        "sha256": digest,
    }


def _classes(split: str, names: Sequence[str], counts: Sequence[int]) -> dict[str, Any]:
    """The classes of a split: their names, and how many images each has, in the order of the rows of its array."""
    described = {
        "name": ("sc:Text", "What makes the class: symmetry, stroke, texture and law of its colours."),
        "count": ("sc:Integer", "The number of the class's images."),
    }
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"The {split} classes; the rows of {split}.npy are their images, class after class.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{split}/{name}",
                "name": f"{split}/{name}",
                "dataType": kind,
                "description": text,
            }
            for name, (kind, text) in described.items()
        ],
        "data": [{f"{split}/name": name, f"{split}/count": count} for name, count in zip(names, counts, strict=True)],
    }


def write_croissant(directory: Path, dataset: Dataset) -> None:
    """Write the metadata beside the files that they describe."""
    write_atomically(directory / FILE, json.dumps(croissant(directory, dataset), indent=1).encode())
