from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reference_model.training.common import step_generator
from reference_model.training.loop import LoopSettings, fit, optimizer_for


@dataclass(frozen=True)
class Recipe:
    lr: float = 0.05


def run(folder: Path, *, steps: int = 60, recipe: Recipe | None = None, **options):
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        inputs = torch.randn(16, 4, generator=step_generator(0, step))
        return (model(inputs)[:, 0] - inputs.sum(dim=1)).square().mean(), {"step_again": float(step)}

    settings = LoopSettings(steps=steps, lr=0.05, warmup=5, ema=0.9, log_every=10)
    return model, fit(model, loss, settings, folder, recipe=recipe or Recipe(), **options)


def test_fit_learns_and_reports(tmp_path: Path):
    _, report = run(tmp_path)
    assert report.complete
    assert report.step == 60
    assert report.last["loss"] < 0.5
    assert len((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 6


def test_an_interrupted_run_equals_an_uninterrupted_one(tmp_path: Path):
    whole, _ = run(tmp_path / "whole")
    _, first = run(tmp_path / "parts", stop_at=23)
    assert not first.complete
    assert first.step == 23
    parts, second = run(tmp_path / "parts")
    assert second.complete
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name]), name


def test_time_budget_stops_before_the_first_step(tmp_path: Path):
    _, report = run(tmp_path, max_minutes=0.0)
    assert report.step == 0
    assert not report.complete


def test_validation_sees_averaged_weights_and_leaves_training_alone(tmp_path: Path):
    seen: list[int] = []

    def validate(step: int) -> dict[str, float]:
        seen.append(step)
        return {"score": 1.0}

    watched, _ = run(tmp_path / "watched", validate=validate, validate_every=20)
    plain, _ = run(tmp_path / "plain")
    assert seen == [20, 40]
    assert torch.equal(watched.weight, plain.weight)


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path):
    run(tmp_path, stop_at=5)
    with pytest.raises(ValueError, match=r"other settings \(lr\)"):
        run(tmp_path, recipe=Recipe(lr=0.1))


def test_a_loss_that_is_not_finite_is_reported(tmp_path: Path):
    model = nn.Linear(1, 1)
    settings = LoopSettings(steps=10, lr=0.1, log_every=1)

    def loss(step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        return model(torch.full((1, 1), float("nan"))).sum(), {}

    with pytest.raises(ValueError, match="not finite at step 1"):
        fit(model, loss, settings, tmp_path, recipe=Recipe())


def test_only_matrices_are_decayed():
    groups = optimizer_for(nn.Linear(3, 2), LoopSettings(steps=1, lr=0.1)).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.01), (1, 0.0)]
