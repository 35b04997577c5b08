"""The denoising loop over a static batch.

captions ─CaptionEncoder→ text_NTD ┐
seeds ─────NoiseSource──→ x_NCHW ──┼─ UNet, SamplingPlan (S steps) → x0_NCHW ─ VAE → images_NHWC (uint8)
guidance ──────────────────────────┘

N images, G groups, T tokens, D text width, C latent channels, h x w latents, H x W pixels, S steps.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from generator_service.errors import DrawAbandonedError
from generator_service.families import StableDiffusion, memory_format_of
from generator_service.noise import NoiseSource
from generator_service.prompts import CaptionEncoder
from generator_service.schedules import plan_sampling
from protocol.errors import UserError
from protocol.generation import GenerationSpec
from protocol.payload import ImagesNHWC

SIZE_MULTIPLE = 8
"""diffusers' pipelines refuse other sizes, so nothing that they could redraw has another."""


class Sampler:
    """Draws `groups` x `spec.views` images at a time, always that many."""

    def __init__(self, model: StableDiffusion, spec: GenerationSpec, *, groups: int) -> None:
        if spec.size % max(SIZE_MULTIPLE, model.latent_factor):
            raise UserError(
                "the model cannot draw this size",
                expected=f"a multiple of {max(SIZE_MULTIPLE, model.latent_factor)}",
                got=str(spec.size),
                where="generation.size",
                mend="choose another size",
            )
        self._model = model
        self._spec = spec
        self._plan = plan_sampling(
            spec.sampler, model.scheduler_config, steps=spec.steps, device=model.device
        )
        self._captions = CaptionEncoder(model.tokenizer, model.text_encoder, slots=groups)
        # Decided by the spec and not by the batch, so that an image never depends on its neighbours' scales.
        self._two_passes = not model.embeds_guidance and max(spec.guidance) > 1
        self._memory_format = memory_format_of(model.device)
        side = spec.size // model.latent_factor
        self._latent_CHW = (model.unet.config.in_channels, side, side)

    @torch.inference_mode()
    def sample(
        self,
        captions: Sequence[str],
        seeds_N: Sequence[int],
        guidance_N: Sequence[float],
        abandoned: Callable[[], bool],
    ) -> ImagesNHWC:
        """uint8 [N, H, W, 3], the views of each caption after one another.

        Raises DrawAbandonedError before the next step once `abandoned` answers true.
        """
        text_NTD = self._encode(captions)
        noise = NoiseSource(
            seeds_N, shape_CHW=self._latent_CHW, dtype=self._model.dtype, device=self._model.device
        )
        # float32 also beside half precision: a scale such as 7.3 has no bfloat16.
        scale_N111 = torch.tensor(guidance_N, dtype=torch.float32, device=self._model.device)[
            :, None, None, None
        ]
        condition = self._embed_guidance(guidance_N) if self._model.embeds_guidance else None
        x_NCHW = noise.draw()
        for step in range(len(self._plan.timesteps_S)):
            if abandoned():
                raise DrawAbandonedError(f"before step {step} of {len(self._plan.timesteps_S)}")
            output_NCHW = self._predict(x_NCHW, step, text_NTD, scale_N111, condition)
            fresh_NCHW = noise.draw() if self._plan.needs_noise(step) else None
            x_NCHW = self._plan.advance(step, output_NCHW, x_NCHW, fresh_NCHW)
        return self._decode(x_NCHW)

    def cuts(self, caption: str) -> bool:
        """Whether the tokenizer drops the end of the caption."""
        return self._captions.cuts(caption)

    def _encode(self, captions: Sequence[str]) -> Tensor:
        text_NTD = self._captions.encode(captions).repeat_interleave(self._spec.views, dim=0)
        if not self._two_passes:
            return text_NTD
        negative_1TD = self._captions.encode([self._spec.negative_prompt])
        return torch.cat([negative_1TD.expand_as(text_NTD), text_NTD])

    def _predict(
        self, x_NCHW: Tensor, step: int, text_NTD: Tensor, scale_N111: Tensor, condition: Tensor | None
    ) -> Tensor:
        """The UNet's guided output. A scale of at most 1 means no guidance, as in diffusers."""
        inputs_NCHW = torch.cat([x_NCHW, x_NCHW]) if self._two_passes else x_NCHW
        output_NCHW: Tensor = self._model.unet(
            inputs_NCHW.contiguous(memory_format=self._memory_format),
            self._plan.timesteps_S[step],
            encoder_hidden_states=text_NTD,
            timestep_cond=condition,
            return_dict=False,
        )[0]
        if not self._two_passes:
            return output_NCHW
        without_NCHW, with_NCHW = output_NCHW.chunk(2)
        guided_NCHW = without_NCHW + (scale_N111 * (with_NCHW - without_NCHW)).to(output_NCHW.dtype)
        return torch.where(scale_N111 > 1, guided_NCHW, with_NCHW)

    def _embed_guidance(self, guidance_N: Sequence[float]) -> Tensor:
        excess_N = torch.tensor([scale - 1 for scale in guidance_N], dtype=torch.float32)
        embedding_NE = guidance_embedding(excess_N, self._model.unet.config.time_cond_proj_dim)
        return embedding_NE.to(self._model.device, self._model.dtype)

    def _decode(self, x0_NCHW: Tensor) -> ImagesNHWC:
        vae = self._model.vae
        pixels_NCHW = vae.decode(x0_NCHW / vae.config.scaling_factor, return_dict=False)[0]
        unit_NCHW = (pixels_NCHW.float() * 0.5 + 0.5).clamp(0, 1)
        levels_NHWC = (unit_NCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        images_NHWC: ImagesNHWC = levels_NHWC.cpu().numpy()
        return images_NHWC


def guidance_embedding(excess_N: Tensor, width: int) -> Tensor:
    """float32 [N, width]: sines, then cosines of 1000 (w - 1) over geometric frequencies (Meng et al. 2023).

    `excess_N` is w - 1. The formula is that of diffusers' `get_guidance_scale_embedding`.
    """
    half = width // 2
    rate = torch.log(torch.tensor(10000.0)) / (half - 1)
    frequency_F = torch.exp(torch.arange(half, dtype=torch.float32) * -rate)
    angle_NF = (excess_N * 1000.0)[:, None] * frequency_F[None, :]
    embedding_NE = torch.cat([torch.sin(angle_NF), torch.cos(angle_NF)], dim=1)
    return torch.nn.functional.pad(embedding_NE, (0, width % 2))
