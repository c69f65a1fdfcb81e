"""Comparing runs from their folders alone."""

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from instbench import api
from instbench.cli.main import main
from instbench.errors import InputError
from instbench.reports.comparison import FORMATS, write_comparison
from instbench.runs.store import RunFolder
from instbench.statistics.average_precision import ApSamples
from instbench.statistics.comparison import ComparisonRow, _win_rate, compare_runs
from instbench.statistics.intervals import holm, wilson_interval
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
    there, back = rows["mask_iou"].differences[1], turned["mask_iou"].differences[0]
    assert (back.value, back.ci95) == (-there.value, (-there.ci95[1], -there.ci95[0]))
    # All numbers of a comparison are one family.
    differences = [row.differences[1] for row in rows.values()]
    assert [one.p_adjusted for one in differences] == holm([one.p_value for one in differences])
    assert there.p_adjusted > there.p_value


def test_ties_narrow_the_interval_of_a_win_rate():
    """Nine images of ten are ties: that a rate lies near one half is surer than of as many coins."""
    runs = [RatioSamples(np.array([*first, *[1.0] * 90]), np.ones(100)) for first in ([0.0] * 10, [1.0] * 10)]
    row = ComparisonRow("b", "m", "fraction", True, None, None, (), (), ())
    found = _win_rate(row, *runs)
    assert (found.wins, found.ties, found.losses, found.rate) == (10, 90, 0, 0.55)
    assert 0.5 < found.ci95[0] < found.rate < found.ci95[1] < 0.6
    lost = _win_rate(replace(row, higher_is_better=False), *runs)
    assert (lost.wins, lost.losses) == (0, 10)
    assert _win_rate(row, runs[0], runs[0]).ci95 == pytest.approx(wilson_interval(0.5, 100))


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
        ({"benchmark": "shapes-box"}, "benchmark"),
        ({"benchmark_version": 99}, "benchmark_version"),
        ({"protocol_sha256": "0" * 64}, "protocol_sha256"),
        ({"dataset": {}}, "dataset"),
        ({"layouts_count": 5}, "layouts_count"),
        ({"conditions": ["box"]}, "conditions"),
        ({"canvas_size": 64}, "canvas_size"),
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
    assert main(["compare", a, b, "-o", str(tmp_path / "table.tex")]) == 0
    assert (tmp_path / "table.tex").read_text().startswith("%")
    capsys.readouterr()
    for place, word in (("table.txt", "is for the terminal"), ("none/table.csv", "no folder")):
        assert main(["compare", a, b, "-o", str(tmp_path / place)]) == 2
        error = capsys.readouterr().err
        assert word in error
        assert error.count("\n") == 1
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


def _with(source, target, *, metrics=None, **identity):
    """A copy of a run with another identity, and other samples of some numbers."""
    shutil.copytree(source, target)
    content = json.loads((target / "run.json").read_text())
    content["identity"] |= identity
    (target / "run.json").write_text(json.dumps(content))
    if metrics:
        folder = RunFolder(target)
        samples = read_samples(folder.samples_npz)
        write_samples(folder.samples_npz, samples.image_keys, {**samples.metrics, **metrics})
        results = folder.read_results()
        for name, one in metrics.items():
            results.metrics[name].value = one.value()
        folder.write_results(results)
    return target


@pytest.fixture(scope="module")
def repeats(runs, tmp_path_factory):
    """Two models with two repeats each; the mask IoU of the second model differs between its seeds."""
    root = tmp_path_factory.mktemp("repeats")
    counts = read_samples(runs[0] / "samples.npz").metrics["mask_iou"].counts
    half = RatioSamples(counts * [0.0, 1.0, 0.5, 0.5, 1.0, 0.0], counts)
    return (
        [runs[0], _with(runs[0], root / "a1", seed=1)],
        [runs[1], _with(runs[1], root / "b1", seed=1, metrics={"mask_iou": half})],
    )


def test_runs_that_differ_in_the_seed_alone_are_repeats_of_one_model(runs, repeats):
    once = compare_runs(list(runs), slices=True, objects=True)
    comparison = compare_runs([list(reversed(group)) for group in repeats], slices=True, objects=True)
    assert (once.seeds, comparison.seeds, comparison.num_images) == ((0,), (0, 1), 6)
    assert [row.metric for row in comparison.rows] == [row.metric for row in once.rows]
    rows, single = ({row.metric: row for row in one.rows if row.slice is None} for one in (comparison, once))
    numbers = [RunFolder(folder).read_results().metrics["mask_iou"].value for folder in repeats[1]]
    assert rows["mask_iou"].estimates[1].value == pytest.approx(np.mean(numbers))
    assert rows["mask_iou"].estimates[1].n_scored == 2 * single["mask_iou"].estimates[1].n_scored
    assert rows["mask_iou"].win_rates[1].losses + rows["mask_iou"].win_rates[1].ties == 6
    # The same run twice tells nothing new: copies of a run leave numbers and intervals as they are.
    for name in ("box_ap", "mask_iou", "fid", "box_iou"):
        if name in rows:
            assert rows[name].estimates[0].value == pytest.approx(single[name].estimates[0].value, abs=1e-9)
            assert rows[name].estimates[0].ci95 == pytest.approx(single[name].estimates[0].ci95, abs=1e-9)


def test_repeats_are_named_in_every_format(repeats):
    comparison = compare_runs(repeats)
    words = "6 layouts x 2 repeats (seeds 0, 1)"
    for name in ("markdown", "latex", "html"):
        assert words in write_comparison([comparison], name), name
    assert json.loads(write_comparison([comparison], "json"))[0]["seeds"] == [0, 1]
    lines = csv.DictReader(io.StringIO(write_comparison([comparison], "csv")))
    assert {line["repeats"] for line in lines} == {"2"}


def test_the_command_line_takes_repeats_with_commas(repeats, tmp_path, capsys, monkeypatch):
    a, b = (",".join(map(str, group)) for group in repeats)
    assert main(["compare", a, b]) == 0
    assert "2 repeats" in capsys.readouterr().out
    assert main(["compare", a]) == 2
    assert main(["compare", f"{a},", b]) == 2
    assert "a run is missing beside a comma" in capsys.readouterr().err
    shutil.copytree(repeats[0][0], tmp_path / "one,two")
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "one,two", str(repeats[1][0])]) == 0
    assert "repeats" not in capsys.readouterr().out


def test_groups_that_are_no_repeats_are_refused(runs, repeats, tmp_path):
    other = _with(runs[0], tmp_path / "other", seed=1, sampling={"alpha": 0.5})
    with pytest.raises(InputError, match=r"no repeats of one model; besides the seed they differ in .*alpha"):
        compare_runs([[runs[0], other], repeats[1]])
    copy = _with(runs[0], tmp_path / "copy")
    with pytest.raises(InputError, match="have the same seed 0; repeats need a seed each"):
        compare_runs([[runs[0], copy], repeats[1]])
    with pytest.raises(InputError, match=r"they differ in seeds \(0, 1 and 0\)"):
        compare_runs([repeats[0], runs[1]])
    third = _with(runs[1], tmp_path / "third", seed=2)
    with pytest.raises(InputError, match=r"they differ in seeds \(0, 1 and 0, 2\)"):
        api.compare([repeats[0], [str(runs[1]), third]])


def test_repeats_in_folders_of_runs_are_matched_by_benchmark(repeats, tmp_path):
    for number, group in enumerate(zip(*repeats, strict=True)):
        for name, folder in zip("ab", group, strict=True):
            shutil.copytree(folder, tmp_path / f"{name}{number}" / "real")
            record = json.loads((folder / "run.json").read_text())
            record["benchmark"]["name"] = "unshared" + name
            shutil.copytree(folder, tmp_path / f"{name}{number}" / "z")
            (tmp_path / f"{name}{number}" / "z" / "run.json").write_text(json.dumps(record))
    paths = [[tmp_path / f"{name}{number}" for number in (0, 1)] for name in "ab"]
    [comparison] = api.compare(paths)
    assert (comparison.benchmark, comparison.seeds) == ("shapes-real", (0, 1))
