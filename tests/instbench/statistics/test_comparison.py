"""Comparing runs from their folders alone."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

from instbench import api
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.reports.comparison import FORMATS, write_comparison
from instbench.runs.store import RunFolder
from instbench.statistics.average_precision import ApSamples
from instbench.statistics.comparison import compare_runs
from instbench.statistics.samples import RatioSamples
from instbench.statistics.store import read_samples, write_samples


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The ceiling twice, under two names, the second with a worse number."""
    root = tmp_path_factory.mktemp("compare")
    api.run("shapes-real", root / "a", limit=6)
    shutil.copytree(root / "a", root / "b")
    folder = RunFolder(root / "b")
    samples = read_samples(folder.samples_npz)
    worse = RatioSamples(np.zeros(6), samples.metrics["mask_iou"].counts)
    write_samples(folder.samples_npz, samples.image_keys, {**samples.metrics, "mask_iou": worse})
    results = folder.read_results()
    results.metrics["mask_iou"].value = 0.0
    folder.write_results(results)
    record = folder.read_run()
    record.model = "=cmd|<script>"
    folder.write_run(record)
    return root / "a", root / "b"


def test_samples_come_back_as_they_were(runs, tmp_path):
    samples = read_samples(runs[0] / "samples.npz")
    results = RunFolder(runs[0]).read_results()
    for name, found in samples.metrics.items():
        assert found.value() == pytest.approx(results.metrics[name].value, abs=1e-6), name
    write_samples(tmp_path / "samples.npz", samples.image_keys, samples.metrics)
    again = read_samples(tmp_path / "samples.npz")
    assert again.image_keys == samples.image_keys
    tables = [one.table for one in again.metrics.values() if isinstance(one, ApSamples)]
    assert len({id(table) for table in tables}) < len(tables)  # shared, not copied


def test_every_number_has_an_interval(runs):
    for name, record in RunFolder(runs[0]).read_results().metrics.items():
        assert record.ci95 is not None, name
        assert record.ci95[0] <= record.value <= record.ci95[1], name


def test_what_differs_is_found_and_what_does_not_is_a_tie(runs):
    rows = {row.metric: row for row in compare_runs(list(runs)).rows}
    assert rows["mask_iou"].differences[1].significant
    assert rows["mask_iou"].groups == ("a", "b")
    assert rows["mask_iou"].win_rates[1].losses == 6
    assert rows["box_ap"].differences[1].p_adjusted == 1
    assert rows["box_ap"].groups == ("a", "a")
    assert rows["box_ap"].differences[0] is None
    turned = {row.metric: row for row in compare_runs(list(runs), baseline=1).rows}
    assert turned["mask_iou"].differences[0].value == -rows["mask_iou"].differences[1].value


def test_slices_and_means_over_objects(runs):
    comparison = compare_runs(list(runs), slices=True, objects=True)
    whole = {row.metric for row in comparison.rows if row.slice is None}
    assert {"box_iou", "found_rate"} <= whole
    assert any(row.slice == "category" for row in comparison.rows)


def test_formats(runs):
    comparison = compare_runs(list(runs), slices=True)
    texts = {name: write_comparison([comparison], name, win_rate=True) for name in FORMATS}
    table = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert len(table) == 2 * len(comparison.rows)
    assert {line["model"] for line in table} == {"real-images", "'=cmd|<script>"}
    assert json.loads(texts["json"])[0]["num_images"] == 6
    assert "<script>" not in texts["html"]
    assert "<script>" not in texts["markdown"]
    assert texts["latex"].count("\\begin{tabular}") == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 9}, "seed"),
        ({"edition": "paper"}, "edition"),
        ({"layouts_sha256": "0" * 64}, "layouts_sha256"),
        ({"evaluators": {}}, "evaluators"),
    ],
)
def test_runs_that_differ_in_more_than_the_model_are_refused(runs, tmp_path, change, named, capsys):
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    content = json.loads((other / "run.json").read_text())
    content["identity"] |= change
    (other / "run.json").write_text(json.dumps(content))
    assert main(["compare", str(runs[0]), str(other)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error


def test_the_command_line(runs, tmp_path, capsys):
    a, b = map(str, runs)
    assert main(["compare", a, b, "--win-rate", "--labels", "one", "two"]) == 0
    assert "two" in capsys.readouterr().out
    assert main(["compare", a, b, "--format", "csv", "-o", str(tmp_path / "table.csv")]) == 0
    assert (tmp_path / "table.csv").read_text().startswith("benchmark,")
    assert main(["compare", a]) == 2
    assert main(["compare", a, b, "--baseline", "2"]) == 2
    assert main(["compare", a, b, "--labels", "one"]) == 2


def test_damaged_samples_are_named(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    (other / "samples.npz").write_bytes(b"PK not a zip")
    with pytest.raises(InputError, match=r"samples\.npz: damaged"):
        compare_runs([runs[0], other])
    (other / "samples.npz").unlink()
    with pytest.raises(InputError, match="score it again"):
        compare_runs([runs[0], other])
