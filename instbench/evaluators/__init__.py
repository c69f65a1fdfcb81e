"""Evaluators: detectors, image-text models and feature extractors that look at images."""

from instbench.evaluators.base import Detections, Detector, FeatureExtractor, ImageTextModel
from instbench.evaluators.loading import (
    SHIPPED,
    load_detector,
    load_features,
    load_image_text,
    shipped_folder,
)

__all__ = [
    "SHIPPED",
    "Detections",
    "Detector",
    "FeatureExtractor",
    "ImageTextModel",
    "load_detector",
    "load_features",
    "load_image_text",
    "shipped_folder",
]
