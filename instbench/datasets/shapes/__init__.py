"""Shapes, the offline world: scenes, pictures and COCO-format data from a seed."""

from instbench.datasets.shapes.dataset import ShapesDataset, export_coco, shapes_dataset
from instbench.datasets.shapes.world import COLORS, SPLITS, TEXTURES, WORLDS, WorldSpec, get_world

__all__ = ["COLORS", "SPLITS", "TEXTURES", "WORLDS", "ShapesDataset", "WorldSpec", "export_coco", "get_world"]
__all__ += ["shapes_dataset"]
