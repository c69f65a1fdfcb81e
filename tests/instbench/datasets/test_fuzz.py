"""Damaged files of every kind: each is reported or works, and nothing but `InputError` comes out."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instbench.cli.main import main
from instbench.datasets.prepare import prepare_canvas
from instbench.datasets.reporting import validate_file
from instbench.errors import InputError
from instbench.layouts import from_coco
from instbench.layouts.ground_truth import canvas_ground_truth
from tests.instbench.datasets.fetching.world import lvis_content
from tests.instbench.layouts.builders import annotation, captions, coco, crowd, square

INSTANCES = coco(
    annotation(1),
    crowd(2),
    annotation(3, 2, attributes={"color": "red"}, captions=["a red cat"]),
    annotation(4, 2, segmentation=[square(1, 1, 5), square(30, 30, 8)], category_id=7),
    images=2,
)
RESULTS = [
    {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
    {"image_id": 1, "category_id": 7, "segmentation": {"size": [60, 80], "counts": [0, 4800]}, "score": 0.1},
]
FILES: dict[str, Any] = {
    "instances": INSTANCES,
    "captions": captions("A cat.", "A dog."),
    "results": RESULTS,
    "lvis": lvis_content(),
}

odd_values = st.sampled_from(
    [
        None, True, -1, 0, 2**53 + 1, 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf"), "", " ", "x",
        "\ud800", "../x", "/x", "a" * 5000, "~~", "P", [], [[]], {}, [1], [None], [[1, 2, 3]], [[1, 2] * 3],
        [[1e308] * 6], [float("nan")] * 4, [10**400] * 4, {"size": [60, 80], "counts": [10**400]},
        {"size": [60, 80], "counts": "P" * 99}, {"size": [10**9, 10**9], "counts": [10**18]}, {"counts": []},
    ]
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON tree, as the keys that lead there."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(tree: Any, path: tuple[Any, ...], value: Any, *, remove: bool) -> Any:
    """A copy of the tree with another value, or none, at one place."""
    if not path:
        return value
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    if remove:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return tree


def use(path: Path, kind: str, folder: Path) -> None:
    """Everything that reads such a file; any exception but `InputError` fails the test."""
    with contextlib.suppress(InputError):
        report = validate_file(path)
        json.dumps(report.to_json()).encode()
        assert all("\n" not in str(finding.problem) for finding in report.findings)
        "".join(str(finding.problem) for finding in report.findings).encode()  # can be printed
        if report.errors or kind in ("results", "captions"):
            return
        layouts = from_coco(path)
        assert sum(len(layout.instances) for layout in layouts) == report.counts["annotations"]
        canvas_ground_truth(layouts, 16)
        prepare_canvas(path, folder / "canvas", size=16)


@pytest.mark.parametrize("kind", sorted(FILES))
@given(data=st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_odd_values_anywhere(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    tree = FILES[kind]
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(list(places(tree))))
        tree = changed(tree, place, data.draw(odd_values), remove=data.draw(st.booleans()))
    path = folder / "file.json"
    path.write_text(json.dumps(tree))
    use(path, kind, folder)


@pytest.mark.parametrize("kind", sorted(FILES))
@given(data=st.data())
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_bytes_anywhere(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    raw = bytearray(json.dumps(FILES[kind]).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "file.json"
    path.write_bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    use(path, kind, folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"images":' * 50_000,
        b'{"images": [' + b"9" * 5000 + b"]}",
        json.dumps(INSTANCES).encode()[:-40],
        b"\x89PNG\r\n",
    ],
    ids=["empty", "mark", "lists", "objects", "digits", "truncated", "png"],
)
def test_unreadable_files_are_one_line(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    assert main(["validate", str(path)]) == 2
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    lines = (output.out + output.err).splitlines()
    assert any(str(path) in line for line in lines)
    assert len(lines) <= 4  # at most one per missing list and the summary
