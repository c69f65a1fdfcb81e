"""Validation of whole files: what `instbench validate` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instbench.datasets.pictures import check_pictures
from instbench.datasets.problems import Problem, Severity, ids_of, is_id, read_json
from instbench.datasets.results import check_results, looks_like_results
from instbench.datasets.validation import check_annotations, check_captions
from instbench.errors import InputError

__all__ = ["Finding", "ValidationReport", "validate_file"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem and the file it is in."""

    source: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Everything that was found.

    Attributes:
        findings: Problems, errors first, then in file order.
        counts: How many records of each kind the file holds, e.g. ``{"images": 104}``.
    """

    findings: tuple[Finding, ...]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(finding.problem.severity is Severity.ERROR for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Number of warnings."""
        return len(self.findings) - self.errors

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return {
            "errors": self.errors,
            "warnings": self.warnings,
            "counts": dict(self.counts),
            "problems": [
                {
                    "file": finding.source,
                    "severity": str(finding.problem.severity),
                    "where": finding.problem.where,
                    "message": finding.problem.message,
                }
                for finding in self.findings
            ],
        }


def validate_file(
    path: Path,
    *,
    captions: Path | None = None,
    images_dir: Path | None = None,
    annotations: Path | None = None,
) -> ValidationReport:
    """Checks a COCO or LVIS instances file, a captions file, detection results or a layouts file.

    Args:
        path: The file; ``.jsonl`` is read as layouts, a list as detection results, a COCO file whose
            annotations carry captions and no boxes as captions, everything else as instances.
        captions: Captions that belong to an instances file.
        images_dir: Folder in which the images of an instances file must lie; each is opened.
        annotations: Instances file that detection results are for.

    Returns:
        The report.

    Raises:
        InputError: If a file is missing or is no JSON at all, or if ``captions``, ``images_dir`` or
            ``annotations`` go with another kind of file.
    """
    if path.suffix == ".jsonl":
        _refuse_companions(path, "a layouts file", captions, images_dir, annotations)
        return _validate_layouts(path)
    data = read_json(path)
    if looks_like_results(data):
        _refuse_companions(path, "a list of detections", captions, images_dir, None)
        return _validate_results(path, data, annotations)
    if _looks_like_captions(data):
        _refuse_companions(path, "a captions file", captions, images_dir, annotations)
        return _report([(str(path), problem) for problem in check_captions(data)], data)
    _refuse_companions(path, "an instances file", None, None, annotations)
    found = [(str(path), problem) for problem in check_annotations(data, rasterise=True)]
    images = _records(data, "images")
    if captions is not None:
        ids = [image["id"] for image in images if is_id(image.get("id"))]
        found += [(str(captions), problem) for problem in check_captions(read_json(captions), image_ids=ids)]
    if images_dir is not None:
        found += [(str(images_dir), problem) for problem in check_pictures(data, images_dir)]
    return _report(found, data)


def _refuse_companions(
    path: Path, kind: str, captions: Path | None, images_dir: Path | None, annotations: Path | None
) -> None:
    for option, value, owner in (
        ("--captions", captions, "an instances file"),
        ("--images", images_dir, "an instances file"),
        ("--annotations", annotations, "a list of detections"),
    ):
        if value is not None:
            raise InputError(f"{path}: is {kind}; {option} goes with {owner}")


def _validate_results(path: Path, data: list[Any], annotations: Path | None) -> ValidationReport:
    truth = None if annotations is None else read_json(annotations)
    found = []
    if truth is not None:
        found = [(str(annotations), problem) for problem in check_annotations(truth)]
        truth = truth if isinstance(truth, Mapping) else {}
    found += [(str(path), problem) for problem in check_results(data, truth)]
    images = ids_of([{"id": record.get("image_id")} for record in data if isinstance(record, dict)])
    return _sorted_report(found, {"detections": len(data), "images": len(images)})


def _validate_layouts(path: Path) -> ValidationReport:
    from instbench.layouts.serialization import read_jsonl

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        layouts = read_jsonl(path)
    except InputError as error:
        message = str(error).removeprefix(f"{path}: ")
        where, _, rest = message.partition(": ")
        return ValidationReport((Finding(str(path), Problem(Severity.ERROR, where, rest)),))
    instances = sum(len(layout.instances) for layout in layouts)
    requested = sum(len(layout.requested) for layout in layouts)
    return ValidationReport((), {"layouts": len(layouts), "instances": instances, "requested": requested})


def _records(data: Any, key: str) -> list[dict[str, Any]]:
    records = data.get(key) if isinstance(data, Mapping) else None
    return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []


def _looks_like_captions(data: Any) -> bool:
    annotations = _records(data, "annotations")
    return bool(annotations) and "categories" not in data and "bbox" not in annotations[0]


def _report(found: list[tuple[str, Problem]], data: Any) -> ValidationReport:
    keys = ("images", "annotations", "categories") if isinstance(data, Mapping) else ()
    counts = {key: len(_records(data, key)) for key in keys if key in data}
    annotations = _records(data, "annotations")
    crowds = sum(annotation.get("iscrowd") == 1 for annotation in annotations)
    degenerate = {problem.where.split(":")[0] for _, problem in found if "degenerate" in problem.message}
    if "categories" in counts:
        counts |= {"crowds": crowds, "degenerate": len(degenerate)}
    return _sorted_report(found, counts)


def _sorted_report(found: list[tuple[str, Problem]], counts: Mapping[str, int]) -> ValidationReport:
    # A stable sort: errors first, file order within.
    found = sorted(found, key=lambda item: item[1].severity is not Severity.ERROR)
    return ValidationReport(tuple(Finding(*item) for item in found), counts)
