from __future__ import annotations

import pytest
from PIL import Image

from instbench.errors import InputError
from instbench.runs.records import RunRecord
from instbench.runs.store import RunFolder


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    return folder


def test_an_image_is_there_only_if_it_is_whole_and_of_the_right_size(run):
    assert not run.has_image("a", 8)
    run.write_image("a", Image.new("RGB", (8, 8), "red"))
    assert run.has_image("a", 8)
    assert not run.has_image("a", 16)
    path = run.images / "a.png"
    path.write_bytes(path.read_bytes()[:-20])
    assert not run.has_image("a", 8)


def test_another_format_under_the_name_of_a_png_is_no_image(run):
    Image.new("RGB", (8, 8)).save(run.images / "a.png", format="BMP")
    assert not run.has_image("a", 8)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"no run \(thesis.tex\)"):
        RunFolder(tmp_path).check_usable()
    with pytest.raises(InputError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").check_usable()


def test_clear_deletes_only_our_own_files(run):
    run.write_image("a", Image.new("RGB", (8, 8)))
    run.write_run(RunRecord(identity={}, identity_sha256="x", model="m", benchmark={}))
    (run.root / "notes.txt").write_text("mine")
    (run.images / "Notes.txt").write_text("mine")
    run.clear()
    left = sorted(path.name for path in run.root.rglob("*") if path.is_file())
    assert left == ["Notes.txt", "notes.txt"]


def test_clear_does_not_follow_a_link(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.png").write_bytes(b"x")
    run.images.rmdir()
    run.images.symlink_to(elsewhere)
    run.clear()
    assert (elsewhere / "a.png").exists()


def test_a_torn_line_of_the_log_is_skipped(run):
    run.log_image({"image_key": "a", "seed": 1})
    run.log_image({"image_key": "a", "seed": 2})
    with run.images_jsonl.open("a") as stream:
        stream.write('{"image_key": "b", "se')
    assert run.read_image_log() == {"a": {"image_key": "a", "seed": 2}}


def test_a_broken_run_json_is_one_line(run):
    run.run_json.write_text('{"identity": {')
    with pytest.raises(InputError, match=r"run.json: unreadable .*--fresh"):
        run.check_identity({})
    run.run_json.write_text("{}")
    with pytest.raises(InputError, match="field identity"):
        run.read_run()


def test_pictures_without_a_record_are_not_taken_for_ours(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.prepare()
    run.check_usable()
    run.write_image("a", Image.new("RGB", (8, 8)))
    with pytest.raises(InputError, match=r"no run \(images\)"):
        run.check_usable()


def test_an_interrupted_clear_still_says_which_run_the_pictures_are_of(run, monkeypatch):
    run.write_run(RunRecord(identity={"seed": 1}, identity_sha256="x", model="m", benchmark={}))
    for key in ("a", "b"):
        run.write_image(key, Image.new("RGB", (8, 8)))
    deleted = []

    def unlink(path, missing_ok=False):
        if deleted:
            raise KeyboardInterrupt
        deleted.append(path)

    monkeypatch.setattr("pathlib.Path.unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        run.clear()
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"seed \(1 there, 2 now\)"):
        run.check_identity({"seed": 2})


def test_a_line_after_a_torn_one_is_not_lost(run):
    with run.images_jsonl.open("w") as stream:
        stream.write('{"image_key": "b", "se')
    run.log_image({"image_key": "a", "seed": 1})
    assert run.read_image_log() == {"a": {"image_key": "a", "seed": 1}}
