"""The public data sets that can be fetched: where they come from, how large they are, what to take.

Sizes and SHA-256 sums are those of the `checksums.tsv` of TensorFlow Datasets
(`tensorflow_datasets/datasets/lvis`, `.../coco`), which other projects' records confirm; the makers of
COCO and LVIS publish none themselves. An archive without a sum is pinned on first use: its sum goes into
the manifest, with a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from instbench.errors import InputError

__all__ = ["DATASETS", "ArchiveSpec", "DatasetSpec", "Member", "get_dataset"]


@dataclass(frozen=True, slots=True)
class Member:
    """Files of an archive that are wanted.

    Attributes:
        pattern: Regular expression that the whole name inside the archive must match.
        folder: Folder of the data set that they go to; the last part of their name is kept.
        listed_only: Take only images that the data set's annotations list.
    """

    pattern: str
    folder: str
    listed_only: bool = False


@dataclass(frozen=True, slots=True)
class ArchiveSpec:
    """A ZIP file of a data set.

    Attributes:
        url: Official address.
        members: What is taken out of it; everything else stays in it.
        size: Size in bytes, None if unknown.
        sha256: Checksum in hexadecimal, None if none is known.
        holds_images: Whether it can be left out when only the annotations are wanted.
    """

    url: str
    members: tuple[Member, ...]
    size: int | None = None
    sha256: str | None = None
    holds_images: bool = False

    @property
    def name(self) -> str:
        """File name of the archive."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A data set: its archives in the order of unpacking, and what must come out.

    Attributes:
        name: Name for the command line and for benchmarks.
        summary: One line.
        archives: Archives, those with annotations first.
        annotations: Instances file inside the data set's folder.
        captions: Captions file inside the folder, or None.
        images: Folder against which the images' names are meant, inside the data set's folder.
        counts: Numbers of ``images``, ``annotations``, ``categories`` and ``captions`` that must be there.
    """

    name: str
    summary: str
    archives: tuple[ArchiveSpec, ...]
    annotations: str
    captions: str | None
    images: str
    counts: Mapping[str, int] = field(default_factory=dict)


_COCO = "http://images.cocodataset.org"  # its https certificate does not fit the name; the sums do the work
_IMAGES = r"{split}/[0-9]{{12}}\.jpg"


def _coco_images(split: str, size: int, sha256: str, *, listed_only: bool = False) -> ArchiveSpec:
    return ArchiveSpec(
        url=f"{_COCO}/zips/{split}.zip",
        members=(Member(_IMAGES.format(split=split), split, listed_only=listed_only),),
        size=size,
        sha256=sha256,
        holds_images=True,
    )


_VAL2017 = (815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05")
_TRAIN2017 = (19_336_861_798, "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929")

DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            name="coco-val2017",
            summary="COCO 2017 val: 5,000 images with instances and captions (1.1 GB to download)",
            archives=(
                ArchiveSpec(
                    url=f"{_COCO}/annotations/annotations_trainval2017.zip",
                    members=(Member(r"annotations/(instances|captions)_val2017\.json", "annotations"),),
                    size=252_907_541,
                    sha256="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                ),
                _coco_images("val2017", *_VAL2017),
            ),
            annotations="annotations/instances_val2017.json",
            captions="annotations/captions_val2017.json",
            images="val2017",
            counts={"images": 5_000, "annotations": 36_781, "categories": 80, "captions": 25_014},
        ),
        DatasetSpec(
            name="lvis-v1-val",
            summary="LVIS v1 val: 19,809 images out of COCO train2017 and val2017 (20.2 GB to download)",
            archives=(
                ArchiveSpec(
                    url="https://dl.fbaipublicfiles.com/LVIS/lvis_v1_val.json.zip",
                    members=(Member(r"lvis_v1_val\.json", "annotations"),),
                    size=64_026_968,
                    sha256="5cae9a3c79aadb667550c2b5dcf7f4d86e059a41ec91ef690225b667e28e9ba5",
                ),
                _coco_images("val2017", *_VAL2017, listed_only=True),
                _coco_images("train2017", *_TRAIN2017, listed_only=True),
            ),
            annotations="annotations/lvis_v1_val.json",
            captions=None,
            images=".",
            counts={"images": 19_809, "annotations": 244_707, "categories": 1_203},
        ),
    )
}


def get_dataset(name: str) -> DatasetSpec:
    """The data set of that name.

    Raises:
        InputError: If there is none.
    """
    try:
        return DATASETS[name]
    except KeyError:
        raise InputError(f"unknown data set {name!r} (data sets: {', '.join(DATASETS)})") from None
