from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instbench.datasets.manifest import (
    FileRecord,
    Manifest,
    data_folders,
    read_manifest,
    verify_folder,
    write_manifest,
)
from instbench.errors import InputError
from instbench.runs.atomic import sha256_file


def make(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True)
    records = []
    for name, text in sorted(contents.items()):
        path = folder / name
        path.write_text(text)
        records.append(FileRecord(path=name, size=path.stat().st_size, sha256=sha256_file(path)))
    write_manifest(folder, Manifest(name="mine", kind="canvas", files=tuple(records)))
    return folder


def test_an_untouched_folder_passes(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", one="1", two="22")
    assert verify_folder(folder) == []
    assert verify_folder(folder, quick=True) == []


def test_all_differences_are_listed(tmp_path: Path) -> None:
    folder = make(tmp_path / "a", changed="abc", gone="1", linked="l", longer="1", same="1")
    (folder / "changed").write_text("abd")
    (folder / "gone").unlink()
    (folder / "longer").write_text("12")
    (folder / "linked").unlink()
    (folder / "linked").symlink_to(folder / "same")
    (folder / "extra").write_text("?")
    (folder / ".hidden").write_text("?")
    found = {problem.where: problem.message for problem in verify_folder(folder)}
    assert found == {
        "changed": "its SHA-256 differs; the content has changed",
        "extra": "is not in the manifest; move it elsewhere",
        "gone": "is missing",
        "linked": "is a link, not the file",
        "longer": "has 2 bytes, not 1",
    }
    assert "changed" not in {problem.where for problem in verify_folder(folder, quick=True)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "field schema_version"),
        (
            {"files": [{"path": "../x", "size": 1, "sha256": "0" * 64}]},
            "field files.0.path: .*plain relative name",
        ),
        ({"files": [{"path": "x", "size": -1, "sha256": "0" * 64}]}, "field files.0.size"),
        ({"files": [{"path": "x", "size": 1, "sha256": "zz"}]}, "field files.0.sha256"),
        ({"more": 1}, "field more"),
    ],
)
def test_bad_manifests_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = make(tmp_path / "a", one="1")
    data = json.loads((folder / "manifest.json").read_text()) | change
    (folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=rf"manifest.json: {message}") as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)


def test_folders_without_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no manifest.json; only fetched or prepared"):
        verify_folder(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        verify_folder(tmp_path / "none")


def test_targets_are_names_folders_or_folders_of_folders(tmp_path: Path) -> None:
    home = tmp_path / "home"
    one, two = make(home / "coco-val2017", a="1"), make(home / "other", a="1")
    assert data_folders("coco-val2017", home) == [one]
    assert data_folders(str(two)) == [two]
    assert data_folders(str(home)) == [one, two]
    with pytest.raises(InputError, match="run `instbench data fetch lvis-v1-val`"):
        data_folders("lvis-v1-val", home)
    with pytest.raises(InputError, match="no such folder; data sets by name: coco-val2017, lvis-v1-val"):
        data_folders(str(tmp_path / "none"))
