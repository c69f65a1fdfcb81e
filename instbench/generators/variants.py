"""The reference model with one thing changed, for ablations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from instbench.errors import InputError
from instbench.generators.base import GeneratedImage, GenerationRequest, Generator, SamplingSettings
from instbench.generators.instance_diffusion import InstanceDiffusionGenerator
from instbench.layouts.hybrid import assign_formats
from instbench.layouts.types import Condition

if TYPE_CHECKING:
    from reference_model.pipeline import InstanceDiffusionPipeline
    from reference_model.unet import InstanceUNet

__all__ = ["FREEU", "FREEU_MILD", "Variant", "VariantGenerator", "split_name", "with_variant"]

FREEU = ((1.5, 0.9), (1.6, 0.2))
"""(backbone, skip) per stage: b1, s1, b2, s2 that FreeU's authors give for Stable Diffusion 1.5."""
FREEU_MILD = ((1.1, 0.9), (1.2, 0.2))
"""The same with a weaker backbone."""

_NAME = re.compile(r"(.+) \(([^()]+)\)")


@dataclass(frozen=True, slots=True)
class Variant:
    """What is changed; the defaults change nothing.

    Attributes:
        name: Name, fit for a folder.
        label: Words for tables and plots.
        shown: The formats that the model sees of those that are allowed; None for all.
        mixed: Every object is shown in one format alone, chosen as in the hybrid benchmarks.
        scaleu: "learned", "off" (backbone and skips pass unchanged) or "constants".
        constants: (backbone, skip) factor per stage for "constants", see `reference_model.scaleu.FreeU`.
        masked_attention: Mode of the instance masks; None takes the checkpoint's.
        sampling: Sampling settings over the checkpoint's.
        trained: Name of weights of its own (``python -m reference_model.training variants``), or "" for those in hand.
    """

    name: str
    label: str = ""
    shown: frozenset[Condition] | None = None
    mixed: bool = False
    scaleu: str = "learned"
    constants: tuple[tuple[float, float], ...] = ()
    masked_attention: str | None = None
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    trained: str = ""

    def to_json(self) -> dict[str, Any]:
        """What differs from the model as it is; sampling settings and weights have their own place in an identity."""
        plain = asdict(Variant(self.name))
        changed = {key: value for key, value in asdict(self).items() if value != plain[key]}
        for elsewhere in ("label", "sampling", "trained"):
            changed.pop(elsewhere, None)
        if self.shown is not None:
            changed["shown"] = sorted(str(one) for one in self.shown)
        if self.constants:
            changed["constants"] = [list(stage) for stage in self.constants]
        return changed

    @classmethod
    def from_json(cls, changed: Mapping[str, Any], name: str = "") -> Variant:
        """The variant that an identity tells of.

        Args:
            changed: What `to_json` gave.
            name: Its name.

        Raises:
            InputError: If a field is unknown or holds something else.
        """
        values = dict(changed)
        try:
            if "shown" in values:
                values["shown"] = frozenset(Condition(one) for one in values["shown"])
            if "constants" in values:
                values["constants"] = tuple((float(b), float(s)) for b, s in values["constants"])
            found = cls(name, **values)
        except (TypeError, ValueError) as error:
            raise InputError(f"identity.generator.variant: cannot be read ({error})") from None
        if found.scaleu not in ("learned", "off", "constants"):
            raise InputError(f"identity.generator.variant.scaleu: {found.scaleu!r} is unknown")
        return found


def split_name(model: str) -> tuple[str, str | None]:
    """Model and variant behind the name of a run: "reference (scaleu-off)" is ("reference", "scaleu-off").

    Any other name is a model without a variant.
    """
    found = _NAME.fullmatch(model)
    return (model, None) if found is None else (found[1], found[2])


def with_variant(generator: Generator, identity: Mapping[str, Any] | None) -> Generator:
    """A generator changed as the identity of an earlier one says; the generator itself if that says of no change.

    Raises:
        InputError: If the change cannot be read or made with this generator.
    """
    changed = (identity or {}).get("variant")
    if not changed:
        return generator
    if not isinstance(changed, Mapping) or not isinstance(generator, InstanceDiffusionGenerator):
        raise InputError("identity.generator.variant: is no variant of the reference model; give --model")
    return VariantGenerator(generator, Variant.from_json(changed))


class VariantGenerator(InstanceDiffusionGenerator):
    """A variant of a generator; both use the same loaded weights, which are put right after each batch.

    Args:
        base: The generator as it is.
        variant: What to change.
    """

    def __init__(self, base: InstanceDiffusionGenerator, variant: Variant) -> None:
        super().__init__(base.folder, base._device, base._dtype, base._batch_size, base.max_unet_batch)
        self._base = base
        self.variant = variant
        self.masked_attention = variant.masked_attention

    @cached_property
    def pipeline(self) -> InstanceDiffusionPipeline:
        """The pipeline of the generator that this is a variant of."""
        return self._base.pipeline

    def identity(self) -> Mapping[str, Any]:
        """The model's own identity; what was changed is added if anything was."""
        changed = self.variant.to_json()
        return {**super().identity(), **({"variant": changed} if changed else {})}

    def shown(self, request: GenerationRequest) -> frozenset[Condition]:
        """The allowed formats that the variant lets through."""
        shown = super().shown(request)
        return shown if self.variant.shown is None else shown & self.variant.shown

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        """Yields one image per request; see `InstanceDiffusionGenerator.generate`."""
        yield from super().generate(self.requests_as_shown(requests))

    def requests_as_shown(self, requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
        """The requests, with one format chosen for every object if the variant mixes formats."""
        if not self.variant.mixed:
            return list(requests)
        return [
            replace(one, layout=assign_formats([one.layout], "ablation", sorted(one.conditions))[0])
            for one in requests
        ]

    def _draw(self, requests: Sequence[GenerationRequest]) -> Iterator[GeneratedImage]:
        with self._scaling(self.pipeline.unet):
            images = list(super()._draw(requests))
        yield from images

    def _scaling(self, unet: InstanceUNet) -> AbstractContextManager[None]:
        if self.variant.scaleu == "learned":
            return nullcontext()
        from reference_model.scaleu import freeu_scalers, replaced_scaleu

        constants = self.variant.constants
        return replaced_scaleu(unet, freeu_scalers(unet, constants) if constants else None)
