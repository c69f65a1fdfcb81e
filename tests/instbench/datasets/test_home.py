from __future__ import annotations

import sys
from pathlib import Path

import pytest

from instbench.datasets.catalog import DATASETS
from instbench.datasets.home import DatasetPaths, data_home, dataset_paths
from instbench.errors import InputError


def _fill(home: Path, name: str, *, images: bool = True) -> Path:
    folder = home / name
    spec = DATASETS[name]
    for file in filter(None, (spec.annotations, spec.captions, "manifest.json")):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")
    for archive in spec.archives if images else ():
        for member in archive.members:
            (folder / member.folder).mkdir(exist_ok=True)
    return folder


def test_the_environment_names_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path))
    assert data_home() == tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="the rule of Linux")
def test_the_home_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INSTBENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_home() == tmp_path / "instbench" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_home() == tmp_path / ".cache" / "instbench" / "data"


def test_files_of_a_complete_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = _fill(tmp_path, "coco-val2017")
    annotations = folder / "annotations"
    expected = DatasetPaths(
        annotations / "instances_val2017.json", annotations / "captions_val2017.json", folder / "val2017"
    )
    assert dataset_paths("coco-val2017", tmp_path) == expected
    monkeypatch.setenv("INSTBENCH_DATA", str(tmp_path))
    assert dataset_paths("coco-val2017") == expected


def test_lvis_has_no_captions_and_two_folders_of_images(tmp_path: Path) -> None:
    folder = _fill(tmp_path, "lvis-v1-val")
    paths = dataset_paths("lvis-v1-val", tmp_path)
    assert paths == DatasetPaths(folder / "annotations" / "lvis_v1_val.json", None, folder)
    (folder / "train2017").rmdir()
    assert dataset_paths("lvis-v1-val", tmp_path).images is None


def test_images_may_be_absent(tmp_path: Path) -> None:
    _fill(tmp_path, "coco-val2017", images=False)
    assert dataset_paths("coco-val2017", tmp_path).images is None


def test_what_is_missing_is_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there; run `instbench data fetch coco-val2017`"):
        dataset_paths("coco-val2017", tmp_path)
    folder = _fill(tmp_path, "coco-val2017")
    (folder / "annotations" / "captions_val2017.json").unlink()
    with pytest.raises(InputError, match=r"captions_val2017.json: is missing; run `instbench data fetch"):
        dataset_paths("coco-val2017", tmp_path)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"no manifest.json, so it is not complete"):
        dataset_paths("coco-val2017", tmp_path)
    with pytest.raises(InputError, match=r"unknown data set 'coco' \(data sets: coco-val2017, lvis-v1-val\)"):
        dataset_paths("coco", tmp_path)
