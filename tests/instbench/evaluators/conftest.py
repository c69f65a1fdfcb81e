from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from instbench.datasets.shapes import export_coco, shapes_dataset


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve standard scenes as a COCO-format folder."""
    return export_coco("shapes", "val", 12, tmp_path_factory.mktemp("scenes") / "shapes-val")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    data = shapes_dataset("shapes", "val", 24)
    return [data.image(image_id) for image_id in data.image_ids]
