from __future__ import annotations

from xml.etree import ElementTree

import pytest

from instbench.reports.dot_plot import Dot, Panel, _round_end, dot_plot


def shapes(text: str, tag: str) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(text)  # noqa: S314
    return [one for one in root.iter() if one.tag.endswith("}" + tag)]


def test_dots_and_whiskers_lie_on_the_axis():
    panel = Panel("ap", (Dot(0.5, (0.25, 0.75)), Dot(1.0)), top=1.0)
    text = dot_plot("t", ["a", "b"], [panel])
    left, middle, right = (float(line.get("x1")) for line in shapes(text, "line")[0:5:2])
    first, second = (float(dot.get("cx")) for dot in shapes(text, "circle"))
    assert (first, second) == (middle, right)
    [whisker] = [one for one in shapes(text, "line") if one.get("stroke-width") == "2"]
    assert float(whisker.get("x1")) == pytest.approx(left + (right - left) * 0.25, abs=0.1)
    assert float(whisker.get("x2")) == pytest.approx(left + (right - left) * 0.75, abs=0.1)


def test_free_axis_holds_every_number_and_unknown_ones_have_no_dot():
    text = dot_plot(
        "t", ["a", "b", "c"], [Panel("fid", (Dot(40.0, (30.0, 90.0)), Dot(None), Dot(8.0)), top=None)]
    )
    assert len(shapes(text, "circle")) == 2
    assert float(shapes(text, "text")[-1].text) == 100


def test_words_are_data():
    text = dot_plot("<script>", ["a & b"], [Panel("</svg>", (Dot(0.1),))])
    assert shapes(text, "script") == []
    assert {"<script>", "a & b", "</svg>"} <= {one.text for one in shapes(text, "text")}


def test_an_open_axis_ends_at_a_round_number() -> None:
    ends = {0.013: 0.02, 0.02: 0.02, 1.0: 1.0, 5.5: 6.0, 25.2: 40.0, 88.99: 100.0, 703.5: 800.0}
    for largest, end in ends.items():
        assert _round_end(largest) == pytest.approx(end)
