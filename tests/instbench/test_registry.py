from __future__ import annotations

import pytest

from instbench.errors import InputError
from instbench.registry import DETECTORS, Entry, Registry, load_evaluator, load_generator, load_target
from tests.instbench.fakes import FakeGenerator


def make_counting(batch_size: int = 1, device: str = "none") -> FakeGenerator:
    generator = FakeGenerator()
    generator.options = (batch_size, device)  # type: ignore[attr-defined]
    return generator


def make_from_folder(folder) -> FakeGenerator:
    return FakeGenerator()


def test_unknown_names_get_the_nearest_known_ones():
    registry = Registry("thing", "instbench.nothing", (Entry("alpha", "", "a:b"), Entry("beta", "", "a:b")))
    with pytest.raises(InputError, match=r"unknown thing 'alpah'; did you mean alpha\?"):
        registry.get("alpah")
    with pytest.raises(InputError, match="known: alpha, beta"):
        registry.get("zzz")
    with pytest.raises(InputError, match="registered already"):
        registry.add(Entry("alpha", "", "c:d"))


@pytest.mark.parametrize("target", ["json", "json:", ":loads", "json:no_such"])
def test_a_wrong_target_is_refused(target):
    with pytest.raises(InputError):
        load_target(target, "model")


def test_a_factory_gets_the_options_that_it_names():
    generator = load_generator(f"{__name__}:make_counting", batch_size=7, device="cpu", dtype="float32")
    assert generator.options == (7, "cpu")


def test_a_folder_that_a_model_needs_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="needs a folder of images"):
        load_generator(f"{__name__}:make_from_folder")
    assert load_generator(f"{__name__}:make_from_folder", checkpoint=tmp_path)


def test_something_that_is_no_generator_is_refused():
    with pytest.raises(InputError, match="has no 'conditions'"):
        load_generator("builtins:dict")


def test_unknown_evaluators_are_refused():
    assert "shapes-yolo" in DETECTORS
    with pytest.raises(InputError, match="did you mean shapes-yolo"):
        load_evaluator("detector", "shapes-yol")
