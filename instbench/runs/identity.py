"""What a run is: everything that can change an output, and its hash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from instbench.runs.atomic import canonical_json, sha256_bytes

__all__ = ["MUST_AGREE", "FieldDifference", "IdentityV1", "identity_differences"]

MUST_AGREE = (
    *("benchmark", "benchmark_version", "edition", "protocol_sha256", "dataset", "layouts_sha256"),
    *("layouts_count", "conditions", "canvas_size", "evaluators"),
)
"""Fields of an identity that two runs share where their numbers may stand side by side."""


class IdentityV1(BaseModel):
    """Everything that can change an output of a run, in its first form.

    Attributes:
        schema_version: Version of this form; another version is another identity.
        benchmark: Name.
        benchmark_version: Version of the protocol.
        edition: "strict" or "paper".
        protocol_sha256: Hash of the rest of the protocol (conditions, prompts, metrics).
        dataset: What the layouts are made from.
        layouts_sha256: Hash of the layouts that were asked for, after the edition's rules.
        layouts_count: How many.
        conditions: What the generator may see.
        canvas_size: Side of the canvas in pixels.
        sampling: Resolved sampling settings.
        seed: The user's seed.
        generator: What the generator says about itself, with the hash of its weights.
        evaluators: The same for each evaluator, by role.
        code_version: Version of instbench.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    benchmark: str
    benchmark_version: int
    edition: str
    protocol_sha256: str
    dataset: dict[str, Any]
    layouts_sha256: str
    layouts_count: int
    conditions: tuple[str, ...]
    canvas_size: int
    sampling: dict[str, Any]
    seed: int
    generator: dict[str, Any]
    evaluators: dict[str, dict[str, Any]] = Field(default_factory=dict)
    code_version: str

    def sha256(self) -> str:
        """Returns the hash of the identity in hexadecimal."""
        return sha256_bytes(canonical_json(self.model_dump(mode="json")).encode())


class FieldDifference(BaseModel):
    """One field in which two identities differ.

    Attributes:
        field: Dotted name.
        theirs: Value in the folder, None where it is absent.
        ours: Value that was asked for now.
    """

    field: str
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.field} ({_short(self.theirs)} there, {_short(self.ours)} now)"


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    is_hash = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    limit = 12 if is_hash else 48
    return text if len(text) <= limit else f"{text[:limit]}…"


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        flat: dict[str, Any] = {}
        for key, item in value.items():
            flat.update(_flatten(item, f"{prefix}.{key}" if prefix else str(key)))
        return flat
    return {prefix: value}


def identity_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[FieldDifference]:
    """Lists the fields in which two identities differ, in order of their names.

    Args:
        theirs: Identity found in a folder, as JSON.
        ours: Identity asked for now, as JSON.

    Returns:
        One entry per differing leaf.
    """
    left, right = _flatten(dict(theirs)), _flatten(dict(ours))
    return [
        FieldDifference(field=name, theirs=left.get(name), ours=right.get(name))
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]
