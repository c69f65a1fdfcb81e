"""Out of memory: recognised, and answered with fewer rows per call."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reference_model.memory import is_out_of_memory, release_memory

from .test_pipeline import PROMPTS, SEEDS, latents
from .tiny import tiny_pipeline


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((10**9,), np.dtype(float)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        torch.cuda.OutOfMemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
)
def test_out_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes"), ValueError("out of memory"), KeyError()]
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_the_allocator_of_the_cpu_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    release_memory()


@pytest.fixture
def no_collection(monkeypatch):
    """A collection takes long in a process that holds as much as the tests do."""
    monkeypatch.setattr("reference_model.memory.gc.collect", lambda: 0)


class Small:
    """Lets a UNet run out of memory above so many rows; counts the calls that it survives."""

    def __init__(self, unet, fits: int) -> None:
        self.fits, self.sizes, self.failed = fits, [], 0
        unet.register_forward_pre_hook(self)

    def __call__(self, module, args) -> None:
        if len(args[0]) > self.fits:
            self.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes.append(len(args[0]))


@pytest.mark.parametrize("fits", [1, 3])
def test_a_unet_call_that_does_not_fit_is_made_in_smaller_parts(fits, no_collection):
    expected = tiny_pipeline()(PROMPTS, SEEDS, mis=0.5, output_type="latent")
    pipe = tiny_pipeline()
    small = Small(pipe.unet, fits)
    own = {name: module.__dict__.get("forward") for name, module in pipe.unet.named_modules()}
    output = pipe(PROMPTS, SEEDS, mis=0.5, output_type="latent")
    assert torch.allclose(output.images, expected.images, atol=2e-5)
    assert {name: module.__dict__.get("forward") for name, module in pipe.unet.named_modules()} == own
    # Nothing is computed twice: the rows are those of a run without trouble.
    assert (sum(small.sizes), len(small.sizes)) == (output.unet_rows, output.unet_calls)
    assert output.unet_rows == expected.unet_rows
    # The bound is remembered: the next call does not try more again.
    failed, bound = small.failed, pipe.unet_batch((8, 8))
    assert 1 <= bound <= fits
    assert torch.allclose(latents(pipe, mis=0.5), expected.images, atol=2e-5)
    assert small.failed == failed
    assert pipe.unet_batch((8, 8), 64) == bound
    assert pipe.unet_batch((4, 4), 64) == 64


def test_a_row_that_does_not_fit_is_an_error_and_leaves_the_unet_as_it_was(no_collection):
    pipe = tiny_pipeline()
    small = Small(pipe.unet, 0)
    with pytest.raises(torch.OutOfMemoryError):
        latents(pipe)
    small.fits = 100
    assert torch.allclose(latents(pipe), latents(tiny_pipeline()), atol=2e-5)


def test_a_decoder_that_does_not_fit_takes_fewer_images(no_collection):
    pipe = tiny_pipeline()
    expected = pipe(PROMPTS, SEEDS, output_type="np").images
    own, sizes = pipe.vae.decode, []

    def decode(latents, *args, **kwargs):
        sizes.append(len(latents))
        if len(latents) > 1:
            raise MemoryError
        return own(latents, *args, **kwargs)

    pipe.vae.decode = decode
    assert np.allclose(pipe(PROMPTS, SEEDS, output_type="np").images, expected, atol=1e-5)
    assert sizes == [3, 1, 1, 1]
