"""A tiny COCO and a tiny LVIS data set on a loopback server, under the names and paths of the real ones."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from typing import Any

from PIL import Image

from instbench.datasets.catalog import DATASETS, ArchiveSpec, DatasetSpec
from tests.instbench.datasets.fetching.server import Server
from tests.instbench.layouts.builders import annotation

WIDTH, HEIGHT = 80, 60


def jpeg(grey: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (WIDTH, HEIGHT), grey).save(stream, format="JPEG")
    return stream.getvalue()


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def image_name(number: int) -> str:
    return f"{number:012d}.jpg"


def coco_files() -> dict[str, bytes]:
    """The archives of a COCO val2017 of two images, by path on the server."""
    images = [{"id": n, "width": WIDTH, "height": HEIGHT, "file_name": image_name(n)} for n in (1, 2)]
    instances = {
        "images": images,
        "annotations": [annotation(1, 1), annotation(2, 2)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    captions = {
        "images": images,
        "annotations": [{"id": n, "image_id": n, "caption": f"Image {n}."} for n in (1, 2)],
    }
    return {
        "/annotations/annotations_trainval2017.zip": zipped(
            **{
                "annotations/instances_val2017.json": json.dumps(instances).encode(),
                "annotations/captions_val2017.json": json.dumps(captions).encode(),
                "annotations/instances_train2017.json": b"{}",
            }
        ),
        "/zips/val2017.zip": zipped(**{f"val2017/{image_name(n)}": jpeg(n) for n in (1, 2)}),
    }


def lvis_content() -> dict[str, Any]:
    """LVIS v1 annotations of one val2017 and one train2017 image."""
    urls = {2: f"http://images.cocodataset.org/val2017/{image_name(2)}"}
    urls[3] = f"http://images.cocodataset.org/train2017/{image_name(3)}"
    images = [
        {
            "id": n,
            "width": WIDTH,
            "height": HEIGHT,
            "coco_url": url,
            "neg_category_ids": [2],
            "not_exhaustive_category_ids": [1],
        }
        for n, url in urls.items()
    ]
    annotations = [annotation(1, 2), annotation(2, 3)]
    for record in annotations:
        del record["iscrowd"]
    categories = [
        {"id": 1, "name": "cat", "frequency": "f"},
        {"id": 2, "name": "car_(automobile)", "frequency": "r"},
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def lvis_files() -> dict[str, bytes]:
    """The archives of an LVIS val of two images, by path on the server."""
    files = {
        "/LVIS/lvis_v1_val.json.zip": zipped(**{"lvis_v1_val.json": json.dumps(lvis_content()).encode()})
    }
    files["/zips/val2017.zip"] = coco_files()["/zips/val2017.zip"]
    files["/zips/train2017.zip"] = zipped(**{f"train2017/{image_name(n)}": jpeg(n) for n in (3, 4)})
    return files


def offer(server: Server, name: str) -> DatasetSpec:
    """Puts a tiny data set on the server; returns its catalog entry with the sizes and sums of these files."""
    files = {"coco-val2017": coco_files, "lvis-v1-val": lvis_files}[name]()
    server.files |= files
    spec = DATASETS[name]
    archives = tuple(_of(archive, files) for archive in spec.archives)
    counts = {"images": 2, "annotations": 2, "categories": 1 if name == "coco-val2017" else 2}
    if spec.captions is not None:
        counts["captions"] = 2
    return replace(spec, archives=archives, counts=counts)


def _of(archive: ArchiveSpec, files: dict[str, bytes]) -> ArchiveSpec:
    data = next(data for path, data in files.items() if path.endswith(f"/{archive.name}"))
    return replace(archive, size=len(data), sha256=hashlib.sha256(data).hexdigest())
