"""Solvers: how one group of latents moves from step to step.

A solver step is a generator: it yields what the denoiser must look at, ``(latents, timestep)``, receives the
(guided) model output and returns the next latents. So several groups can advance in lock step and share one
batched UNet call.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Generator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "PlmsSolver",
    "SchedulerSolver",
    "Solver",
    "SolverStep",
    "make_solver",
    "plms_timesteps",
    "stable_diffusion_alphas_cumprod",
]

SolverStep = Generator[tuple[Tensor, Any], Tensor, Tensor]
"""Yields (latents for the denoiser, timestep), is sent the model output, returns the next latents."""

_PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


class Solver(Protocol):
    """Moves one group of latents; keeps the history of that group."""

    @property
    def timesteps(self) -> Sequence[Any]:
        """Timestep of each step, in sampling order."""
        ...

    @property
    def initial_scale(self) -> float:
        """Factor of the initial unit-variance noise."""
        ...

    def fork(self, generators: list[torch.Generator] | None = None) -> Solver:
        """An independent copy without history, for another group."""
        ...

    def step(self, latents: Tensor, index: int) -> SolverStep:
        """Takes step number `index`."""
        ...


def stable_diffusion_alphas_cumprod() -> Tensor:
    """Cumulative signal shares of Stable Diffusion's 1000 training steps.

    Betas are linear in their square root from 0.00085 to 0.012, computed in float64 as published.

    Returns:
        float32 [1000].
    """
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    return torch.from_numpy(np.cumprod(1.0 - betas)).to(torch.float32)


def plms_timesteps(num_inference_steps: int, num_train_timesteps: int = 1000) -> list[int]:
    """Timesteps of the published sampler, highest first.

    ``range(0, T, T // S) + 1``: if S does not divide T there are more steps than asked for (S = 7 gives 8,
    S = 30 gives 31). Where the highest would be T (S = 3, 9, 27, 37, 111, 333), one beyond the training schedule, the
    published sampler fails; here that step is left out.

    Args:
        num_inference_steps: S.
        num_train_timesteps: T.

    Returns:
        The timesteps.

    Raises:
        ValueError: If S is not in [1, T / 2]: beyond, the published rule leaves the training schedule.
    """
    if (
        not isinstance(num_inference_steps, int | np.integer)
        or not 1 <= num_inference_steps <= num_train_timesteps // 2
    ):
        raise ValueError(
            f"num_inference_steps: {num_inference_steps} is not a whole number in 1..{num_train_timesteps // 2}"
        )
    stride = num_train_timesteps // num_inference_steps
    return [step + 1 for step in range(0, num_train_timesteps - 1, stride)][::-1]


class PlmsSolver:
    """Pseudo linear multistep (PLMS), as published with InstanceDiffusion.

    The first step is pseudo improved Euler (two evaluations), the next two use Adams-Bashforth of order 2 and
    3, all others order 4. Arithmetic is done in the dtype of the latents (float32).

    Args:
        num_inference_steps: Steps asked for; `plms_timesteps` says how many there are.
        alphas_cumprod: float [T] cumulative signal shares; None takes Stable Diffusion's.
        prediction_type: What the model predicts: ``"epsilon"``, ``"v_prediction"`` or ``"sample"``.
        final_alpha: Signal share after the last step; None takes ``alphas_cumprod[0]``, as published.

    Raises:
        ValueError: If the steps or the prediction type are not supported.
    """

    initial_scale = 1.0

    def __init__(
        self,
        num_inference_steps: int,
        alphas_cumprod: Tensor | None = None,
        *,
        prediction_type: str = "epsilon",
        final_alpha: float | None = None,
    ) -> None:
        if prediction_type not in _PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type: {prediction_type!r} is unknown; choose from {', '.join(_PREDICTION_TYPES)}"
            )
        table = stable_diffusion_alphas_cumprod() if alphas_cumprod is None else alphas_cumprod
        self._table = table.detach().to(device="cpu", dtype=torch.float32)
        self._timesteps = plms_timesteps(num_inference_steps, len(self._table))
        self._prediction_type = prediction_type
        self._final = float(self._table[0]) if final_alpha is None else float(final_alpha)
        self._history: list[Tensor] = []

    @property
    def timesteps(self) -> Sequence[int]:
        """Timestep of each step, highest first."""
        return self._timesteps

    def fork(self, generators: list[torch.Generator] | None = None) -> PlmsSolver:
        """An independent copy without history; PLMS draws no noise, so `generators` are not used."""
        other = copy.copy(self)
        other._history = []
        return other

    def _noise(self, output: Tensor, latents: Tensor, timestep: int) -> Tensor:
        """The noise that a model output at a timestep stands for."""
        if self._prediction_type == "epsilon":
            return output
        signal = self._table[timestep].to(latents.device)
        if self._prediction_type == "v_prediction":
            return signal.sqrt() * output + (1 - signal).sqrt() * latents
        return (latents - signal.sqrt() * output) / (1 - signal).sqrt()

    def _move(self, latents: Tensor, noise: Tensor, index: int) -> Tensor:
        """Deterministic DDIM move from step `index` to the next one."""
        last = index + 1 >= len(self._timesteps)
        now = self._table[self._timesteps[index]].to(latents.device)
        then = torch.tensor(self._final) if last else self._table[self._timesteps[index + 1]]
        then = then.to(latents.device)
        clean = (latents - (1 - now).sqrt() * noise) / now.sqrt()
        return then.sqrt() * clean + (1 - then).sqrt() * noise

    def step(self, latents: Tensor, index: int) -> SolverStep:
        """Takes step number `index`; see the module's text for the protocol."""
        timestep = self._timesteps[index]
        noise = self._noise((yield latents, timestep), latents, timestep)
        old = self._history
        if not old:
            ahead = self._move(latents, noise, index)
            next_timestep = self._timesteps[min(index + 1, len(self._timesteps) - 1)]
            next_noise = self._noise((yield ahead, next_timestep), ahead, next_timestep)
            combined = (noise + next_noise) / 2
        elif len(old) == 1:
            combined = (3 * noise - old[-1]) / 2
        elif len(old) == 2:
            combined = (23 * noise - 16 * old[-1] + 5 * old[-2]) / 12
        else:
            combined = (55 * noise - 59 * old[-1] + 37 * old[-2] - 9 * old[-3]) / 24
        self._history = [*old, noise][-3:]
        return self._move(latents, combined, index)


class SchedulerSolver:
    """Any diffusers scheduler behind the `Solver` interface.

    Args:
        scheduler: The scheduler; it is copied, never changed.
        num_inference_steps: Steps asked for.
        device: Where the latents live.
        generators: One random generator per latent of the group, for schedulers that add noise.

    Raises:
        ValueError: If the scheduler's step needs more than model output, timestep and latents.
    """

    def __init__(
        self,
        scheduler: Any,
        num_inference_steps: int,
        device: torch.device | str = "cpu",
        generators: list[torch.Generator] | None = None,
    ) -> None:
        _check_scheduler(scheduler)
        self._fresh = copy.deepcopy(scheduler)
        self._fresh.set_timesteps(num_inference_steps, device=device)
        self._scheduler = copy.deepcopy(self._fresh)
        self._options: dict[str, Any] = {}
        if generators is not None and "generator" in inspect.signature(scheduler.step).parameters:
            self._options["generator"] = generators

    @property
    def timesteps(self) -> Sequence[Tensor]:
        """Timestep of each step, in the scheduler's order."""
        return list(self._fresh.timesteps)

    @property
    def initial_scale(self) -> float:
        """The scheduler's `init_noise_sigma`; those of flow matching have none and start from the noise itself."""
        return float(getattr(self._fresh, "init_noise_sigma", 1.0))

    def fork(self, generators: list[torch.Generator] | None = None) -> SchedulerSolver:
        """An independent copy without history."""
        other = copy.copy(self)
        other._scheduler = copy.deepcopy(self._fresh)
        accepts = "generator" in inspect.signature(self._fresh.step).parameters
        other._options = {"generator": generators} if generators is not None and accepts else {}
        return other

    def step(self, latents: Tensor, index: int) -> SolverStep:
        """Takes step number `index`; see the module's text for the protocol."""
        timestep = self._fresh.timesteps[index]
        scale = getattr(self._scheduler, "scale_model_input", None)
        output = yield latents if scale is None else scale(latents, timestep), timestep
        moved: Tensor = self._scheduler.step(output, timestep, latents, **self._options).prev_sample
        return moved


def _check_scheduler(scheduler: Any) -> None:
    """Refuses schedulers for other tasks, such as inpainting."""
    name = type(scheduler).__name__
    if not hasattr(scheduler, "step") or not hasattr(scheduler, "set_timesteps"):
        raise ValueError(
            f"scheduler: {name} has no step; choose one for text-to-image, such as DDIMScheduler"
        )
    others = list(inspect.signature(scheduler.step).parameters.values())[3:]
    if needed := [
        each.name for each in others if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    ]:
        raise ValueError(
            f"scheduler: {name} needs {', '.join(needed)} at every step; choose one for text-to-image, such as "
            "DDIMScheduler"
        )


def make_solver(scheduler: Any, num_inference_steps: int, device: torch.device | str = "cpu") -> Solver:
    """The solver for a pipeline's scheduler.

    A `PNDMScheduler` with ``skip_prk_steps`` (Stable Diffusion's default) stands for the published PLMS: its
    noise table, prediction type and final share are used, its timestep options are not. Every other
    scheduler runs its own steps.

    Args:
        scheduler: A diffusers scheduler.
        num_inference_steps: Steps asked for.
        device: Where the latents live.

    Returns:
        A solver without history.
    """
    if type(scheduler).__name__ == "PNDMScheduler" and scheduler.config.skip_prk_steps:
        return PlmsSolver(
            num_inference_steps,
            scheduler.alphas_cumprod,
            prediction_type=scheduler.config.prediction_type,
            final_alpha=float(scheduler.final_alpha_cumprod),
        )
    return SchedulerSolver(scheduler, num_inference_steps, device)
