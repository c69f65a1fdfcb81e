from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metrics import check_reference, load_reference, make_reference, save_reference

FACTS = {"ids_sha256": "abc", "count": 6, "resize": "square 512", "extractor_sha256": "def"}
FEATURES = np.random.default_rng(0).random((6, 4)).astype(np.float32)


@pytest.mark.parametrize("keep", [True, False])
def test_round_trip(tmp_path: Path, keep: bool) -> None:
    reference = make_reference(FEATURES, FACTS, keep_features=keep)
    path = tmp_path / "sub" / "reference.safetensors"
    save_reference(reference, path)
    loaded = load_reference(path)
    assert loaded.facts == FACTS
    assert loaded.statistics.count == 6
    np.testing.assert_array_equal(loaded.statistics.covariance, reference.statistics.covariance)
    assert (loaded.features is not None) is keep
    assert [file.name for file in path.parent.iterdir()] == ["reference.safetensors"]


def test_another_reference_is_refused_and_says_what_differs() -> None:
    check_reference(FACTS, dict(FACTS))
    other = {**FACTS, "count": 7, "resize": "center crop 512"}
    with pytest.raises(
        ValueError, match=r'count is 7, needed 6; resize is "center crop 512", needed "square 512"'
    ):
        check_reference(FACTS, other)
    with pytest.raises(ValueError, match=r"mine: another reference \(count is null, needed 6\)"):
        check_reference(FACTS, {key: value for key, value in FACTS.items() if key != "count"}, "mine")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    with pytest.raises(ValueError, match=r"reference\.safetensors: cannot be read as a reference"):
        load_reference(path)
    save_reference(make_reference(FEATURES, FACTS), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="cannot be read as a reference"):
        load_reference(path)
    from safetensors.numpy import save_file

    save_file({"mean": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="no reference of this format"):
        load_reference(path)
    metadata = {"format": "instbench-reference-1", "count": "2", "facts": "{}"}
    save_file({"mean": np.zeros(3), "covariance": np.zeros((2, 2))}, path, metadata)
    with pytest.raises(ValueError, match="do not fit together"):
        load_reference(path)
    save_file({"mean": np.zeros(3)}, path, metadata)
    with pytest.raises(ValueError, match="incomplete"):
        load_reference(path)


def test_too_few_images() -> None:
    with pytest.raises(ValueError, match="a covariance needs at least 2"):
        make_reference(FEATURES[:1], FACTS)
