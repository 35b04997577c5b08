"""Denoising rules as frozen plans: every coefficient of every step is a tensor before the loop begins.

The arithmetic of a step is that of diffusers' schedulers' `step`, in the same order, so that equal inputs
give equal bits. x is the noisy latent, x0 the predicted clean one. In the first three
alpha^2 + sigma^2 = 1; Euler counts noise against a clean image of full size, x = x0 + s eps, and shows the
UNet x / (s^2 + 1)^0.5.

DDIM (Song et al. 2021, eq. 12, eta = 0):       x' = alpha' x0 + sigma' eps
LCM (Luo et al. 2023, algorithm 3):             x' = alpha' (c_out x0 + c_skip x) + sigma' noise, not last
DPM-Solver++ 2M (Lu et al. 2022, algorithm 2):  x' = sigma'/sigma x - alpha' (e^-h - 1) (x0 + (x0 - y0) / 2r),
                                                where y0 was x0 a step before
Euler, ancestral (Karras et al. 2022, Katherine Crowson): x' = x + (s_down - s) (x - x0) / s + s_up noise
"""

from dataclasses import dataclass

from torch import Tensor


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
class _Plan:
    """What all rules share. `memory` is what a multistep rule keeps from one step to the next."""

    prediction: Prediction
    timesteps_S: Tensor
    """What the UNet is told: int64, of Euler float32."""

    def begin(self, noise_NCHW: Tensor) -> Tensor:
        """The first latents."""
        return noise_NCHW

    def shown(self, step: int, x_NCHW: Tensor) -> Tensor:
        """The latents as the UNet sees them."""
        return x_NCHW

    def needs_noise(self, step: int) -> bool:
        """Whether `advance` reads its noise at this step."""
        return False


@dataclass(frozen=True, kw_only=True)
class DdimPlan(_Plan):
    """Deterministic steps: no noise after the first latents."""

    alpha_S: Tensor
    sigma_S: Tensor
    next_alpha_S: Tensor
    next_sigma_S: Tensor

    def advance(
        self,
        step: int,
        output_NCHW: Tensor,
        x_NCHW: Tensor,
        noise_NCHW: Tensor | None,
        memory_NCHW: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The latents of the next step, and its memory."""
        alpha, sigma = self.alpha_S[step], self.sigma_S[step]
        x0_NCHW = self.prediction.clean(output_NCHW, x_NCHW, alpha, sigma)
        eps_NCHW = self.prediction.noise(output_NCHW, x_NCHW, alpha, sigma)
        direction_NCHW = self.next_sigma_S[step] * eps_NCHW
        return self.next_alpha_S[step] * x0_NCHW + direction_NCHW, None


@dataclass(frozen=True, kw_only=True)
class LcmPlan(_Plan):
    """Each step jumps to the clean image and all but the last return to a lower noise level."""

    alpha_S: Tensor
    sigma_S: Tensor
    next_alpha_S: Tensor
    next_sigma_S: Tensor
    skip_S: Tensor
    out_S: Tensor

    def needs_noise(self, step: int) -> bool:
        """All steps but the last."""
        return step < len(self.timesteps_S) - 1

    def advance(
        self,
        step: int,
        output_NCHW: Tensor,
        x_NCHW: Tensor,
        noise_NCHW: Tensor | None,
        memory_NCHW: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The latents of the next step, the clean ones at the last; and its memory."""
        x0_NCHW = self.prediction.clean(output_NCHW, x_NCHW, self.alpha_S[step], self.sigma_S[step])
        clean_NCHW = self.out_S[step] * x0_NCHW + self.skip_S[step] * x_NCHW
        if noise_NCHW is None:
            return clean_NCHW, None
        return self.next_alpha_S[step] * clean_NCHW + self.next_sigma_S[step] * noise_NCHW, None


@dataclass(frozen=True, kw_only=True)
class EulerPlan(_Plan):
    """Straight steps towards the clean image; the ancestral ones go further and return with fresh noise."""

    first_sigma: Tensor
    sigma_S: Tensor
    shown_S: Tensor
    """(s^2 + 1)^0.5."""
    v_out_S: Tensor
    v_skip_S: Tensor
    """The clean image of v_prediction: v_out times the output plus x over v_skip."""
    change_S: Tensor
    """s_down - s."""
    noise_S: Tensor | None
    """s_up; None where no noise comes back."""

    def begin(self, noise_NCHW: Tensor) -> Tensor:
        """The first latents."""
        return noise_NCHW * self.first_sigma

    def shown(self, step: int, x_NCHW: Tensor) -> Tensor:
        """The latents as the UNet sees them."""
        return x_NCHW / self.shown_S[step]

    def needs_noise(self, step: int) -> bool:
        """All ancestral steps but the last, whose noise has the weight 0."""
        return self.noise_S is not None and step < len(self.timesteps_S) - 1

    def advance(
        self,
        step: int,
        output_NCHW: Tensor,
        x_NCHW: Tensor,
        noise_NCHW: Tensor | None,
        memory_NCHW: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The latents of the next step, and its memory."""
        sigma = self.sigma_S[step]
        x_NCHW = x_NCHW.float()
        if self.prediction.kind == "epsilon":
            x0_NCHW = x_NCHW - sigma * output_NCHW
        elif self.prediction.kind == "v_prediction":
            x0_NCHW = output_NCHW * self.v_out_S[step] + x_NCHW / self.v_skip_S[step]
        else:
            x0_NCHW = output_NCHW
        next_NCHW = x_NCHW + (x_NCHW - x0_NCHW) / sigma * self.change_S[step]
        if noise_NCHW is not None and self.noise_S is not None:
            next_NCHW = next_NCHW + noise_NCHW * self.noise_S[step]
        return next_NCHW.to(output_NCHW.dtype), None


@dataclass(frozen=True, kw_only=True)
class DpmPlan(_Plan):
    """Second order from two predictions of the clean image; first order where there is but one to trust."""

    alpha_S: Tensor
    sigma_S: Tensor
    keep_S: Tensor
    """sigma' / sigma."""
    clean_S: Tensor
    """alpha' (e^-h - 1)."""
    slope_S: Tensor
    inverse_r_S: Tensor
    second_S: tuple[bool, ...]

    def advance(
        self,
        step: int,
        output_NCHW: Tensor,
        x_NCHW: Tensor,
        noise_NCHW: Tensor | None,
        memory_NCHW: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The latents of the next step, and its memory: this step's clean image."""
        x0_NCHW = self.prediction.clean(output_NCHW, x_NCHW, self.alpha_S[step], self.sigma_S[step])
        next_NCHW = self.keep_S[step] * x_NCHW.float() - self.clean_S[step] * x0_NCHW
        if self.second_S[step] and memory_NCHW is not None:
            slope_NCHW = self.inverse_r_S[step] * (x0_NCHW - memory_NCHW)
            next_NCHW = next_NCHW - self.slope_S[step] * slope_NCHW
        return next_NCHW.to(x0_NCHW.dtype), x0_NCHW


SamplingPlan = DdimPlan | LcmPlan | EulerPlan | DpmPlan
