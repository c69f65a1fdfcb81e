from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reference_model.scaleu import FreeU, ScaleU, filter_skip, freeu_scalers, replaced_scaleu
from reference_model.unet import InstanceUNet


def fft_filter(h: Tensor, scale: float) -> Tensor:
    """The definition: shifted spectrum, central window of 2x2 times `scale`."""
    spectrum = torch.fft.fftshift(torch.fft.fftn(h, dim=(-2, -1)), dim=(-2, -1))
    row, col = h.shape[-2] // 2, h.shape[-1] // 2
    spectrum[..., max(row - 1, 0) : row + 1, max(col - 1, 0) : col + 1] *= scale
    return torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=(-2, -1)), dim=(-2, -1)).real


@pytest.mark.parametrize("size", ["1x1", "2x2", "3x8", "5x5", "6x6", "7x4", "8x8"])
def test_filter_equals_recorded(
    size: str,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    recorded = load_arrays("fourier_filter")
    out = filter_skip(recorded[f"{size}.in"], recorded[f"{size}.scale"])
    assert relative_error(out, recorded[f"{size}.out"]) <= 1e-5


def test_layer_equals_recorded(
    golden_unet: InstanceUNet,
    relative_error: Callable[[Tensor, Tensor], float],
    load_arrays: Callable[[str], dict[str, Tensor]],
) -> None:
    recorded = load_arrays("fourier_filter")
    assert golden_unet.scaleu is not None
    hidden, skip = golden_unet.scaleu[4](recorded["scaleu4.h_in"], recorded["scaleu4.hs_in"])
    assert relative_error(hidden, recorded["scaleu4.h_out"]) <= 1e-5
    assert relative_error(skip, recorded["scaleu4.hs_out"]) <= 1e-5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 17), st.integers(1, 17), st.floats(0, 2), st.integers(0, 1000))
def test_filter_equals_fft_at_any_size(
    relative_error: Callable[[Tensor, Tensor], float], height: int, width: int, scale: float, seed: int
) -> None:
    h = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(seed))
    assert relative_error(filter_skip(h, scale), fft_filter(h, scale)) <= 1e-5


def test_fresh_layer_changes_nothing_and_learns() -> None:
    layer = ScaleU(6)
    hidden, skip = torch.randn(2, 6, 5, 4), torch.randn(2, 3, 5, 4)
    with torch.inference_mode():  # fills the cache of the basis
        same_hidden, same_skip = layer(hidden, skip)
    assert torch.equal(same_hidden, hidden)
    assert torch.allclose(same_skip, skip, atol=1e-6)
    outputs = layer(hidden, skip)
    (outputs[0].square().sum() + outputs[1].square().sum()).backward()
    assert layer.b.grad is not None
    assert layer.s.grad is not None
    assert layer.b.grad.abs().min() > 0
    assert layer.s.grad.abs().min() > 0


def test_half_precision_is_filtered_in_float32(relative_error: Callable[[Tensor, Tensor], float]) -> None:
    h = torch.randn(1, 2, 24, 24, generator=torch.Generator().manual_seed(1))
    out = filter_skip(h.to(torch.bfloat16), 0.3)
    assert out.dtype == torch.bfloat16
    exact = filter_skip(h.to(torch.bfloat16).float(), 0.3).to(torch.bfloat16)
    assert torch.equal(out, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(filter_skip(h, 0.3), filter_skip(h, 0.3).float())
        assert relative_error(filter_skip(h, 0.3), fft_filter(h, 0.3)) <= 1e-5


@pytest.mark.parametrize("stage", [0, 1])
def test_freeu_is_that_of_diffusers(stage: int) -> None:
    from diffusers.utils.torch_utils import apply_freeu

    hidden, skip = torch.randn(2, 6, 8, 8), torch.randn(2, 4, 8, 8)
    constants = {"b1": 1.5, "b2": 1.6, "s1": 0.9, "s2": 0.2}
    expected = apply_freeu(stage, hidden.clone(), skip.clone(), **constants)
    module = FreeU(constants[f"b{stage + 1}"], constants[f"s{stage + 1}"])
    for has, want in zip(module(hidden, skip), expected, strict=True):
        torch.testing.assert_close(has, want)


def test_replaced_scaleu_acts_and_is_put_right() -> None:
    from tests.reference_model.tiny import tiny_unet

    torch.manual_seed(0)
    unet = tiny_unet().eval()
    arguments = (torch.randn(1, unet.config.in_channels, 16, 16), 10)
    states = torch.randn(1, 7, unet.config.cross_attention_dim)
    with torch.no_grad():
        for scaler in unet.scaleu:
            scaler.b.fill_(0.3)
            scaler.s.fill_(-0.4)
        learned = unet(*arguments, states).sample
        with replaced_scaleu(unet, None):
            off = unet(*arguments, states).sample
        # Constants of 1 change nothing, and only the first blocks are FreeU's.
        with replaced_scaleu(unet, freeu_scalers(unet, [(1.0, 1.0)])):
            torch.testing.assert_close(unet(*arguments, states).sample, off, rtol=1e-4, atol=1e-5)
        with replaced_scaleu(unet, freeu_scalers(unet, [(1.5, 0.9), (1.6, 0.2)])):
            freeu = unet(*arguments, states).sample
        assert torch.equal(unet(*arguments, states).sample, learned)
    assert not torch.allclose(off, learned)
    assert not torch.allclose(off, freeu)
    with pytest.raises(ValueError, match="1 given"), replaced_scaleu(unet, [FreeU(1.0, 1.0)]):
        pass
