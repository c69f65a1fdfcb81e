from __future__ import annotations

import pytest
import yaml

from instbench.benchmarks import benchmark_names, load_benchmark
from instbench.benchmarks.loading import benchmark_files, read_benchmark
from instbench.errors import InputError
from instbench.execution.catalog import METRICS, asked_attributes
from instbench.execution.layouts import checked_layouts
from instbench.registry import EVALUATOR_ROLES
from tests.instbench.fakes import write_benchmark


@pytest.mark.parametrize("name", benchmark_names())
def test_every_benchmark_names_things_that_exist(name):
    benchmark = load_benchmark(name)
    assert benchmark.name == name
    for metric in benchmark.metrics:
        assert metric.name in METRICS
    for role, evaluator in benchmark.evaluators.model_dump(exclude_none=True).items():
        assert evaluator in EVALUATOR_ROLES[role][0]
    if asked_attributes(benchmark):
        assert benchmark.evaluators.image_text is not None
    assert (benchmark.conditions == ()) == (benchmark.generator == "real-images")


def test_the_layouts_of_a_benchmark_are_those_that_were_frozen():
    layouts = checked_layouts(load_benchmark("shapes-box"))
    assert len(layouts) == 256
    assert all(layout.requested for layout in layouts)
    asked = checked_layouts(load_benchmark("shapes-color"), 8)
    assert all(instance.color and not instance.texture for layout in asked for instance in layout.requested)


@pytest.mark.parametrize(("name", "edition"), [("shapes-box", "paper"), ("shapes-hybrid", "strict")])
def test_other_rules_make_other_frozen_layouts(name, edition):
    benchmark = load_benchmark(name, edition)
    assert len(checked_layouts(benchmark)) == 256
    assert benchmark.dataset.layouts_sha256 != load_benchmark("shapes-box").dataset.layouts_sha256


def test_paper_benchmarks_without_attributes_share_their_layouts():
    names = ("shapes-box", "shapes-mask", "shapes-point", "shapes-scribble")
    assert len({load_benchmark(name, "paper").dataset.layouts_sha256 for name in names}) == 1


def test_other_layouts_are_refused():
    benchmark = load_benchmark("shapes-box")
    data = benchmark.dataset.model_copy(update={"layouts_sha256": "0" * 64})
    with pytest.raises(InputError, match="the layouts of shapes-box changed: expected SHA-256 0000"):
        checked_layouts(benchmark.model_copy(update={"dataset": data}), 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conditions": ["boxes"]}, "field conditions.0"),
        ({"colour": "red"}, "field colour"),
        ({"metrics": []}, "field metrics"),
        ({"metrics": [{"name": "fid"}, {"name": "fid"}]}, "twice"),
        ({"sampling": {"alpha": 2}}, "field sampling.alpha"),
        ({"name": "../x"}, "field name"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path, change, message):
    path = write_benchmark(tmp_path)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))
    with pytest.raises(InputError, match=message) as caught:
        load_benchmark(str(path))
    assert str(path) in str(caught.value)


def test_yaml_tags_are_not_executed(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(InputError, match="unreadable"):
        load_benchmark(str(path))


def test_paths_of_a_file_are_meant_from_its_folder(tmp_path):
    benchmark = load_benchmark(str(write_benchmark(tmp_path)))
    assert benchmark.dataset.annotations == tmp_path / "instances.json"
    assert len(checked_layouts(benchmark, 3)) == 3


def test_prose_is_no_part_of_the_protocol_but_metrics_are(tmp_path):
    benchmark = load_benchmark("shapes-box")
    other = benchmark.model_copy(update={"description": "x", "baseline": "y"})
    assert other.protocol_sha256() == benchmark.protocol_sha256()
    fewer = benchmark.model_copy(update={"metrics": benchmark.metrics[:1]})
    assert fewer.protocol_sha256() != benchmark.protocol_sha256()


def test_a_file_of_ones_own_may_not_take_a_known_name(tmp_path):
    path = write_benchmark(tmp_path, name="shapes-box")
    with pytest.raises(InputError, match="'shapes-box' is the name of another benchmark"):
        load_benchmark(str(path))
    known = benchmark_files()["shapes-box"]["strict"]
    assert load_benchmark(str(known)) == load_benchmark("shapes-box")


@pytest.mark.parametrize("text", ["[" * 5000, "version: 2020-99-99\n", "version: " + "9" * 6000 + "\n"])
def test_what_yaml_cannot_read_is_an_input_error(text, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"bad\.yaml: unreadable"):
        read_benchmark(path)
