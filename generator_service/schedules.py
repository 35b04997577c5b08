"""Makes the plan of a sampler. Noise schedule and timesteps come from diffusers' own schedulers, made from
the folder's `scheduler_config.json`.

| sampler | diffusers' scheduler |
|---|---|
| ddim | DDIMScheduler |
| lcm | LCMScheduler |
| euler | EulerDiscreteScheduler; that of SD-Turbo's folder |
| dpm++ | DPMSolverMultistepScheduler, algorithm dpmsolver++ of first or second order |
| turbo | EulerAncestralDiscreteScheduler at trailing timesteps; that of SDXL-Turbo's folder |
"""

from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)

from generator_service.sampling_plans import DdimPlan, DpmPlan, EulerPlan, LcmPlan, Prediction, SamplingPlan
from protocol.errors import UserError

SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    # Latents have no range to clip to; DDIMScheduler does so unless told otherwise.
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "lcm": (LCMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "dpm++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "turbo": (EulerAncestralDiscreteScheduler, {"timestep_spacing": "trailing"}),
}
"""The scheduler of a sampler, and what is set whatever the folder's config says."""
_LCM_SIGMA_DATA = 0.5


def plan_sampling(
    sampler: str, scheduler_config: dict[str, Any], *, steps: int, device: torch.device
) -> SamplingPlan:
    """The plan of `sampler` for N steps. Raises UserError for what cannot run."""
    if sampler not in SCHEDULERS:
        known = ", ".join(SCHEDULERS)
        raise _refusal(
            "unknown sampler", f"one of {known}", sampler, "generation.sampler", "choose one of them"
        )
    kind, fixed = SCHEDULERS[sampler]
    try:
        scheduler = kind.from_config(scheduler_config | fixed)
        scheduler.set_timesteps(steps)
        if len(scheduler.timesteps.unique()) < len(scheduler.timesteps):
            raise ValueError(f"{steps} steps come to the same timestep twice")
        if sampler in ("ddim", "lcm"):
            # Beyond the schedule's end where steps_offset and steps do not go together.
            reached_S = scheduler.alphas_cumprod[scheduler.timesteps]
        else:
            reached_S = torch.ones(())  # these keep the signal above zero by themselves
    except (ValueError, IndexError, NotImplementedError, ImportError) as error:
        raise _refusal(
            "the sampler cannot run",
            f"settings that {sampler} allows",
            str(error),
            "generation.steps",
            "choose other steps",
        ) from error
    prediction = _read_prediction(sampler, scheduler.config, reached_S)
    if sampler == "ddim":
        return _plan_ddim(scheduler, prediction, steps, device)
    if sampler == "lcm":
        return _plan_lcm(scheduler, prediction, device)
    if sampler == "dpm++":
        return _plan_dpm(scheduler, prediction, device)
    return _plan_euler(scheduler, prediction, device, ancestral=sampler == "turbo")


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


def _plan_euler(
    scheduler: EulerDiscreteScheduler | EulerAncestralDiscreteScheduler,
    prediction: Prediction,
    device: torch.device,
    *,
    ancestral: bool,
) -> EulerPlan:
    sigma_S, next_S = scheduler.sigmas[:-1], scheduler.sigmas[1:]
    noise_S = (next_S**2 * (sigma_S**2 - next_S**2) / sigma_S**2) ** 0.5 if ancestral else None
    down_S = next_S if noise_S is None else (next_S**2 - noise_S**2) ** 0.5
    return EulerPlan(
        prediction=prediction,
        timesteps_S=scheduler.timesteps.to(device),
        first_sigma=torch.as_tensor(scheduler.init_noise_sigma).to(device),
        sigma_S=sigma_S.to(device),
        shown_S=((sigma_S**2 + 1) ** 0.5).to(device),
        v_out_S=(-sigma_S / (sigma_S**2 + 1) ** 0.5).to(device),
        v_skip_S=(sigma_S**2 + 1).to(device),
        change_S=(down_S - sigma_S).to(device),
        noise_S=None if noise_S is None else noise_S.to(device),
    )


def _plan_dpm(
    scheduler: DPMSolverMultistepScheduler, prediction: Prediction, device: torch.device
) -> DpmPlan:
    config, steps = scheduler.config, len(scheduler.timesteps)
    if config.solver_order > 2 or config.use_flow_sigmas:
        got = "use_flow_sigmas" if config.use_flow_sigmas else f"solver_order {config.solver_order}"
        raise _refusal(
            "the solver is not known", "solver_order 1 or 2", got, "scheduler_config.json", "use order 2"
        )
    alpha_K = 1 / ((scheduler.sigmas**2 + 1) ** 0.5)
    sigma_K = scheduler.sigmas * alpha_K
    lambda_K = torch.log(alpha_K) - torch.log(sigma_K)
    h_S = lambda_K[1:] - lambda_K[:-1]
    clean_S = alpha_K[1:] * (torch.exp(-h_S) - 1.0)
    heun_S = alpha_K[1:] * ((torch.exp(-h_S) - 1.0) / h_S + 1.0)
    # At the first step there is no step before; the value is not read.
    before_S = torch.cat([h_S[:1], h_S[:-1]])
    few = config.lower_order_final and steps < 15
    first_at_end = config.euler_at_final or few or config.final_sigmas_type == "zero"
    return DpmPlan(
        prediction=prediction,
        timesteps_S=scheduler.timesteps.to(device),
        alpha_S=alpha_K[:-1].to(device),
        sigma_S=sigma_K[:-1].to(device),
        keep_S=(sigma_K[1:] / sigma_K[:-1]).to(device),
        clean_S=clean_S.to(device),
        slope_S=(-heun_S if config.solver_type == "heun" else 0.5 * clean_S).to(device),
        inverse_r_S=(1.0 / (before_S / h_S)).to(device),
        second_S=tuple(
            config.solver_order == 2 and step > 0 and not (first_at_end and step == steps - 1)
            for step in range(steps)
        ),
    )


def _read_prediction(sampler: str, config: Any, reached_S: torch.Tensor) -> Prediction:
    where = "scheduler_config.json"
    kind = config.prediction_type
    if getattr(config, "thresholding", False):
        raise _refusal("dynamic thresholding", "false: it is meant for pixels", "true", where, "turn it off")
    known = ("epsilon", "v_prediction") if sampler == "turbo" else ("epsilon", "v_prediction", "sample")
    if kind not in known:
        raise _refusal("unknown prediction", " or ".join(known), str(kind), where, "choose another sampler")
    if kind == "epsilon" and not bool((reached_S > 0).all()):
        # At zero signal the input is the noise: its prediction tells nothing (Lin et al. 2024, section 3.3).
        raise _refusal(
            "epsilon is predicted at zero signal",
            "v_prediction",
            "epsilon with rescale_betas_zero_snr",
            where,
            "use leading spacing or a model trained for v_prediction",
        )
    return Prediction(kind=kind)


def _refusal(what: str, expected: str, got: str, where: str, mend: str) -> UserError:
    return UserError(what, expected=expected, got=got, where=where, mend=mend)
