"""The page on benchmarks names every metric that a benchmark lists."""

from pathlib import Path

from instbench.benchmarks.loading import benchmark_files, read_benchmark

DOCS = Path(__file__).parents[3] / "docs"


def test_every_metric_of_a_benchmark_is_defined() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    names = {
        metric.name
        for editions in benchmark_files().values()
        for path in editions.values()
        for metric in read_benchmark(path).metrics
    }
    assert len(names) > 20
    shortened = {"texture_": "color_", "lvis_mask_": "lvis_box_", "lvis_box_ap": "..._ap"}
    for name in sorted(names):
        known = f"`{name}`" in text
        for old, new in shortened.items():
            known |= f"`{name.replace(old, new)}`" in text
            known |= f"`{name.replace('lvis_mask_', 'lvis_box_').replace(old, new)}`" in text
        assert known, name
