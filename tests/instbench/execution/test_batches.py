from __future__ import annotations

import pytest
import torch

from instbench import defaults
from instbench.execution import batches
from instbench.execution.batches import AutoBatch, BatchSize, automatic_batch
from instbench.execution.generate import generate_images
from instbench.execution.session import Session
from instbench.runs.memory import DeviceMemory
from instbench.runs.store import RunFolder
from tests.instbench.fakes import CANVAS, FakeGenerator
from tests.instbench.generators.helpers import instance, layout, request

CPU_MESSAGE = (
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_MESSAGE)]


class Small(FakeGenerator):
    """Runs out of memory in calls of more than so many images, half-way through."""

    def __init__(self, fits: int, error: Exception, *, times: int = 10**9) -> None:
        super().__init__()
        self.fits, self.oom, self.times = fits, error, times
        self.sizes: list[int] = []

    def generate(self, requests):
        self.sizes.append(len(requests))
        if len(requests) > self.fits and self.times > 0:
            self.times -= 1
            yield from super().generate(requests[: len(requests) // 2])
            raise self.oom
        yield from super().generate(requests)


@pytest.fixture(autouse=True)
def no_collection(monkeypatch):
    """A collection takes long in a process that holds as much as the tests do."""
    monkeypatch.setattr("reference_model.memory.gc.collect", lambda: 0)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    return folder


def some_requests(count: int):
    return [
        request(layout(f"img-{number}", instance()), seed=number, canvas=CANVAS) for number in range(count)
    ]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_out_of_memory_halves_and_makes_every_image_once(run, error):
    generator, size, requests = Small(3, error), BatchSize(16), some_requests(21)
    assert generate_images(run, generator, requests, size).made == 21
    assert generator.made == [one.layout.image_key for one in requests]  # each once, and in order
    assert size.images == 2
    assert generator.sizes[:3] == [16, 8, 4]  # what was made before the memory ran out is kept
    assert set(generator.sizes[3:]) <= {1, 2}
    assert len(run.read_image_log()) == 21


def test_a_single_image_that_ran_out_of_memory_is_tried_once_more(run):
    generator = Small(0, ERRORS[1], times=1)
    assert generate_images(run, generator, some_requests(2), 1).failed == []
    assert generator.sizes == [1, 1, 1]


def test_an_image_that_never_fits_fails_alone(run):
    class Large(FakeGenerator):
        def draw(self, request):
            if request.layout.image_key == "img-2":
                raise ERRORS[0]
            return super().draw(request)

    summary = generate_images(run, Large(), some_requests(5), 4)
    assert (summary.made, summary.failed) == (4, ["img-2"])
    assert run.read_image_log()["img-2"]["error"].startswith("MemoryError")


def test_other_errors_do_not_change_the_size(run):
    size = BatchSize(4)
    generator = Small(2, RuntimeError("shape mismatch"), times=1)
    assert generate_images(run, generator, some_requests(6), size).made == 6
    assert size.images == 4


def use_gpu(monkeypatch, *, weights: int, per_image: int, usable: int) -> list[int]:
    """A GPU whose peak follows the largest call; returns where calls are noted."""
    calls = [1]
    monkeypatch.setattr(
        batches,
        "device_memory",
        lambda: [DeviceMemory(weights, weights + per_image * max(calls), usable)],
    )
    return calls


def sizes_on_gpu(monkeypatch, rounds: int = 8, **memory) -> list[int]:
    calls, size = use_gpu(monkeypatch, **memory), AutoBatch(1, 32)
    seen = []
    for _ in range(rounds):
        seen.append(size.images)
        calls.append(size.images)
        size.worked(size.images)
    return seen


def test_on_a_gpu_the_size_doubles_as_far_as_it_should_fit(monkeypatch):
    assert sizes_on_gpu(monkeypatch, weights=10, per_image=1, usable=1000) == [1, 2, 4, 8, 16, 32, 32, 32]
    assert sizes_on_gpu(monkeypatch, weights=10, per_image=10, usable=100) == [1, 2, 4, 4, 4, 4, 4, 4]
    assert sizes_on_gpu(monkeypatch, weights=10, per_image=60, usable=100) == [1] * 8


def test_a_size_does_not_grow_after_a_short_call_or_after_it_was_halved(monkeypatch):
    use_gpu(monkeypatch, weights=1, per_image=1, usable=1000)
    size = AutoBatch(4, 32)
    size.worked(3)
    assert size.images == 4
    assert size.halve(4)
    size.worked(2)
    assert size.images == 2
    monkeypatch.setattr(batches, "device_memory", list)
    other = AutoBatch(1, 32)
    other.worked(1)
    assert other.images == 1  # nothing of this process is on a GPU


def test_on_the_cpu_the_size_is_bounded_by_free_memory(monkeypatch):
    monkeypatch.setattr(batches, "free_memory", lambda: 2**40)
    assert automatic_batch(128, "cpu").images == defaults.AUTO_BATCH_SIZE
    assert automatic_batch(512, "cpu").images == 1
    monkeypatch.setattr(batches, "free_memory", lambda: 5 * 2 * defaults.BYTES_PER_IMAGE)
    assert automatic_batch(128, "cpu").images == 5
    monkeypatch.setattr(batches, "free_memory", lambda: 0)
    assert automatic_batch(128, "cpu").images == 1


def test_the_session_chooses(monkeypatch):
    assert Session(batch_size=5).batch_size_for(512).images == 5
    assert isinstance(automatic_batch(512, "cuda:1"), AutoBatch)
    assert not isinstance(Session(device="cpu").batch_size_for(128), AutoBatch)
