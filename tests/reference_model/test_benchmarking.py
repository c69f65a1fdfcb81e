"""The benchmark of the schedules, on a case of a few milliseconds."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from reference_model.benchmarking import CASES, Case, compare, main, measure

CASE = Case("shapes", instances=(2, 1), steps=2, mis=0.5, latent_size=8)


def test_both_schedules_draw_the_same():
    plain, fast = measure(CASE, "plain"), measure(CASE, "fast")
    assert plain.latents.shape == (2, 8, 8, 8)
    assert np.abs(plain.latents - fast.latents).max() < 5e-4 * plain.latents.std()
    # One image after another: (1 + n) chains of one step with two evaluations, then one step, two branches.
    assert plain.unet_calls == (3 * 2 * 2 + 2) + (2 * 2 * 2 + 2)
    assert fast.unet_calls < plain.unet_calls
    assert min(plain.cpu_seconds, fast.cpu_seconds, plain.peak_mib) > 0


@pytest.mark.slow
def test_a_compiled_model_draws_the_same():
    compiled = measure(replace(CASE, compiled=True), "fast")
    plain = measure(CASE, "plain")
    assert np.abs(plain.latents - compiled.latents).max() < 5e-4 * plain.latents.std()


def test_report():
    text = "\n".join(compare(CASE, apart=False))
    assert "2 layouts, 3 instances, 2 steps" in text
    assert re.search(r"CPU s .* \d+\.\d\dx", text)
    assert re.search(r"difference of the latents: \d\.\de-\d+", text)


def test_default_cases_are_the_sizes_of_the_shipped_and_the_published_model():
    assert sum(CASES["shapes"].instances) == 5 * len(CASES["shapes"].instances) == 40
    assert (CASES["sd15"].latent_size, CASES["sd15"].width) == (64, 768)


def test_unknown_case(caplog):
    assert main(["sdxl"]) == 2
    assert "cases: shapes, sd15" in caplog.text


@pytest.mark.parametrize("option", ["--mis=1.5", "--alpha=1.5", "--steps=0", "--layouts=0"])
def test_bad_numbers_are_refused(option):
    assert main(["shapes", option]) == 2
