from __future__ import annotations

import pytest

from instbench.runs.identity import IdentityV1, identity_differences


def identity(**changes) -> IdentityV1:
    fields = {
        "benchmark": "toy",
        "benchmark_version": 1,
        "edition": "strict",
        "protocol_sha256": "0" * 64,
        "dataset": {"kind": "shapes", "world": "shapes"},
        "layouts_sha256": "1" * 64,
        "layouts_count": 4,
        "conditions": ("box",),
        "canvas_size": 128,
        "sampling": {"alpha": 1.0},
        "seed": 0,
        "generator": {"kind": "x", "weights": {"unet": "2" * 64}},
        "code_version": "0.1",
    }
    fields.update(changes)
    return IdentityV1.model_validate(fields)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": 1}, "seed"),
        ({"sampling": {"alpha": 0.5}}, "sampling.alpha"),
        ({"generator": {"kind": "x", "weights": {"unet": "3" * 64}}}, "generator.weights.unet"),
        ({"evaluators": {"detector": {"kind": "y"}}}, "evaluators.detector.kind"),
        ({"edition": "paper"}, "edition"),
    ],
)
def test_any_change_makes_another_hash_and_is_named(change, field):
    first, second = identity(), identity(**change)
    assert first.sha256() != second.sha256()
    named = [
        one.field
        for one in identity_differences(first.model_dump(mode="json"), second.model_dump(mode="json"))
    ]
    assert field in named


def test_equal_identities_agree():
    first, second = identity(), identity()
    assert first.sha256() == second.sha256()
    assert identity_differences(first.model_dump(mode="json"), second.model_dump(mode="json")) == []


def test_a_difference_shortens_hashes():
    [difference] = identity_differences({"a": "f" * 64}, {"a": None})
    assert str(difference) == f"a ({'f' * 12}… there, none now)"
