from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from instbench.errors import InputError
from instbench.execution.crops import attribute_labels, attribute_prompts, crop_box

IMAGE = Image.new("RGB", (40, 30))
numbers = st.floats(-20, 60, allow_nan=False)


@given(numbers, numbers, numbers, numbers)
def test_a_crop_lies_inside_the_image(x0, y0, width, height):
    crop = crop_box(IMAGE, (x0, y0, x0 + abs(width), y0 + abs(height)))
    if crop is not None:
        assert 1 <= crop.width <= 40
        assert 1 <= crop.height <= 30


def test_a_crop_has_a_margin_and_none_is_made_outside():
    crop = crop_box(IMAGE, (10, 10, 20, 20))
    assert crop is not None
    assert crop.size == (12, 12)
    wide = crop_box(IMAGE, (10, 10, 35, 15))
    assert wide is not None
    assert wide.size == (29, 7)  # 8 % of each side, outwards to whole pixels
    assert crop_box(IMAGE, (50, 50, 60, 60)) is None


def test_the_words_in_use_choose_the_list():
    assert "pink" in attribute_labels("color", frozenset({"red"}))
    assert "dotted" in attribute_labels("texture", frozenset({"striped"}))
    assert "wooden" in attribute_labels("texture", frozenset({"glass"}))
    with pytest.raises(InputError, match="'mauve' belongs to no known list"):
        attribute_labels("color", frozenset({"red", "mauve"}))
    assert attribute_prompts(("red", "blue")) == ["a red object", "a blue object"]
