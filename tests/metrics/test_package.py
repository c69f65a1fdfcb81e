from __future__ import annotations

import subprocess
import sys

import pytest

import metrics


def test_every_exported_name_loads() -> None:
    assert sorted(metrics._HOME) == sorted(metrics.__all__) == dir(metrics)
    for name in metrics.__all__:
        assert callable(getattr(metrics, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        metrics.nothing  # noqa: B018


def test_functions_do_not_need_torch() -> None:
    code = (
        "import sys, metrics; metrics.points_in_mask; metrics.frechet_distance; metrics.attribute_binding;"
        "metrics.coco_average_precision; sys.exit('torch' in sys.modules or 'instbench' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
