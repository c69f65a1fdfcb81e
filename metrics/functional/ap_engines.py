"""Engines that compute COCO average precision, behind one small interface.

An engine gets prepared data (`PreparedPair`) and returns COCOeval's numbers and arrays. ``"auto"`` names the
engine used by default, the fastest one that gives the same numbers as pycocotools.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from metrics.functional.detection_table import DetectionTable
from metrics.functional.regions import IouType

__all__ = [
    "Engine",
    "EngineOutput",
    "PreparedPair",
    "engine_names",
    "get_engine",
    "register_engine",
]

logger = logging.getLogger(__name__)

AUTO = "auto"


@dataclass(frozen=True)
class PreparedPair:
    """Ground truth and detections, checked and complete.

    Attributes:
        ground_truth: COCO dictionary with the selected images only; ignore regions have ``iscrowd = 1``.
        table: Detections on those images; may be empty. ``segmentations`` are run lengths; they are None where
            boxes alone are compared, boxes are NaN where masks alone are given.
    """

    ground_truth: dict[str, Any]
    table: DetectionTable

    def results(self) -> list[dict[str, Any]]:
        """The detections as a new COCO results list, which an engine may change."""
        table = self.table
        entries: list[dict[str, Any]] = [
            {"image_id": image_id, "category_id": category_id, "score": score}
            for image_id, category_id, score in zip(
                table.image_ids.tolist(), table.category_ids.tolist(), table.scores.tolist(), strict=True
            )
        ]
        if not np.isnan(table.boxes_xywh).any():
            for entry, box in zip(entries, table.boxes_xywh.tolist(), strict=True):
                entry["bbox"] = box
        if table.segmentations is not None:
            for entry, mask in zip(entries, table.segmentations, strict=True):
                entry["segmentation"] = mask
        return entries


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """What an engine returns.

    Attributes:
        stats: float64 [12], COCOeval.stats; -1 where there is nothing to score.
        precision: float64 [T, R, K, A, M]: 10 IoU thresholds, 101 recalls, categories by id, areas (all,
            small, medium, large), maximum detections (1, 10, 100); -1 where there is nothing to score.
        recall: float64 [T, K, A, M].
        evaluated: Gives the matches by image, category and area range, as ``COCOeval.evalImgs``; None where there
            are none.
    """

    stats: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    evaluated: Callable[[], Sequence[Mapping[str, Any] | None]] | None = None


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
        evaluation = COCOeval(truth, _load_results(truth, pair.results()), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation

    evaluation = _silently(evaluate)
    return EngineOutput(
        stats=np.asarray(evaluation.stats, dtype=np.float64),
        precision=evaluation.eval["precision"],
        recall=evaluation.eval["recall"],
        evaluated=lambda: evaluation.evalImgs,
    )


def _annotation_for_hotcoco(annotation: Mapping[str, Any]) -> dict[str, Any]:
    fields = ("id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd")
    return {name: annotation[name] for name in fields if annotation[name] is not None}


def hotcoco_engine(pair: PreparedPair, iou_type: IouType) -> EngineOutput:
    """COCOeval of hotcoco, in Rust: the same numbers, about a hundred times as fast.

    An annotation with id 0 is never found by pycocotools, which takes 0 for "no match". hotcoco does not
    repeat that, so such pairs go to pycocotools.
    """
    if any(annotation["id"] == 0 for annotation in pair.ground_truth["annotations"]):
        return pycocotools_engine(pair, iou_type)
    evaluation = _hotcoco_evaluation(pair, iou_type)

    def evaluate() -> None:
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()

    _silently(evaluate)
    arrays = evaluation.eval or {}
    return EngineOutput(
        stats=np.asarray(evaluation.stats, dtype=np.float64),
        precision=np.asarray(arrays["precision"]),
        recall=np.asarray(arrays["recall"]),
        evaluated=lambda: evaluation.evalImgs,
    )


def _hotcoco_evaluation(pair: PreparedPair, iou_type: IouType) -> Any:
    import hotcoco

    truth = dict(pair.ground_truth)
    truth["annotations"] = [_annotation_for_hotcoco(one) for one in truth["annotations"]]
    # Detections of categories that the ground truth lacks match nothing; hotcoco warns of each.
    known = np.isin(pair.table.category_ids, [one["id"] for one in truth["categories"]])
    table = pair.table.select(known)
    coco = hotcoco.COCO(truth)
    if len(table) and not np.isnan(table.boxes_xywh).any():
        columns = (table.image_ids, table.boxes_xywh, table.scores, table.category_ids)
        rows = np.column_stack([column.astype(np.float64) for column in columns])
        masks = table.segmentations
        results = coco.load_res(rows) if masks is None else coco.load_res(rows, segmentation=list(masks))
    else:
        results = coco.load_res(PreparedPair(truth, table).results())
    return hotcoco.COCOeval(coco, results, iou_type)


def automatic_engine(pair: PreparedPair, iou_type: IouType) -> EngineOutput:
    """Hotcoco where it can be loaded, else pycocotools; the numbers are the same."""
    if find_spec("hotcoco") is None:
        logger.debug("hotcoco is not installed: pycocotools computes average precision")
        return pycocotools_engine(pair, iou_type)
    try:
        return hotcoco_engine(pair, iou_type)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except ImportError as error:  # a wheel for another machine
        logger.debug("hotcoco cannot be loaded (%s): pycocotools computes average precision", error)
    except BaseException as error:  # a panic in Rust is no Exception
        logger.warning("hotcoco failed (%s): pycocotools computes average precision", error)
    return pycocotools_engine(pair, iou_type)


_ENGINES: dict[str, Engine] = {
    AUTO: automatic_engine,
    "hotcoco": hotcoco_engine,
    "pycocotools": pycocotools_engine,
}


def register_engine(name: str, engine: Engine) -> None:
    """Add an engine.

    Raises:
        ValueError: If the name is taken.
    """
    if name in _ENGINES:
        raise ValueError(f"engine: {name!r} is taken; choose another name")
    _ENGINES[name] = engine


def engine_names() -> list[str]:
    """Names that `get_engine` knows."""
    return sorted(_ENGINES)


def get_engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        ValueError: If there is none, or its library is not installed.
    """
    if name == "hotcoco" and find_spec("hotcoco") is None:
        raise ValueError("engine: 'hotcoco' is not installed; install it or use 'pycocotools'")
    try:
        return _ENGINES[name]
    except KeyError:
        raise ValueError(f"engine: {name!r} is unknown; use one of {', '.join(engine_names())}") from None
