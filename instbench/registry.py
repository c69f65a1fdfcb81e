"""One small typed registry for generators, evaluators, metrics and benchmarks.

An entry is a name, a line of help and a lazy ``"package.module:attribute"`` target, so that listing
names imports nothing heavy. Other packages add entries through entry points.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from instbench.errors import InputError

__all__ = [
    "DETECTORS",
    "EVALUATOR_ROLES",
    "FEATURES",
    "GENERATORS",
    "IMAGE_TEXT",
    "READY_MADE",
    "Entry",
    "Registry",
    "check_evaluator",
    "check_generator",
    "did_you_mean",
    "load_evaluator",
    "load_generator",
    "load_target",
]


def did_you_mean(name: str, known: list[str]) -> str:
    """Returns a hint for an unknown name: the nearest known names, or all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(sorted(known)) or 'none'}"


def load_target(target: str, what: str) -> Any:
    """Imports ``"package.module:attribute"``.

    Args:
        target: The module and the attribute (dots allowed after the colon).
        what: What the target is for, named in errors.

    Returns:
        The attribute.

    Raises:
        InputError: If the text has another form, the module cannot be imported or has no such attribute.
    """
    module_name, separator, attribute = target.partition(":")
    words = [*module_name.split("."), *attribute.split(".")]
    if not separator or not all(word.isidentifier() for word in words):
        raise InputError(f"{what} {target!r}: write it as package.module:factory")
    here = str(Path.cwd())
    if here not in sys.path:  # a user's own module next to them, as with `python -m`
        sys.path.append(here)
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"{what} {target!r}: no module named {error.name!r}") from error
    except Exception as error:  # a user's module may raise anything
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{what} {target!r}: cannot be imported ({type(error).__name__}: {reason}); correct the module"
        ) from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise InputError(f"{what} {target!r}: module {module_name} has no attribute {attribute!r}")
        value = getattr(value, part)
    return value


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered thing.

    Attributes:
        name: Name on the command line.
        summary: One line of help.
        target: ``"package.module:attribute"`` or the factory itself.
        options: Fixed keyword arguments of the factory.
    """

    name: str
    summary: str
    target: str | Callable[..., Any]
    options: Mapping[str, Any] | None = None

    def factory(self) -> Callable[..., Any]:
        """Loads the factory."""
        loaded = load_target(self.target, self.name) if isinstance(self.target, str) else self.target
        if not callable(loaded):
            raise InputError(f"{self.name}: {self.target} is not callable; name a class or a function")
        return loaded


class Registry:
    """Named entries of one kind.

    Args:
        kind: What the entries are, in words ("model", "detector").
        group: Entry-point group that other packages may add to.
        entries: The built-in entries.
    """

    def __init__(self, kind: str, group: str, entries: tuple[Entry, ...] = ()) -> None:
        self.kind = kind
        self.group = group
        self._entries = {entry.name: entry for entry in entries}
        self._plugins_read = False

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        for point in metadata.entry_points(group=self.group):
            # Built-in names win: a plug-in must not silently change what a published name means.
            self._entries.setdefault(point.name, Entry(point.name, f"plug-in {point.value}", point.value))

    def add(self, entry: Entry, *, replace: bool = False) -> None:
        """Registers an entry; refuses a name that is taken unless `replace`."""
        if entry.name in self._entries and not replace:
            raise InputError(f"{self.kind} {entry.name!r} is registered already; choose another name")
        self._entries[entry.name] = entry

    def remove(self, name: str) -> None:
        """Removes an entry if it is there."""
        self._entries.pop(name, None)

    def names(self) -> list[str]:
        """Returns all names, sorted."""
        self._read_plugins()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        self._read_plugins()
        return iter(self._entries[name] for name in sorted(self._entries))

    def __contains__(self, name: str) -> bool:
        self._read_plugins()
        return name in self._entries

    def get(self, name: str) -> Entry:
        """Returns the entry of a name.

        Raises:
            InputError: If the name is unknown; the message offers the nearest names.
        """
        self._read_plugins()
        try:
            return self._entries[name]
        except KeyError:
            raise InputError(f"unknown {self.kind} {name!r}; {did_you_mean(name, self.names())}") from None


GENERATORS = Registry(
    "model",
    "instbench.generators",
    (
        Entry(
            "reference",
            "InstanceDiffusion; the shipped Shapes weights, or --checkpoint FOLDER",
            "instbench.generators.instance_diffusion:InstanceDiffusionGenerator",
        ),
        Entry(
            "gligen",
            "GLIGEN (boxes); the shipped Shapes baseline, or --checkpoint FOLDER",
            "instbench.generators.gligen:GligenGenerator",
        ),
        Entry(
            "text-only",
            "floor: the same weights with grounding off",
            "instbench.generators.text_only:TextOnlyGenerator",
        ),
        Entry(
            "reconstructions",
            "the real images through the checkpoint's autoencoder",
            "instbench.generators.reconstructions:ReconstructionsGenerator",
        ),
        Entry(
            "real-images",
            "ceiling: the real images at canvas size",
            "instbench.generators.real_images:RealImagesGenerator",
        ),
        Entry(
            "image-folder",
            "images made elsewhere: --checkpoint FOLDER with <image key>.png",
            "instbench.generators.image_folder:ImageFolderGenerator",
        ),
    ),
)
DETECTORS = Registry(
    "detector",
    "instbench.detectors",
    (
        Entry(
            "shapes-yolo",
            "YOLO segmentation for both Shapes worlds (ultralytics, AGPL-3.0)",
            "instbench.evaluators:load_detector",
            {"name_or_folder": "shapes-yolo"},
        ),
        Entry(
            "yolov8m-seg",
            "YOLOv8m segmentation for COCO; yolov8m-seg.pt in the folder of weights (AGPL-3.0)",
            "instbench.evaluators:load_detector",
            {"name_or_folder": "yolov8m-seg"},
        ),
        Entry(
            "yolov8m",
            "YOLOv8m boxes for COCO; yolov8m.pt in the folder of weights (AGPL-3.0)",
            "instbench.evaluators:load_detector",
            {"name_or_folder": "yolov8m"},
        ),
        Entry(
            "mask2former",
            "Mask2Former (Swin-L) instance segmentation for COCO, from the hub",
            "instbench.evaluators:load_detector",
            {"name_or_folder": "facebook/mask2former-swin-large-coco-instance"},
        ),
        Entry(
            "owlv2",
            "OWLv2 boxes for any category (LVIS), from the hub",
            "instbench.evaluators:load_detector",
            {"name_or_folder": "google/owlv2-base-patch16-ensemble"},
        ),
    ),
)
IMAGE_TEXT = Registry(
    "image-text model",
    "instbench.image_text",
    (
        Entry(
            "shapes-clip",
            "small CLIP for colours and textures of Shapes (open_clip)",
            "instbench.evaluators:load_image_text",
            {"name_or_folder": "shapes-clip"},
        ),
        Entry(
            "ViT-L-14/laion2b_s32b_b82k",
            "open_clip ViT-L/14 for photographs; any MODEL/TAG of open_clip does",
            "instbench.evaluators:load_image_text",
            {"name_or_folder": "ViT-L-14/laion2b_s32b_b82k"},
        ),
    ),
)
FEATURES = Registry(
    "feature extractor",
    "instbench.features",
    (
        Entry(
            "shapes-features",
            "small ResNet, pooled features for FID on Shapes",
            "instbench.evaluators:load_features",
            {"name_or_folder": "shapes-features"},
        ),
        Entry(
            "inception",
            "Inception v3 of FID, resized as torchmetrics; file in the folder of weights",
            "instbench.evaluators:load_features",
            {"name_or_folder": "inception"},
        ),
        Entry(
            "inception-tf1",
            "the same, resized as TensorFlow 1 and torch-fidelity",
            "instbench.evaluators:load_features",
            {"name_or_folder": "inception-tf1"},
        ),
    ),
)

READY_MADE = ("real-images", "reconstructions", "image-folder")
"""Generators that give pictures which exist, and draw no layout."""

EVALUATOR_ROLES: Mapping[str, tuple[Registry, str]] = {
    "detector": (DETECTORS, "load_detector"),
    "image_text": (IMAGE_TEXT, "load_image_text"),
    "features": (FEATURES, "load_features"),
}

_NOT_A_WORD = re.compile(r"[/\\=]|\.pth?$|\.safetensors$")
"""What paths, names of the hub and ``MODEL=FILE`` have and registered words have not."""


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some built-in types tell nothing
        return {}


def _call(factory: Callable[..., Any], required: Mapping[str, Any], offered: Mapping[str, Any]) -> Any:
    """Calls a factory with the required arguments and those of the offered ones that it takes."""
    parameters = _parameters(factory)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    extra = {key: value for key, value in offered.items() if takes_any or key in parameters}
    return factory(**required, **extra)


def check_generator(name: str, checkpoint: Path | None) -> None:
    """Checks a model's name and that its checkpoint exists, without importing or loading anything.

    Raises:
        InputError: If the name is unknown or there is nothing at the checkpoint's path.
    """
    if ":" not in name:
        GENERATORS.get(name)
    if checkpoint is not None and not checkpoint.exists():
        raise InputError(f"--checkpoint {checkpoint}: no such file or folder")


def load_generator(
    name: str,
    *,
    checkpoint: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | None = None,
) -> Any:
    """Makes a generator from its name or from ``package.module:factory``.

    A factory may take any of the keyword arguments `checkpoint` (or `folder`), `device`, `dtype` and
    `batch_size`; those that it does not name are not passed.

    Args:
        name: Registered name, or a factory.
        checkpoint: Checkpoint file or folder, None for the factory's own default.
        device: Torch device, or "auto".
        dtype: Name of the floating type, or "auto".
        batch_size: Images per call, None where the factory shall choose.

    Returns:
        A `Generator`.

    Raises:
        InputError: If the name is unknown, the checkpoint is missing or the factory takes none.
    """
    check_generator(name, checkpoint)
    entry = Entry(name, "", name) if ":" in name else GENERATORS.get(name)
    factory = entry.factory()
    required: dict[str, Any] = dict(entry.options or {})
    parameters = _parameters(factory)
    if checkpoint is not None:
        key = next((key for key in ("checkpoint", "folder") if key in parameters), None)
        if key is None:
            raise InputError(f"--checkpoint {checkpoint}: model {name!r} takes no checkpoint; leave it out")
        required[key] = checkpoint
    elif "folder" in parameters and parameters["folder"].default is inspect.Parameter.empty:
        raise InputError(f"model {name!r} needs a folder of images: add --checkpoint FOLDER")
    offered: dict[str, Any] = {"device": device, "dtype": dtype}
    if batch_size is not None:
        offered["batch_size"] = batch_size
    left = [
        one.name
        for one in parameters.values()
        if one.default is one.empty
        and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        and one.name not in required | offered
    ]
    if left:
        raise InputError(
            f"model {name!r}: its factory asks for {left[0]!r}, which has no default; give it one"
        )
    generator = _call(factory, required, offered)
    for attribute in ("conditions", "generate", "identity", "resolve_sampling"):
        if not hasattr(generator, attribute):
            raise InputError(
                f"model {name!r}: {type(generator).__name__} has no {attribute!r}; see Generator"
            )
    return generator


def check_evaluator(role: str, name: str) -> None:
    """Checks a name that can only be a registered one, without importing or loading anything.

    Raises:
        InputError: If it is a plain word that is not registered; the message says which are.
    """
    if not Path(name).exists() and not _NOT_A_WORD.search(name):
        EVALUATOR_ROLES[role][0].get(name)


def load_evaluator(role: str, name: str, *, device: str = "auto") -> Any:
    """Loads an evaluator by registered name, or from a file or folder.

    Args:
        role: "detector", "image_text" or "features".
        name: Registered name, or what the loader of the role takes besides (see `instbench.evaluators.loading`).
        device: Torch device, or "auto".

    Returns:
        A `Detector`, `ImageTextModel` or `FeatureExtractor`.

    Raises:
        InputError: If the name is unknown and there is no such file or folder.
    """
    registry, loader = EVALUATOR_ROLES[role]
    if name in registry:
        entry = registry.get(name)
        return _call(entry.factory(), dict(entry.options or {}), {"device": device})
    check_evaluator(role, name)
    factory = load_target(f"instbench.evaluators:{loader}", registry.kind)
    return _call(factory, {"name_or_folder": name}, {"device": device})
