"""The schema of a benchmark: what is asked, what may be seen, and how it is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from instbench.layouts.types import Condition
from instbench.runs.atomic import canonical_json, sha256_bytes

__all__ = [
    "Benchmark",
    "CocoData",
    "EvaluatorNames",
    "MetricSpec",
    "SamplingSpec",
    "ShapesData",
]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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
        attribute: Attribute that every instance is asked for, or None.
        prompt: Rule for the global prompt, see `instbench.layouts.prompts`.
        canvas_size: Side of the square canvas in pixels.
        sampling: Sampling settings that the protocol fixes.
        evaluators: Evaluators by role.
        metrics: Metrics in the order of the tables.
        generator: The only model that fits (the ceiling), or None for any.
        baseline: A note on floor and ceiling.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*(@custom)?$")
    version: int = Field(ge=1)
    edition: Literal["strict", "paper"]
    description: str
    dataset: Annotated[ShapesData | CocoData, Field(discriminator="kind")]
    conditions: tuple[Condition, ...]
    attribute: Literal["color", "texture"] | None = None
    prompt: str = "caption"
    canvas_size: int = Field(ge=16, le=4096)
    sampling: SamplingSpec = Field(default_factory=SamplingSpec)
    evaluators: EvaluatorNames
    metrics: tuple[MetricSpec, ...] = Field(min_length=1)
    generator: str | None = None
    baseline: str = ""

    @model_validator(mode="after")
    def _no_doubles(self) -> Benchmark:
        for what, names in (
            ("conditions", [str(condition) for condition in self.conditions]),
            ("metrics", [metric.name for metric in self.metrics]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} lists a name twice")
        return self

    def protocol_sha256(self) -> str:
        """Hash of the protocol apart from its data, its prose and the run's own settings."""
        prose = {"dataset", "description", "baseline"}
        return sha256_bytes(canonical_json(self.model_dump(mode="json", exclude=prose)).encode())

    def with_data(self, data: CocoData) -> Benchmark:
        """Returns the same protocol on other data, named ``<name>@custom``."""
        name = self.name.removesuffix("@custom")
        return self.model_copy(update={"name": f"{name}@custom", "dataset": data})
