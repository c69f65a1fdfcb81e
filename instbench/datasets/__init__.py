"""Datasets: COCO-format files, their validation, and the offline world Shapes."""

from instbench.datasets.coco import CocoAnnotation, CocoAnnotations, CocoCaptions, CocoImage
from instbench.datasets.validation import Problem, Severity, check_annotations, check_captions

__all__ = [
    "CocoAnnotation",
    "CocoAnnotations",
    "CocoCaptions",
    "CocoImage",
    "Problem",
    "Severity",
    "check_annotations",
    "check_captions",
]
