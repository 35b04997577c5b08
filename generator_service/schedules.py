"""Denoising rules as frozen plans: every coefficient of every step is a tensor before the loop begins.

The noise schedule and the timesteps come from diffusers' own schedulers, made from the folder's
`scheduler_config.json`; the arithmetic of a step is that of their `step`, in the same order, so that equal
inputs give equal bits. x is the noisy latent, x0 the predicted clean one, alpha^2 + sigma^2 = 1.

DDIM (Song et al. 2021, eq. 12, eta = 0):   x' = alpha' x0 + sigma' eps
LCM (Luo et al. 2023, algorithm 3):         x' = alpha' (c_out x0 + c_skip x) + sigma' noise, but for the last
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, LCMScheduler
from torch import Tensor

from protocol.errors import UserError

_LCM_SIGMA_DATA = 0.5


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """How a UNet's output is read: `epsilon`, `v_prediction` or `sample`."""

    kind: str

    def clean(self, output_NCHW: Tensor, x_NCHW: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x0, [N, C, h, w]."""
        if self.kind == "epsilon":
            return (x_NCHW - sigma * output_NCHW) / alpha
        if self.kind == "v_prediction":
            return alpha * x_NCHW - sigma * output_NCHW
        return output_NCHW

    def noise(self, output_NCHW: Tensor, x_NCHW: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """eps, [N, C, h, w]."""
        if self.kind == "epsilon":
            return output_NCHW
        if self.kind == "v_prediction":
            return alpha * output_NCHW + sigma * x_NCHW
        return (x_NCHW - alpha * output_NCHW) / sigma


@dataclass(frozen=True, kw_only=True)
class DdimPlan:
    """Deterministic steps: no noise after the first latents."""

    prediction: Prediction
    timesteps_S: Tensor
    """int64."""
    alpha_S: Tensor
    sigma_S: Tensor
    next_alpha_S: Tensor
    next_sigma_S: Tensor

    def needs_noise(self, step: int) -> bool:
        """Whether `advance` reads its noise at this step."""
        return False

    def advance(self, step: int, output_NCHW: Tensor, x_NCHW: Tensor, noise_NCHW: Tensor | None) -> Tensor:
        """The latents of the next step."""
        alpha, sigma = self.alpha_S[step], self.sigma_S[step]
        x0_NCHW = self.prediction.clean(output_NCHW, x_NCHW, alpha, sigma)
        eps_NCHW = self.prediction.noise(output_NCHW, x_NCHW, alpha, sigma)
        direction_NCHW = self.next_sigma_S[step] * eps_NCHW
        return self.next_alpha_S[step] * x0_NCHW + direction_NCHW


@dataclass(frozen=True, kw_only=True)
class LcmPlan:
    """Each step jumps to the clean image and all but the last return to a lower noise level."""

    prediction: Prediction
    timesteps_S: Tensor
    """int64."""
    alpha_S: Tensor
    sigma_S: Tensor
    next_alpha_S: Tensor
    next_sigma_S: Tensor
    skip_S: Tensor
    out_S: Tensor

    def needs_noise(self, step: int) -> bool:
        """Whether `advance` reads its noise at this step."""
        return step < len(self.timesteps_S) - 1

    def advance(self, step: int, output_NCHW: Tensor, x_NCHW: Tensor, noise_NCHW: Tensor | None) -> Tensor:
        """The latents of the next step; the clean ones at the last."""
        x0_NCHW = self.prediction.clean(output_NCHW, x_NCHW, self.alpha_S[step], self.sigma_S[step])
        clean_NCHW = self.out_S[step] * x0_NCHW + self.skip_S[step] * x_NCHW
        if noise_NCHW is None:
            return clean_NCHW
        return self.next_alpha_S[step] * clean_NCHW + self.next_sigma_S[step] * noise_NCHW


SamplingPlan = DdimPlan | LcmPlan


def plan_sampling(
    sampler: str, scheduler_config: dict[str, Any], *, steps: int, device: torch.device
) -> SamplingPlan:
    """The plan of `sampler` ("ddim" or "lcm") for N steps. Raises UserError for what cannot run."""
    if sampler not in {"ddim", "lcm"}:
        raise _refusal("unknown sampler", "ddim or lcm", sampler, "generation.sampler", "choose one of them")
    # What StableDiffusionPipeline makes of every scheduler that it loads: latents have no range to clip to.
    config = scheduler_config | {"steps_offset": 1, "clip_sample": False}
    try:
        scheduler = (DDIMScheduler if sampler == "ddim" else LCMScheduler).from_config(config)
        scheduler.set_timesteps(steps)
        alphas_T = scheduler.alphas_cumprod
        reached_S = alphas_T[scheduler.timesteps]
    except (ValueError, IndexError, NotImplementedError) as error:
        raise _refusal(
            "the sampler cannot run",
            f"settings that {sampler} allows",
            str(error),
            "generation.steps",
            "choose other steps",
        ) from error
    prediction = _read_prediction(scheduler.config, reached_S)
    if sampler == "ddim":
        return _plan_ddim(scheduler, prediction, steps, device)
    return _plan_lcm(scheduler, prediction, device)


def _plan_ddim(
    scheduler: DDIMScheduler, prediction: Prediction, steps: int, device: torch.device
) -> DdimPlan:
    alphas_T, timesteps_S = scheduler.alphas_cumprod, scheduler.timesteps
    previous_S = timesteps_S - scheduler.config.num_train_timesteps // steps
    next_S = torch.where(previous_S >= 0, alphas_T[previous_S.clamp(min=0)], scheduler.final_alpha_cumprod)
    return DdimPlan(
        prediction=prediction,
        timesteps_S=timesteps_S.to(device),
        alpha_S=(alphas_T[timesteps_S] ** 0.5).to(device),
        sigma_S=((1 - alphas_T[timesteps_S]) ** 0.5).to(device),
        next_alpha_S=(next_S**0.5).to(device),
        next_sigma_S=((1 - next_S) ** 0.5).to(device),
    )


def _plan_lcm(scheduler: LCMScheduler, prediction: Prediction, device: torch.device) -> LcmPlan:
    alphas_T, timesteps_S = scheduler.alphas_cumprod, scheduler.timesteps
    next_S = alphas_T[torch.cat([timesteps_S[1:], timesteps_S[-1:]])]
    scaled_S = timesteps_S * scheduler.config.timestep_scaling
    return LcmPlan(
        prediction=prediction,
        timesteps_S=timesteps_S.to(device),
        alpha_S=alphas_T[timesteps_S].sqrt().to(device),
        sigma_S=(1 - alphas_T[timesteps_S]).sqrt().to(device),
        next_alpha_S=next_S.sqrt().to(device),
        next_sigma_S=(1 - next_S).sqrt().to(device),
        skip_S=(_LCM_SIGMA_DATA**2 / (scaled_S**2 + _LCM_SIGMA_DATA**2)).to(device),
        out_S=(scaled_S / (scaled_S**2 + _LCM_SIGMA_DATA**2) ** 0.5).to(device),
    )


def _read_prediction(config: Any, reached_S: Tensor) -> Prediction:
    where = "scheduler_config.json"
    if config.thresholding:
        raise _refusal("dynamic thresholding", "false: it is meant for pixels", "true", where, "turn it off")
    if config.prediction_type == "epsilon" and not bool((reached_S > 0).all()):
        # At zero signal the input is the noise: its prediction tells nothing (Lin et al. 2024, section 3.3).
        raise _refusal(
            "epsilon is predicted at zero signal",
            "v_prediction",
            "epsilon with rescale_betas_zero_snr",
            where,
            "use leading spacing or a model trained for v_prediction",
        )
    return Prediction(kind=config.prediction_type)


def _refusal(what: str, expected: str, got: str, where: str, mend: str) -> UserError:
    return UserError(what, expected=expected, got=got, where=where, mend=mend)
