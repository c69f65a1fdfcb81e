"""Sampling: PLMS as published, any diffusers scheduler, and the Multi-Instance Sampler."""

from reference_model.sampling.alpha import alpha_schedule
from reference_model.sampling.api import sample
from reference_model.sampling.denoiser import FastDenoiser, PlainDenoiser, default_unet_batch
from reference_model.sampling.multi_instance_sampler import run_sampler
from reference_model.sampling.solvers import (
    PlmsSolver,
    SchedulerSolver,
    Solver,
    make_solver,
    plms_timesteps,
    stable_diffusion_alphas_cumprod,
)

__all__ = [
    "FastDenoiser",
    "PlainDenoiser",
    "PlmsSolver",
    "SchedulerSolver",
    "Solver",
    "alpha_schedule",
    "default_unet_batch",
    "make_solver",
    "plms_timesteps",
    "run_sampler",
    "sample",
    "stable_diffusion_alphas_cumprod",
]
