"""Engines that compute COCO average precision, behind one small interface.

An engine gets prepared data (see `prepare`) and returns COCOeval's numbers and arrays. ``"auto"`` names the
engine used by default; another engine may take its place only if it gives the same numbers.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from metrics.functional.regions import IouType

__all__ = ["Engine", "EngineOutput", "PreparedPair", "engine_names", "get_engine", "register_engine"]

AUTO = "auto"
_DEFAULT = "pycocotools"


@dataclass(frozen=True, slots=True)
class PreparedPair:
    """Ground truth and detections, checked and complete.

    Attributes:
        ground_truth: COCO dictionary with the selected images only; ignore regions have ``iscrowd = 1``.
        detections: COCO results on those images; may be empty. Engines may change these entries.
    """

    ground_truth: dict[str, Any]
    detections: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """What an engine returns.

    Attributes:
        stats: float64 [12], COCOeval.stats; -1 where there is nothing to score.
        precision: float64 [T, R, K, A, M]: 10 IoU thresholds, 101 recalls, categories by id, areas (all,
            small, medium, large), maximum detections (1, 10, 100); -1 where there is nothing to score.
        recall: float64 [T, K, A, M].
    """

    stats: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


Engine: TypeAlias = Callable[[PreparedPair, IouType], EngineOutput]


def _silently(action: Callable[[], Any]) -> Any:
    # pycocotools writes its progress to standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        return action()


def _coco(dataset: Mapping[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dict(dataset)
    coco.createIndex()
    return coco


def _load_results(truth: COCO, detections: Sequence[dict[str, Any]]) -> COCO:
    if detections:
        return truth.loadRes(list(detections))
    return _coco({**truth.dataset, "annotations": []})


def pycocotools_engine(pair: PreparedPair, iou_type: IouType) -> EngineOutput:
    """COCOeval of pycocotools, the reference."""

    def evaluate() -> COCOeval:
        truth = _coco(pair.ground_truth)
        evaluation = COCOeval(truth, _load_results(truth, pair.detections), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation

    evaluation = _silently(evaluate)
    return EngineOutput(
        stats=np.asarray(evaluation.stats, dtype=np.float64),
        precision=evaluation.eval["precision"],
        recall=evaluation.eval["recall"],
    )


_ENGINES: dict[str, Engine] = {"pycocotools": pycocotools_engine}


def register_engine(name: str, engine: Engine) -> None:
    """Add an engine.

    Raises:
        ValueError: If the name is taken.
    """
    if name == AUTO or name in _ENGINES:
        raise ValueError(f"engine: {name!r} is taken; choose another name")
    _ENGINES[name] = engine


def engine_names() -> list[str]:
    """Names that `get_engine` knows."""
    return [AUTO, *sorted(_ENGINES)]


def get_engine(name: str) -> Engine:
    """The engine of that name; ``"auto"`` is the default engine.

    Raises:
        ValueError: If there is none.
    """
    try:
        return _ENGINES[_DEFAULT if name == AUTO else name]
    except KeyError:
        raise ValueError(f"engine: {name!r} is unknown; use one of {', '.join(engine_names())}") from None
