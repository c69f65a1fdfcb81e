"""The schema of a benchmark: what is asked, what may be seen, and how it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from instbench.benchmarks.deviations import DEVIATIONS
from instbench.layouts.types import Condition
from instbench.runs.atomic import canonical_json, sha256_bytes

__all__ = [
    "Benchmark",
    "CocoData",
    "EvaluatorNames",
    "MetricSpec",
    "NamedData",
    "SamplingSpec",
    "ShapesData",
]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


_ADDED_LATER = {"hybrid": False, "file_format": "png", "square_source": None}
"""Fields that early protocols lack; at these values they do not change the hash."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShapesData(_Strict):
    """Layouts of the offline world.

    Attributes:
        kind: "shapes".
        world: "shapes" or "shapes-hard".
        split: "train", "val" or "test".
        count: Number of layouts, the first of the split.
        layouts_sha256: Hash of the canonical layouts; a run refuses others.
    """

    kind: Literal["shapes"] = "shapes"
    world: str
    split: Literal["train", "val", "test"] = "val"
    count: int = Field(ge=1)
    layouts_sha256: Sha256


class CocoData(_Strict):
    """Layouts of a COCO-format file.

    Attributes:
        kind: "coco".
        annotations: Instances file.
        captions: Captions file, or None.
        images: Folder of the real images (for the ceiling and FID), or None.
        count: Number of layouts, None for all.
        layouts_sha256: Hash of the canonical layouts, None where they are not frozen.
    """

    kind: Literal["coco"] = "coco"
    annotations: Path
    captions: Path | None = None
    images: Path | None = None
    count: int | None = Field(default=None, ge=1)
    layouts_sha256: Sha256 | None = None


class NamedData(_Strict):
    """Layouts of a data set that `instbench data` fetches and prepares.

    Such data is identified by the SHA-256 of its annotation file, which every run records.

    Attributes:
        kind: "named".
        name: Name of the data set, see `instbench data`.
        count: Number of layouts, None for all.
        layouts_sha256: Hash of the canonical layouts, None where they are not frozen.
    """

    kind: Literal["named"] = "named"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    count: int | None = Field(default=None, ge=1)
    layouts_sha256: Sha256 | None = None


class SamplingSpec(_Strict):
    """Sampling settings that a protocol fixes; None leaves the choice to the model.

    Attributes:
        num_inference_steps: Sampler steps.
        guidance_scale: Classifier-free guidance weight.
        alpha: Share of the steps with grounding on.
        mis: Share of the steps run by the Multi-Instance Sampler.
        negative_prompt: Prompt of the unconditional branch.
    """

    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    alpha: float | None = Field(default=None, ge=0.0, le=1.0)
    mis: float | None = Field(default=None, ge=0.0, lt=1.0)
    negative_prompt: str | None = None


class EvaluatorNames(_Strict):
    """The evaluators of a benchmark, by role; None where its metrics need none.

    Attributes:
        detector: Detector or segmenter.
        image_text: Image-text model.
        features: Feature extractor.
    """

    detector: str | None = None
    image_text: str | None = None
    features: str | None = None


class MetricSpec(_Strict):
    """A metric of a benchmark.

    Attributes:
        name: Registered name; the number appears under it in ``results.json``.
        params: Parameters that depart from the metric's defaults.
    """

    name: str
    params: dict[str, Any] = Field(default_factory=dict)


class Benchmark(_Strict):
    """A task under a protocol.

    Attributes:
        name: Name, lower case.
        version: Raised whenever numbers stop being comparable.
        edition: "strict" or "paper"; never mixed in one table.
        description: One line.
        dataset: Where the layouts come from.
        conditions: The formats that a generator may see; all others are withheld.
        hybrid: Each instance is asked in one of the conditions, chosen by a hash of its names.
        attribute: Attribute that every instance is asked for, or None.
        prompt: Rule for the global prompt, see `instbench.layouts.prompts`.
        square_source: Paper edition: images and annotations are first squashed to squares of this many pixels,
            as the data of the published runs were; None takes them as they are.
        canvas_size: Side of the square canvas in pixels.
        file_format: What evaluators see: the image itself ("png"), or the image after JPEG compression at
            quality 75 with PIL's defaults ("jpeg-q75"). Runs store PNG either way.
        sampling: Sampling settings that the protocol fixes.
        evaluators: Evaluators by role.
        metrics: Metrics in the order of the tables.
        generator: The only model that fits (the ceiling), or None for any.
        baseline: A note on floor and ceiling.
        deviations: Paper edition: names of `instbench.benchmarks.deviations` that touch its numbers.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*(@custom)?$")
    version: int = Field(ge=1)
    edition: Literal["strict", "paper"]
    description: str
    dataset: Annotated[ShapesData | CocoData | NamedData, Field(discriminator="kind")]
    conditions: tuple[Condition, ...]
    hybrid: bool = False
    attribute: Literal["color", "texture"] | None = None
    prompt: str = "caption"
    square_source: int | None = Field(default=None, ge=16, le=4096)
    canvas_size: int = Field(ge=16, le=4096)
    file_format: Literal["png", "jpeg-q75"] = "png"
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    evaluators: EvaluatorNames
    metrics: tuple[MetricSpec, ...] = Field(min_length=1)
    generator: str | None = None
    baseline: str = ""
    deviations: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _no_doubles(self) -> Benchmark:
        for what, names in (
            ("conditions", [str(condition) for condition in self.conditions]),
            ("metrics", [metric.name for metric in self.metrics]),
            ("deviations", list(self.deviations)),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} lists a name twice")
        return self

    @model_validator(mode="after")
    def _fits_its_edition(self) -> Benchmark:
        unknown = sorted(set(self.deviations) - set(DEVIATIONS))
        if unknown:
            raise ValueError(f"deviations: {unknown[0]!r} is unknown; known: {', '.join(DEVIATIONS)}")
        if self.edition == "strict" and (self.deviations or self.square_source or self.file_format != "png"):
            raise ValueError(
                "deviations, square_source and file_format belong to the paper edition; leave them out"
            )
        if self.edition == "paper" and self.hybrid:
            raise ValueError("hybrid: the published code has no such benchmark; use edition strict")
        if self.hybrid and len(self.conditions) < 2:
            raise ValueError("hybrid: needs at least two conditions to choose from")
        return self

    def protocol_sha256(self) -> str:
        """Hash of the protocol apart from its data, its prose and the run's own settings."""
        prose = {"dataset", "description", "baseline", "deviations"}
        protocol = self.model_dump(mode="json", exclude=prose)
        for name, default in _ADDED_LATER.items():
            if protocol[name] == default:
                del protocol[name]
        # Where a file lies says nothing about it; the evaluators' own hashes are in the identity.
        protocol["evaluators"] = {
            role: name.rsplit("/", 1)[-1] if name and name.startswith("/") else name
            for role, name in protocol["evaluators"].items()
        }
        return sha256_bytes(canonical_json(protocol).encode())

    def with_evaluators(self, names: Mapping[str, str]) -> Benchmark:
        """Returns the same protocol with other evaluators.

        Args:
            names: Evaluator by role ("detector", "image_text", "features"). Roles that no metric of the benchmark
                needs are left out.
        """
        used = self.evaluators.model_dump(exclude_none=True)
        replaced = {role: name for role, name in names.items() if role in used}
        return self.model_copy(update={"evaluators": EvaluatorNames(**{**used, **replaced})})

    def with_data(self, data: CocoData) -> Benchmark:
        """Returns the same protocol on other data, named ``<name>@custom``."""
        name = self.name.removesuffix("@custom")
        return self.model_copy(update={"name": f"{name}@custom", "dataset": data})
