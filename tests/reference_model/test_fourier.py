from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import reference_model
from reference_model.fourier import fourier_embed, fourier_frequencies


@pytest.mark.parametrize("name", ["boxes", "scribbles", "rand"])
def test_equals_recorded(
    name: str,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    recorded = load_arrays("fourier")
    assert relative_error(fourier_embed(recorded[f"{name}.in"]), recorded[f"{name}.out"]) <= 1e-5


def test_frequency_bands_equal_recorded(
    relative_error: Callable[[Tensor, Tensor], float], load_arrays: Callable[[str], dict[str, Tensor]]
) -> None:
    recorded = load_arrays("fourier")
    assert torch.equal(fourier_frequencies(16), recorded["freq_bands"])
    assert relative_error(fourier_embed(recorded["rand.in"], 8), recorded["rand_8freqs.out"]) <= 1e-5


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=5), st.integers(1, 16))
def test_layout_is_sine_then_cosine_of_the_whole_vector(values: list[float], freqs: int) -> None:
    out = fourier_embed(torch.tensor(values, dtype=torch.float64), freqs).tolist()
    size = len(values)
    assert len(out) == 2 * freqs * size
    for band in range(freqs):
        frequency = 100 ** (band / freqs)
        for i, value in enumerate(values):
            assert math.isclose(out[2 * band * size + i], math.sin(frequency * value), abs_tol=1e-4)
            assert math.isclose(out[(2 * band + 1) * size + i], math.cos(frequency * value), abs_tol=1e-4)


def test_integer_coordinates_are_refused() -> None:
    with pytest.raises(ValueError, match="floating point"):
        fourier_embed(torch.zeros(2, 4, dtype=torch.int64))


def test_public_name() -> None:
    assert reference_model.fourier_embed is fourier_embed
    with pytest.raises(AttributeError, match="nothing"):
        _ = reference_model.nothing
