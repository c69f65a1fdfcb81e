"""Muon for the weight matrices, AdamW for the rest, in float32 and shared between processes.

``torch.optim.Muon`` orthogonalises in bfloat16, which CPUs without bfloat16 units emulate very slowly;
here the iteration runs in the parameter's own dtype, and every process orthogonalises only its share
of the matrices.

Source of the method: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks"
(2024); the scale ``0.2 * sqrt(max(rows, columns))`` matches AdamW's update size (Liu et al., "Muon is
scalable for LLM training", 2025, equation 4).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonalize", "split_parameters"]

# Quintic Newton-Schulz coefficients of the Muon reference.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Tensor, num_steps: int = 5) -> Tensor:
    """Approximates the nearest semi-orthogonal matrix by a quintic Newton-Schulz iteration.

    Args:
        matrix: Float [R, C].
        num_steps: Iterations.

    Returns:
        Matrix of the same shape whose singular values lie near 1.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(num_steps):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.mT


def split_parameters(
    model: nn.Module, not_hidden: Iterable[str] = ("conv_in", "conv_out", "null_", "scaleu")
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Splits trainable parameters into hidden weight matrices (Muon) and the rest (AdamW).

    Args:
        model: The model.
        not_hidden: Parts of names whose parameters go to AdamW whatever their shape.

    Returns:
        (matrices, others); convolution kernels count as matrices [out, in * height * width].
    """
    markers = tuple(not_hidden)
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= 16
        hidden = is_matrix and not any(marker in name for marker in markers)
        (matrices if hidden else others).append(parameter)
    return matrices, others


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; decoupled weight decay.

    Args:
        params: Parameters of two or more dimensions.
        lr: Learning rate, on AdamW's scale.
        momentum: Nesterov momentum.
        weight_decay: Decoupled weight decay.
        rank: Index of this process.
        world_size: Number of processes; each orthogonalises every ``world_size``-th matrix, and the
            results are summed over the processes.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 2e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._rank = rank
        self._world_size = world_size

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients, which must be equal on all processes."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = self._updates(params, group["momentum"])
            for parameter, update in zip(params, updates, strict=True):
                rows, columns = parameter.shape[0], parameter[0].numel()
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                scale = 0.2 * math.sqrt(max(rows, columns))
                parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * scale)

    def _updates(self, params: list[nn.Parameter], momentum: float) -> list[Tensor]:
        updates: list[Tensor] = []
        for position, parameter in enumerate(params):
            assert parameter.grad is not None  # noqa: S101  (narrowing; filtered by the caller)
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1.0 - momentum)
            if position % self._world_size == self._rank:
                nesterov = parameter.grad.lerp(state["momentum"], momentum)
                updates.append(orthogonalize(nesterov.reshape(parameter.shape[0], -1)))
            else:
                updates.append(torch.zeros_like(parameter).reshape(parameter.shape[0], -1))
        if self._world_size > 1 and updates:
            flat = torch.cat([update.reshape(-1) for update in updates])
            torch.distributed.all_reduce(flat)
            updates = [
                part.reshape(update.shape)
                for part, update in zip(
                    flat.split([update.numel() for update in updates]), updates, strict=True
                )
            ]
        return updates
