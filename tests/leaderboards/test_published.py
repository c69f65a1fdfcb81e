"""The published numbers are plausible and have sources."""

import pytest

from leaderboards.published import read_published


def test_numbers_are_plausible():
    numbers = read_published()
    assert len(numbers) > 1000
    for one in numbers:
        assert one.source
        assert not one.source_url or one.source_url.startswith("https://")
        assert one.confidence in {"seen_verbatim", "seen_in_secondary_source"}
        if one.unit == "ratio":
            assert 0 <= one.value <= 1, one
        if one.metric == "FID":
            assert one.value > 0
            assert not one.higher_is_better


def test_directions_agree_within_a_metric():
    directions = {}
    for one in read_published():
        directions.setdefault((one.benchmark, one.metric), set()).add(one.higher_is_better)
    assert {key for key, found in directions.items() if len(found) > 1} == set()


def test_known_numbers_are_there():
    found = {(one.method, one.benchmark, one.metric): one.value for one in read_published()}
    assert found["InstanceDiffusion", "coco-box", "AP"] == 38.8
    assert found["real images (upper bound)", "coco-box", "AP50"] == 66.7


@pytest.mark.parametrize(
    ("row", "field"),
    [("m,b,AP,nan,%,true,,,,s,,c", "value"), ("m,b,AP,101,%,true,,,,s,,c", "value"),
     ("m,b,AP,x,%,true,,,,s,,c", "no number"), ("m,b,AP,1,%,yes,,,,s,,c", "yes"), ("m,b,AP,1,%,true,,,,,,c", "source")],
)  # fmt: skip
def test_bad_lines_are_named(tmp_path, row, field):
    file = tmp_path / "published.csv"
    head = "method,benchmark,metric,value,unit,higher_is_better,detector_or_evaluator,resolution,n_images"
    file.write_text(f"{head},source,source_url,confidence\n{row}\n")
    with pytest.raises(ValueError, match=f"line 2: .*{field}"):
        read_published(file)
