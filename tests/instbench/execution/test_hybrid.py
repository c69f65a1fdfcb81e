from __future__ import annotations

import json

import pandas as pd
import pytest

from instbench import api
from instbench.errors import InputError
from instbench.layouts.types import Condition
from tests.instbench.fakes import write_benchmark, write_coco

METRICS = [
    {"name": "box_ap50", "params": {"asked_as": ["box"]}},
    {"name": "mask_iou", "params": {"asked_as": ["mask"]}},
    {"name": "point_hit_rate", "params": {"asked_as": ["point"]}},
    {"name": "scribble_hit_rate", "params": {"asked_as": ["scribble"]}},
]
FORMATS = [str(one) for one in Condition]


def hybrid(folder, **changes) -> str:
    write_coco(folder, images=12)
    fields = {"hybrid": True, "conditions": FORMATS, "metrics": METRICS, **changes}
    return str(write_benchmark(folder, name="toy-hybrid", **fields))


def test_every_format_is_scored_on_its_own_instances(tmp_path, fakes):
    # The fake draws what it is given a box for: the others are missing, and no box may leak to it.
    [outcome] = api.run(hybrid(tmp_path / "toy"), tmp_path / "run", model="fake")
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet")
    counts = rows["asked_as"].value_counts()
    assert counts.sum() == 24
    assert set(counts.index) == set(FORMATS)
    assert outcome.results is not None
    records = outcome.results.metrics
    assert records["box_ap50"].value == pytest.approx(1.0)
    for name, metric in (("box", "box_ap50"), ("mask", "mask_iou"), ("point", "point_hit_rate")):
        record = records[metric]
        assert (record.n_scored, record.n_unscored) == (counts[name], 24 - counts[name])
        assert record.reasons == {"asked in another format": 24 - counts[name]}
    assert records["mask_iou"].details["n_missing"] == counts["mask"]
    assert [records[name].value for name in ("mask_iou", "point_hit_rate", "scribble_hit_rate")] == [0, 0, 0]
    assert rows.loc[rows["asked_as"] == "point", "hit"].eq(False).all()
    assert rows.loc[rows["asked_as"] != "point", "hit"].isna().all()
    for request in fakes.generator.requests:
        for instance in request.layout.instances:
            assert (instance.box_xyxy is not None) == (instance.condition is Condition.BOX)


def test_layouts_say_in_which_format_each_instance_was_asked(tmp_path, fakes):
    api.run(hybrid(tmp_path / "toy"), tmp_path / "run", model="fake", limit=2)
    lines = (tmp_path / "run" / "layouts.jsonl").read_text().splitlines()
    asked = [one["condition"] for line in lines for one in json.loads(line)["instances"]]
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet")
    assert asked == rows["asked_as"].tolist()
    [again] = api.score(tmp_path / "run")
    assert again.results is not None
    assert pd.read_parquet(tmp_path / "run" / "instances.parquet").equals(rows)


def test_own_data_is_mixed_as_under_the_benchmarks_name(tmp_path, fakes):
    name = hybrid(tmp_path / "toy")
    api.run(name, tmp_path / "a", model="fake")
    data = tmp_path / "toy" / "instances.json"
    api.run(name, tmp_path / "b", model="fake", annotations=data)
    mixes = [pd.read_parquet(tmp_path / run / "instances.parquet")["asked_as"].tolist() for run in "ab"]
    assert mixes[0] == mixes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hybrid": False}, r"asked_as: \['box'\] must be a list of conditions of a hybrid benchmark"),
        ({"conditions": ["box", "point"]}, r"asked_as: \['mask'\] must be .*\(box, point\)"),
        ({"metrics": [{"name": "box_ap", "params": {"asked_as": "box"}}]}, "asked_as: 'box' must be a list"),
        ({"conditions": ["box"]}, "needs at least two conditions"),
        ({"edition": "paper"}, "the published code has no such benchmark"),
    ],
)
def test_formats_that_do_not_fit_are_refused_before_images_are_made(tmp_path, fakes, changes, message):
    edition = changes.get("edition", "strict")
    with pytest.raises(InputError, match=message):
        api.run(hybrid(tmp_path / "toy", **changes), tmp_path / "run", model="fake", edition=edition)
    assert fakes.generator.made == []
