"""Muon: orthogonal updates, a lower loss, and shares that add up."""

import pytest
import torch
from torch import nn

from reference_model.training import optim
from reference_model.training.optim import Muon, orthogonalize, split_parameters
from tests.reference_model.tiny import tiny_unet


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (32, 32)])
def test_singular_values_end_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape, generator=generator)))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_a_quadratic_falls():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(16, 16))
    optimizer = Muon([weight], lr=0.2, weight_decay=0.0)
    losses = []
    for _ in range(60):
        loss = (weight - torch.eye(16)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_every_parameter_has_one_optimizer():
    model = nn.ModuleDict(
        {
            "conv_in": nn.Conv2d(4, 32, 3),
            "hidden": nn.Conv2d(32, 32, 3),
            "linear": nn.Linear(32, 48),
            "narrow": nn.Linear(32, 3),
            "scaleu": nn.Linear(32, 32),
        }
    )
    matrices, others = split_parameters(model)
    assert {id(p) for p in matrices} == {id(model["hidden"].weight), id(model["linear"].weight)}
    assert len(matrices) + len(others) == len(list(model.parameters()))
    assert not {id(p) for p in matrices} & {id(p) for p in others}


def test_the_unet_is_split_completely():
    unet = tiny_unet(block_out_channels=(32, 32), cross_attention_dim=32, grounding_mid_dim=32)
    unet.time_embedding.requires_grad_(False)
    matrices, others = split_parameters(unet)
    trainable = [id(parameter) for parameter in unet.parameters() if parameter.requires_grad]
    assert sorted(map(id, [*matrices, *others])) == sorted(trainable)
    hidden = {id(parameter) for parameter in matrices}
    kept_out = [
        (name, parameter)
        for name, parameter in unet.named_parameters()
        if parameter.ndim < 2 or any(part in name for part in ("conv_in", "conv_out", "null_", "scaleu"))
    ]
    assert not [name for name, parameter in kept_out if id(parameter) in hidden]
    for part in ("conv_in", "conv_out", "null_", "scaleu"):
        assert any(part in name for name, _ in kept_out), part
    assert id(unet.mid_block.resnets[0].conv1.weight) in hidden


def test_shares_of_two_processes_add_up(monkeypatch):
    def after_one_step(rank, world_size):
        generator = torch.Generator().manual_seed(1)
        weights = [nn.Parameter(torch.randn(16, 20, generator=generator)) for _ in range(3)]
        before = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        Muon(weights, lr=0.1, weight_decay=0.0, rank=rank, world_size=world_size).step()
        return [weight.detach() - old for weight, old in zip(weights, before, strict=True)]

    whole = after_one_step(0, 1)
    monkeypatch.setattr(optim.torch.distributed, "all_reduce", lambda flat: None)
    shares = [after_one_step(rank, 2) for rank in range(2)]
    for one, first, second in zip(whole, *shares, strict=True):
        assert torch.allclose(one, first + second, atol=1e-6)
        assert first.abs().sum() == 0 or second.abs().sum() == 0


def test_a_closure_is_refused():
    with pytest.raises(ValueError, match="no closure"):
        Muon([nn.Parameter(torch.zeros(16, 16))]).step(lambda: 0)
