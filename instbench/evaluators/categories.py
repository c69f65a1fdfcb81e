"""Category names of benchmarks and detectors: which stand for the same thing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from instbench.errors import InputError
from instbench.evaluators.base import Detections, Detector

__all__ = ["SYNONYMS", "CategoryMatch", "RenamedDetector", "match_categories", "named_for"]

SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("airplane", "aeroplane"),
    ("bicycle", "bike"),
    ("bus", "bus (vehicle)"),
    ("car", "car (automobile)"),
    ("cell phone", "cellular telephone", "mobile phone"),
    ("couch", "sofa"),
    ("dining table", "diningtable"),
    ("donut", "doughnut"),
    ("fire hydrant", "fireplug"),
    ("hair drier", "hair dryer"),
    ("hot dog", "hotdog"),
    ("keyboard", "computer keyboard"),
    ("laptop", "laptop computer"),
    ("microwave", "microwave oven"),
    ("motorcycle", "motorbike"),
    ("mouse", "mouse (computer equipment)"),
    ("orange", "orange (fruit)"),
    ("potted plant", "pottedplant"),
    ("refrigerator", "fridge"),
    ("remote", "remote control"),
    ("skis", "ski"),
    ("teddy bear", "teddybear"),
    ("tie", "necktie"),
    ("train", "train (railroad vehicle)"),
    ("tv", "television", "television set", "tvmonitor", "tv monitor"),
    ("wine glass", "wineglass"),
)
"""Names of COCO, LVIS and PASCAL VOC for the same category. Wider or narrower names are left out on purpose."""

_CANONICAL = {name: group[0] for group in SYNONYMS for name in group}


@dataclass(frozen=True, slots=True)
class CategoryMatch:
    """How a detector's categories relate to a benchmark's.

    Attributes:
        renames: Benchmark name by detector name, for every pair found, equal names included.
        unmatched: Benchmark names that no category of the detector stands for, in order.
    """

    renames: Mapping[str, str]
    unmatched: tuple[str, ...]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.lower()).strip()


def _canonical(name: str) -> str:
    return _CANONICAL.get(_plain(name), _plain(name))


def match_categories(asked: Sequence[str], known: Sequence[str]) -> CategoryMatch:
    """Matches names one to one: equal ones first, then up to case, spaces and underscores, then synonyms.

    Args:
        asked: Category names of the benchmark, each once.
        known: Category names of the detector, each once.

    Returns:
        The pairs and what is left over.

    Raises:
        InputError: Two names could stand for the same one at the same level; both are named.
    """
    renames: dict[str, str] = {}
    levels: tuple[Callable[[str], str], ...] = (lambda name: name, _plain, _canonical)
    for key in levels:
        theirs = _grouped([name for name in known if name not in renames], key)
        done = set(renames.values())
        ours = _grouped([name for name in asked if name not in done], key)
        for form in sorted(ours.keys() & theirs.keys()):
            for names, whose in ((ours[form], "benchmark"), (theirs[form], "detector")):
                if len(names) > 1:
                    raise InputError(
                        f"categories {names[0]!r} and {names[1]!r} of the {whose} mean the same; rename one of them"
                    )
            renames[theirs[form][0]] = ours[form][0]
    done = set(renames.values())
    return CategoryMatch(renames, tuple(name for name in asked if name not in done))


def _grouped(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


class RenamedDetector:
    """A detector whose categories carry the benchmark's names.

    Args:
        detector: The detector.
        renames: Benchmark name by detector name; categories that are not in it keep theirs.
    """

    def __init__(self, detector: Detector, renames: Mapping[str, str]) -> None:
        self._detector = detector
        self._renames = {old: new for old, new in renames.items() if old != new}
        taken = set(renames.values())
        # A left-over category must not pass for the benchmark's of that name.
        self._renames |= {
            name: f"{name} (detector)"
            for name in detector.categories
            if name not in renames and name in taken
        }
        self.categories = tuple(self._renames.get(name, name) for name in detector.categories)

    def detect(self, images: Sequence[Image.Image]) -> list[Detections]:
        """As the detector, with the benchmark's names."""
        return [
            Detections(
                seen.boxes_xyxy,
                seen.scores,
                tuple(self._renames.get(name, name) for name in seen.categories),
                seen.masks,
            )
            for seen in self._detector.detect(images)
        ]

    def identity(self) -> Mapping[str, Any]:
        """That of the detector, and the renamed categories."""
        return {**self._detector.identity(), "renamed": dict(sorted(self._renames.items()))}


def named_for(detector: Detector, asked: Sequence[str]) -> Detector:
    """The detector under the names of a benchmark.

    An open-vocabulary detector is told to look for them; for another, names are matched.

    Args:
        detector: The detector.
        asked: Category names of the benchmark's layouts, each once.

    Returns:
        The detector itself where nothing has to be renamed.

    Raises:
        InputError: Names are ambiguous, or the detector knows none of the benchmark's categories.
    """
    if not asked:
        return detector
    with_categories = getattr(detector, "with_categories", None)
    if with_categories is not None:
        found: Detector = with_categories(tuple(asked))
        return found
    match = match_categories(asked, detector.categories)
    if not match.renames:
        raise InputError(
            f"the detector knows none of the {len(asked)} categories asked for ({_few(asked)}); it knows "
            f"{_few(detector.categories)}; choose another with --detector"
        )
    if all(old == new for old, new in match.renames.items()):
        return detector
    return RenamedDetector(detector, match.renames)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
