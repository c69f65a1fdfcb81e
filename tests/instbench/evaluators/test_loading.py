from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instbench.errors import InputError
from instbench.evaluators import SHIPPED, load_detector, load_features, load_image_text, shipped_folder
from instbench.evaluators.folders import (
    DetectorCard,
    ImageTextCard,
    card_kind,
    file_hashes,
    read_card,
    write_card,
)


def test_every_shipped_name_has_a_folder_with_figures() -> None:
    for name in SHIPPED:
        folder = shipped_folder(name)
        assert (folder / "evaluator.json").is_file()
        assert (folder / "README.md").is_file()
        assert card_kind(folder)
    with pytest.raises(InputError, match="known: shapes-yolo"):
        shipped_folder("other")


def test_unknown_names_get_a_hint() -> None:
    with pytest.raises(InputError, match="did you mean shapes-yolo"):
        load_detector("shape-yolo")
    with pytest.raises(InputError, match="did you mean shapes-clip"):
        load_image_text("shapes-clp")
    with pytest.raises(InputError, match="known: inception, inception-tf1, shapes-features"):
        load_features("other")


def test_roles_are_not_mixed_up() -> None:
    with pytest.raises(InputError, match="not 'detector'; use shapes-yolo"):
        load_detector("shapes-clip")


def test_wrong_card_kind_is_refused() -> None:
    with pytest.raises(InputError, match="field kind"):
        load_detector(shipped_folder("shapes-features"))


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"evaluator\.json: no such file"):
        load_features(tmp_path)


def test_cards_survive_writing(tmp_path: Path) -> None:
    card = DetectorCard(categories=("a", "b"), image_size=64, figures={"x": {"box_ap": 0.5}})
    write_card(tmp_path, card)
    assert read_card(tmp_path, DetectorCard) == card
    with pytest.raises(InputError, match="field"):
        read_card(tmp_path, ImageTextCard)
    (tmp_path / "evaluator.json").write_text("[]")
    with pytest.raises(InputError, match="expected an object"):
        read_card(tmp_path, DetectorCard)


def test_hashes_follow_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hashes(tmp_path, ["a"]) == {
        "a": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }


def test_import_is_light_and_leaves_the_environment_alone() -> None:
    code = (
        "import sys, instbench.evaluators as e; assert 'torch' not in sys.modules; "
        "import os; before = dict(os.environ); d = e.load_detector('shapes-yolo', device='cpu'); "
        "changed = {k for k in set(before) | set(os.environ) if before.get(k) != os.environ.get(k)}; "
        "assert not changed & {'YOLO_OFFLINE', 'YOLO_VERBOSE', 'OMP_NUM_THREADS'}, changed"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
