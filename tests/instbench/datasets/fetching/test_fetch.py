from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from instbench.datasets import CocoAnnotations
from instbench.datasets.catalog import DATASETS, DatasetSpec
from instbench.datasets.fetching import FetchReport, fetch_dataset
from instbench.datasets.fetching.transfer import TransferSettings
from instbench.datasets.home import dataset_paths
from instbench.datasets.manifest import read_manifest, verify_folder
from instbench.errors import InputError
from instbench.runs.lock import RunLock
from tests.instbench.datasets.fetching.server import Reply, Server
from tests.instbench.datasets.fetching.world import coco_files, image_name, offer, zipped

QUICK = TransferSettings(attempts=2, backoff=0.0)


def fetch(
    server: Server, spec: DatasetSpec, home: Path, *, images: bool = True, keep: bool = False
) -> FetchReport:
    return fetch_dataset(
        spec, home, mirror=server.address, with_images=images, keep_archives=keep, settings=QUICK
    )


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


COCO_FILES = [
    "annotations/captions_val2017.json",
    "annotations/instances_val2017.json",
    "manifest.json",
    "val2017/000000000001.jpg",
    "val2017/000000000002.jpg",
]


def test_coco_comes_checked_and_complete(server: Server, tmp_path: Path) -> None:
    spec = offer(server, "coco-val2017")
    report = fetch(server, spec, tmp_path)
    assert not report.was_there
    assert names(tmp_path) == [f"coco-val2017/{name}" for name in COCO_FILES]
    assert report.manifest.counts == {"images": 2, "annotations": 2, "categories": 1, "captions": 2}
    assert [record.checksum for record in report.manifest.archives] == ["published", "published"]
    assert read_manifest(report.folder) == report.manifest
    assert verify_folder(report.folder) == []
    paths = dataset_paths("coco-val2017", tmp_path)
    assert len(CocoAnnotations.read(paths.annotations).images) == 2
    assert paths.images == tmp_path / "coco-val2017" / "val2017"


def test_what_is_complete_is_left_alone(server: Server, tmp_path: Path) -> None:
    spec = offer(server, "coco-val2017")
    first = fetch(server, spec, tmp_path)
    asked = len(server.requests)
    again = fetch(server, spec, tmp_path)
    assert again.was_there
    assert again.manifest == first.manifest
    assert fetch(server, spec, tmp_path, images=False).was_there
    assert len(server.requests) == asked


def test_what_is_damaged_is_fetched_again(server: Server, tmp_path: Path) -> None:
    spec = offer(server, "coco-val2017")
    folder = fetch(server, spec, tmp_path).folder
    (folder / "val2017" / image_name(2)).unlink()
    assert not fetch(server, spec, tmp_path).was_there
    assert names(folder) == COCO_FILES
    assert verify_folder(folder) == []


def test_annotations_alone_and_images_later(server: Server, tmp_path: Path) -> None:
    spec = offer(server, "coco-val2017")
    folder = fetch(server, spec, tmp_path, images=False).folder
    assert names(folder) == COCO_FILES[:3]
    assert dataset_paths("coco-val2017", tmp_path).images is None
    assert not fetch(server, spec, tmp_path).was_there
    assert names(folder) == COCO_FILES


def test_archives_are_kept_where_asked_and_used_again(server: Server, tmp_path: Path) -> None:
    spec = offer(server, "coco-val2017")
    fetch(server, spec, tmp_path, keep=True)
    kept = ["archives/annotations_trainval2017.zip", "archives/val2017.zip"]
    assert [name for name in names(tmp_path) if name.startswith("archives/")] == kept
    (tmp_path / "coco-val2017" / "val2017" / image_name(1)).write_bytes(b"")
    asked = len(server.requests)
    fetch(server, spec, tmp_path)
    assert len(server.requests) == asked
    assert not (tmp_path / "archives").exists()


def test_lvis_takes_listed_images_of_both_folders(server: Server, tmp_path: Path) -> None:
    spec = offer(server, "lvis-v1-val")
    folder = fetch(server, spec, tmp_path).folder
    assert names(folder) == [
        "annotations/lvis_v1_val.json",
        "manifest.json",
        f"train2017/{image_name(3)}",
        f"val2017/{image_name(2)}",
    ]
    paths = dataset_paths("lvis-v1-val", tmp_path)
    read = CocoAnnotations.read(paths.annotations)
    assert paths.images is not None
    assert all((paths.images / str(image.file_name)).is_file() for image in read.images.values())


def test_an_unknown_checksum_is_pinned_on_first_use(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = offer(server, "coco-val2017")
    spec = replace(
        known, archives=tuple(replace(archive, size=None, sha256=None) for archive in known.archives)
    )
    with caplog.at_level(logging.WARNING, logger="instbench"):
        report = fetch(server, spec, tmp_path)
    assert caplog.text.count("no published checksum is known") == 2
    assert [record.checksum for record in report.manifest.archives] == ["first-use", "first-use"]
    assert report.manifest.archives[1].sha256 == known.archives[1].sha256
    (report.folder / "val2017" / image_name(1)).unlink()
    caplog.clear()
    again = fetch(server, spec, tmp_path)
    assert [record.checksum for record in again.manifest.archives] == ["first-use", "first-use"]
    assert "no published checksum" not in caplog.text
    (report.folder / "val2017" / image_name(1)).unlink()
    server.files["/zips/val2017.zip"] = zipped(**{f"val2017/{image_name(n)}": b"other" for n in (1, 2)})
    with pytest.raises(InputError, match=r"val2017\.zip: the server offers \d+ bytes"):
        fetch(server, spec, tmp_path)
    assert report.folder.is_dir()


def test_another_content_is_refused_by_its_counts(server: Server, tmp_path: Path) -> None:
    spec = replace(offer(server, "coco-val2017"), counts={"images": 3})
    with pytest.raises(InputError, match="coco-val2017: holds 2 images, not 3; this is another version"):
        fetch(server, spec, tmp_path)
    assert [name for name in names(tmp_path) if not name.startswith("archives/")] == []


def test_missing_images_are_refused(server: Server, tmp_path: Path) -> None:
    spec = offer(server, "coco-val2017")
    data = zipped(**{f"val2017/{image_name(1)}": b"one"})
    server.files["/zips/val2017.zip"] = data
    archives = (
        spec.archives[0],
        replace(spec.archives[1], size=len(data), sha256=hashlib.sha256(data).hexdigest()),
    )
    with pytest.raises(InputError, match=f"1 images are missing, the first: val2017/{image_name(2)}"):
        fetch(server, replace(spec, archives=archives), tmp_path)


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("instances", b'{"images": [', "no valid JSON"),
        ("instances", b"[]", "field images: must be a list"),
        (
            "instances",
            json.dumps({"images": [{"id": 1}], "annotations": [], "categories": []}).encode(),
            "images",
        ),
        ("captions", b"{}", "field annotations: must be a list"),
        ("captions", None, "is not in the archives"),
    ],
)
def test_unusable_annotations_are_refused(
    server: Server, tmp_path: Path, member: str, content: bytes | None, message: str
) -> None:
    spec = offer(server, "coco-val2017")
    good = json.dumps({"images": [], "annotations": [], "categories": []}).encode()
    members = {"annotations/instances_val2017.json": good, "annotations/captions_val2017.json": good}
    if content is None:
        del members[f"annotations/{member}_val2017.json"]
    else:
        members[f"annotations/{member}_val2017.json"] = content
    data = zipped(**members)
    server.files["/annotations/annotations_trainval2017.zip"] = data
    first = replace(spec.archives[0], size=len(data), sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(InputError, match=message):
        fetch(server, replace(spec, archives=(first, *spec.archives[1:]), counts={}), tmp_path)
    assert not (tmp_path / "coco-val2017").exists()


def test_a_failure_keeps_the_downloads_for_the_next_call(server: Server, tmp_path: Path) -> None:
    spec = offer(server, "coco-val2017")
    server.replies = [Reply(), *[Reply(cut=10)] * 2]
    with pytest.raises(InputError, match="gave up after 2 failures"):
        fetch(server, spec, tmp_path)
    assert not (tmp_path / "coco-val2017").exists()
    server.requests.clear()
    fetch(server, spec, tmp_path)
    assert [path for path, _ in server.requests] == ["/zips/val2017.zip"]
    assert server.requests[0][1] is not None


def test_a_hostile_archive_leaves_no_trace(server: Server, tmp_path: Path) -> None:
    spec = offer(server, "coco-val2017")
    data = zipped(**{f"val2017/{image_name(1)}": b"one", "../../evil": b"evil"})
    server.files["/zips/val2017.zip"] = data
    last = replace(spec.archives[1], size=len(data), sha256=hashlib.sha256(data).hexdigest())
    home = tmp_path / "a" / "b"
    with pytest.raises(InputError, match="leads out of the folder"):
        fetch(server, replace(spec, archives=(spec.archives[0], last)), home)
    assert {name.split("/")[2] for name in names(tmp_path)} == {"archives"}


def test_folders_of_others_are_left_alone(server: Server, tmp_path: Path) -> None:
    spec = offer(server, "coco-val2017")
    (tmp_path / "coco-val2017").mkdir()
    (tmp_path / "coco-val2017" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files and no manifest.json; move it away"):
        fetch(server, spec, tmp_path)
    with RunLock(tmp_path), pytest.raises(InputError, match="in use by process"):
        fetch(server, spec, tmp_path)


@pytest.mark.parametrize("mirror", ["file:///data", "nothing", "http://", "https://host/x?y=1"])
def test_mirrors_are_http_addresses(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(InputError, match=r"--mirror .* must be an address like"):
        fetch_dataset("coco-val2017", tmp_path, mirror=mirror)


def test_the_published_sizes_hold_for_mirrors_too(server: Server, tmp_path: Path) -> None:
    server.files |= coco_files()
    size = DATASETS["coco-val2017"].archives[0].size
    with pytest.raises(InputError, match=f"but the file has {size}"):
        fetch_dataset("coco-val2017", tmp_path, mirror=server.address, settings=QUICK)


def test_the_catalog_is_whole() -> None:
    for name, spec in DATASETS.items():
        assert name == spec.name
        assert not spec.archives[0].holds_images
        for archive in spec.archives:
            assert archive.url.startswith(
                ("http://images.cocodataset.org/", "https://dl.fbaipublicfiles.com/")
            )
            assert archive.size is not None
            assert archive.sha256 is not None
            assert len(archive.sha256) == 64
