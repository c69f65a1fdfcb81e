"""The named ways in which the paper edition departs from the strict one.

Every ``paper`` benchmark lists those that touch its numbers, so that a reader of the file, of
``instbench ls benchmarks --verbose`` or of a results table knows what is emulated.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DEVIATIONS"]

DEVIATIONS: Mapping[str, str] = {
    "leaked-conditions": (
        "the published test configuration shows more formats than the benchmark is named after"
    ),
    "crowds-shown": "crowd regions condition the model like objects",
    "over-30-in-ground-truth": (
        "the first 30 annotations in file order are shown; the others stay in prompt and ground truth"
    ),
    "prompt-no-separator": "caption and names of all annotations with nothing between them",
    "point-box-centre": "the point is the centre of the box, on the object or not",
    "scribble-scale": "scribbles are drawn on the 512 x 512 mask but divided by the size of the image",
    "single-instance-segment": (
        "in an image with exactly one annotation the segment branch gets the mask's top row in place of every row"
    ),
    "jpeg-q75": "evaluators see the image after JPEG compression at quality 75",
    "pim-greedy": (
        "points in mask: greedy matching blind to class and confidence, what is unmatched is dropped, "
        "mean of image means"
    ),
    "pim-redrawn-scribble": "points in mask: scribble points are drawn again from the mask when scoring",
    "attribute-input-box": (
        "attributes are read from the crop of the asked box, drawn or not, crowds included; mean of image means"
    ),
    "derived-seeds": "the published scripts set no seed; noise and points come from our derived seeds",
}
"""What each name means, in one line."""
