from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reference_model.training.common import (
    Checkpoint,
    Ema,
    JsonlLog,
    load_checkpoint,
    save_checkpoint,
    step_generator,
    step_seed,
    warmup_cosine,
)


@given(total=st.integers(2, 500), warmup=st.integers(0, 60), floor=st.floats(0.0, 1.0))
def test_schedule_stays_between_floor_and_one_and_falls_after_warmup(total, warmup, floor):
    values = [warmup_cosine(step, total, warmup, floor) for step in range(total + 1)]
    assert all(0.0 < value <= 1.0 or value == pytest.approx(floor) for value in values)
    after = values[warmup:]
    assert all(first >= second - 1e-12 for first, second in pairwise(after))
    if total > warmup:
        assert values[total] == pytest.approx(floor)


def test_schedule_rises_linearly_to_one():
    assert [warmup_cosine(step, 100, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_step_seeds_are_stable_and_distinct():
    seeds = {step_seed(seed, step, stream) for seed in range(5) for step in range(50) for stream in range(3)}
    assert len(seeds) == 5 * 50 * 3
    assert all(0 <= seed < 2**63 for seed in seeds)
    first, second = (torch.rand(3, generator=step_generator(1, 2, 3)) for _ in range(2))
    assert torch.equal(first, second)


def test_ema_follows_constant_weights_and_copies_integer_buffers():
    module = nn.BatchNorm1d(3)
    ema = Ema(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(2.0)
        module.num_batches_tracked.fill_(7)
    for step in range(200):
        ema.update(module, step)
    target = nn.BatchNorm1d(3)
    ema.copy_to(target)
    assert torch.allclose(target.weight, torch.full((3,), 2.0), atol=1e-4)
    assert int(target.num_batches_tracked) == 7


def test_checkpoints_round_trip_and_only_the_newest_stays(tmp_path: Path):
    assert load_checkpoint(tmp_path) is None
    for step in (5, 10):
        tensors = {"w": torch.full((2,), float(step))}
        save_checkpoint(tmp_path, Checkpoint(step, 1.5, {"lr": 0.1}, tensors, {}, {"0": {"state": {}}}))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert (loaded.step, loaded.seconds, loaded.recipe) == (10, 1.5, {"lr": 0.1})
    assert loaded.model["w"].tolist() == [10.0, 10.0]
    assert loaded.ema == {}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000010"]


def test_an_unfinished_checkpoint_is_ignored(tmp_path: Path):
    save_checkpoint(tmp_path, Checkpoint(5, 0.0, {}, {"w": torch.zeros(1)}, {}, {}))
    (tmp_path / "checkpoints" / "step-00000009.part").mkdir()
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded.step == 5


def test_log_lines_are_json(tmp_path: Path):
    log = JsonlLog(tmp_path / "sub" / "log.jsonl")
    log.write(step=1, loss=0.12345678)
    log.write(step=2, loss=0.1)
    lines = [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()]
    assert lines == [{"step": 1, "loss": 0.123457}, {"step": 2, "loss": 0.1}]
