"""The plans against the `step` of diffusers' own schedulers, bit for bit."""

from inspect import signature
from typing import Any

import pytest
import torch

from generator_service.schedules import SCHEDULERS, plan_sampling
from protocol.errors import UserError

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PIPELINE = {"clip_sample": False, "steps_offset": 1}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
CPU = torch.device("cpu")


def _walk(sampler: str, config: dict[str, Any], steps: int, dtype: torch.dtype) -> None:
    """Feeds both the same latents, model outputs and noise at every step and compares all that comes out."""
    kind, fixed = SCHEDULERS[sampler]
    scheduler = kind.from_config(config | fixed)
    scheduler.set_timesteps(steps)
    plan = plan_sampling(sampler, config, steps=steps, device=CPU)
    assert plan.timesteps_S.tolist() == scheduler.timesteps.tolist()
    dice = torch.Generator().manual_seed(0)
    start_NCHW = torch.randn((2, 4, 8, 8), generator=dice).to(dtype)
    assert torch.equal(plan.begin(start_NCHW), start_NCHW * scheduler.init_noise_sigma)
    takes_noise = {"generator": None} if "generator" in signature(scheduler.step).parameters else {}
    memory_NCHW = None
    for step, timestep in enumerate(scheduler.timesteps):
        x_NCHW = torch.randn((2, 4, 8, 8), generator=dice).to(dtype)
        output_NCHW = torch.randn((2, 4, 8, 8), generator=dice).to(dtype)
        noise_NCHW = None
        if plan.needs_noise(step):
            noise_NCHW = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(step), dtype=dtype)
        if takes_noise:
            takes_noise["generator"] = torch.Generator().manual_seed(step)
        assert torch.equal(plan.shown(step, x_NCHW), scheduler.scale_model_input(x_NCHW, timestep)), step
        expected_NCHW = scheduler.step(output_NCHW, timestep, x_NCHW, **takes_noise, return_dict=False)[0]
        got_NCHW, memory_NCHW = plan.advance(step, output_NCHW, x_NCHW, noise_NCHW, memory_NCHW)
        assert torch.equal(got_NCHW, expected_NCHW), step


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_ddim_equals_diffusers(spacing: str, kind: str, dtype: torch.dtype) -> None:
    """All spacings and predictions, with either end of the schedule."""
    config = STABLE_DIFFUSION | PIPELINE | {"timestep_spacing": spacing, "prediction_type": kind}
    _walk("ddim", config, 7, dtype)
    _walk("ddim", config | {"set_alpha_to_one": False}, 20, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_lcm_equals_diffusers(steps: int, kind: str, dtype: torch.dtype) -> None:
    """Any number of steps; the last one takes no noise."""
    config = STABLE_DIFFUSION | PIPELINE | {"prediction_type": kind}
    _walk("lcm", config, steps, dtype)
    _walk("lcm", config | {"original_inference_steps": 20, "timestep_scaling": 3.0}, steps, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_euler_equals_diffusers(spacing: str, kind: str, dtype: torch.dtype) -> None:
    """SD-Turbo's one step, other sigmas, another end; ancestral at trailing timesteps."""
    config = STABLE_DIFFUSION | PIPELINE | {"timestep_spacing": spacing, "prediction_type": kind}
    for steps in (1, 4, 20):
        _walk("euler", config, steps, dtype)
    _walk("euler", config | {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, 5, dtype)
    if kind != "sample":
        for steps in (1, 4):
            _walk("turbo", config, steps, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("solver", ["midpoint", "heun"])
def test_dpm_solver_equals_diffusers(solver: str, kind: str, dtype: torch.dtype) -> None:
    """Few and many steps, either end, either order."""
    config = STABLE_DIFFUSION | PIPELINE | {"prediction_type": kind, "solver_type": solver}
    for steps in (1, 2, 5, 20):
        _walk("dpm++", config, steps, dtype)
        _walk(
            "dpm++", config | {"final_sigmas_type": "sigma_min", "timestep_spacing": "leading"}, steps, dtype
        )
    _walk("dpm++", config | {"solver_order": 1}, 4, dtype)
    _walk("dpm++", config | {"use_karras_sigmas": True, "euler_at_final": True}, 6, dtype)


@pytest.mark.parametrize("sampler", ["ddim", "lcm"])
def test_zero_terminal_snr_equals_diffusers(sampler: str) -> None:
    """The first step begins at pure noise."""
    config = STABLE_DIFFUSION | PIPELINE | ZERO_SNR
    _walk(sampler, config, 4, torch.float32)
    assert plan_sampling(sampler, config, steps=4, device=CPU).alpha_S[0] == 0


def test_noise_is_drawn_between_lcm_steps_only() -> None:
    """Three draws for four LCM steps, none for DDIM."""
    lcm = plan_sampling("lcm", STABLE_DIFFUSION, steps=4, device=CPU)
    ddim = plan_sampling("ddim", STABLE_DIFFUSION, steps=4, device=CPU)
    assert [lcm.needs_noise(step) for step in range(4)] == [True, True, True, False]
    assert not any(ddim.needs_noise(step) for step in range(4))


@pytest.mark.parametrize(
    ("sampler", "config", "steps", "text"),
    [
        ("heun", {}, 4, r"expected one of ddim, lcm, euler, dpm\+\+, turbo, got heun"),
        ("turbo", {"prediction_type": "sample"}, 4, "expected epsilon or v_prediction, got sample"),
        ("dpm++", {"solver_order": 3}, 4, "expected solver_order 1 or 2, got solver_order 3"),
        ("dpm++", {"thresholding": True}, 4, "dynamic thresholding"),
        ("lcm", {}, 51, "smaller than `num_inference_steps`: 51"),
        ("ddim", {}, 1001, "cannot be larger than"),
        ("ddim", {"timestep_spacing": "leading", "steps_offset": 1}, 1000, "the sampler cannot run"),
        ("ddim", {"thresholding": True}, 4, "dynamic thresholding"),
        ("ddim", ZERO_SNR | {"prediction_type": "epsilon"}, 4, "epsilon is predicted at zero signal"),
    ],
)
def test_refuses_what_cannot_run(sampler: str, config: dict[str, Any], steps: int, text: str) -> None:
    """One line that names the setting."""
    with pytest.raises(UserError, match=text):
        plan_sampling(sampler, STABLE_DIFFUSION | config, steps=steps, device=CPU)
