"""Paper and hybrid benchmarks from the command line, with the shipped weights and few images."""

from __future__ import annotations

import json

import pandas as pd

from instbench.cli.main import main


def results(folder) -> dict[str, float]:
    content = json.loads((folder / "results.json").read_text())
    return {name: record["value"] for name, record in content["metrics"].items()}


def test_real_images_under_the_paper_protocol(tmp_path, capsys):
    names = ["shapes-box", "shapes-mask", "shapes-point", "shapes-scribble"]
    options = ["--edition", "paper", "--model", "real-images", "--limit", "4", "-o", str(tmp_path)]
    assert main(["run", *names, *options]) == 0
    assert "shapes-scribble v1 paper" in capsys.readouterr().out
    assert results(tmp_path / "shapes-box")["box_ap50"] > 0.9
    assert results(tmp_path / "shapes-mask")["mask_ap50"] > 0.9
    assert results(tmp_path / "shapes-point")["pim_point"] > 0.9
    assert results(tmp_path / "shapes-scribble")["pim_scribble"] > 0.9
    assert main(["score", str(tmp_path / "shapes-scribble")]) == 0


def test_attributes_under_the_paper_protocol(tmp_path):
    names = ["shapes-color", "shapes-texture"]
    options = ["--edition", "paper", "--model", "real-images", "--limit", "4", "-o", str(tmp_path)]
    assert main(["run", *names, *options]) == 0
    for attribute in ("color", "texture"):
        values = results(tmp_path / f"shapes-{attribute}")
        assert set(values) == {f"{attribute}_accuracy_paper", f"{attribute}_clip_score_paper"}
        assert all(value is not None for value in values.values())
        rows = pd.read_parquet(tmp_path / f"shapes-{attribute}" / "instances.parquet")
        # Words are given out by annotation id, whatever the real objects look like.
        assert rows[f"asked_{attribute}"].nunique() > 1
        assert rows[f"{attribute}_seen"].notna().all()


def test_the_reference_model_under_the_paper_protocol(tmp_path):
    target = tmp_path / "run"
    options = ["--edition", "paper", "--limit", "2", "--num-inference-steps", "4", "-o", str(target)]
    assert main(["run", "shapes-scribble", *options]) == 0
    record = json.loads((target / "run.json").read_text())
    assert record["identity"]["edition"] == "paper"
    assert record["identity"]["conditions"] == ["box", "mask", "point", "scribble"]
    lines = [json.loads(line) for line in (target / "layouts.jsonl").read_text().splitlines()]
    for line in lines:
        assert (line["source_width"], line["source_height"]) == (512, 512)
        assert line["caption"].endswith(", ".join(one["category"] for one in line["instances"]))
    strict = ["--limit", "2", "--num-inference-steps", "4", "-o", str(target)]
    assert main(["run", "shapes-scribble", *strict]) == 2  # the other edition is another run


def test_the_reference_model_on_the_hybrid(tmp_path):
    options = ["--limit", "3", "--num-inference-steps", "4", "-o", str(tmp_path / "run")]
    assert main(["run", "shapes-hybrid", *options]) == 0
    rows = pd.read_parquet(tmp_path / "run" / "instances.parquet")
    assert rows["asked_as"].notna().all()
    content = json.loads((tmp_path / "run" / "results.json").read_text())["metrics"]
    scored = {name: record["n_scored"] for name, record in content.items()}
    for condition, metric in (
        ("box", "box_ap50"),
        ("mask", "mask_iou"),
        ("point", "point_hit_rate"),
        ("scribble", "scribble_hit_rate"),
    ):
        assert scored[metric] == (rows["asked_as"] == condition).sum()
        assert (content[metric]["value"] is None) == (scored[metric] == 0)
