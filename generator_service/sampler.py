"""The denoising loop over a static batch.

captions ─CaptionEncoder→ text_NTD ┐
seeds ─────NoiseSource──→ x_NCHW ──┼─ UNet, SamplingPlan (S steps) → x0_NCHW ─ decoder → images_NHWC (uint8)
guidance ──────────────────────────┘

N images, G groups, T tokens, D text width, C latent channels, h x w latents, H x W pixels, S steps. What
enters the loop is on the device before it begins: no step waits for the host.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from generator_service.errors import DrawAbandonedError
from generator_service.families import StableDiffusion, memory_format_of
from generator_service.forward import Conditions, Forward, PlainForward
from generator_service.graphed_loop import GraphedLoop, LoopInputs, LoopOutputs, capture_on
from generator_service.guidance import check_guidance, guidance_embedding
from generator_service.noise import NoiseSource
from generator_service.output_copy import Copying, OutputCopy, Sampled
from generator_service.prompts import CaptionEncoder, Embedded
from generator_service.resize import to_pixels
from generator_service.schedules import plan_sampling
from protocol.errors import UserError
from protocol.generation import GenerationSpec

SIZE_MULTIPLE = 8
"""diffusers' pipelines refuse other sizes, so nothing that they could redraw has another."""


class Sampler:
    """Draws `groups` x `spec.views` images at a time, always that many."""

    def __init__(self, model: StableDiffusion, spec: GenerationSpec, *, groups: int) -> None:
        """diffusers' modules compute, until `compute_with`. Raises UserError for what can't be drawn."""
        check_size(model, spec)
        check_guidance(spec)
        self._model = model
        self._spec = spec
        self._plan = plan_sampling(
            spec.sampler, model.scheduler_config, steps=spec.steps, device=model.device
        )
        self._forward: Forward = PlainForward(model)
        self._graph: GraphedLoop | None = None
        self._output_copy = OutputCopy(model.device)
        self._captions = CaptionEncoder(model.text_encoders, slots=groups)
        # Decided by the spec and not by the batch, so that an image never depends on its neighbours' scales.
        self._two_passes = takes_two_passes(model, spec)
        self._memory_format = memory_format_of(model.device, model.dtype)
        self._latent_CHW = latent_shape(model, spec)

    def compute_with(self, forward: Forward, *, in_graph: bool = False) -> None:
        """From now on `forward` computes UNet and decoder, `in_graph` the whole loop as one CUDA graph.

        Raises UserError for a device that has no graphs.
        """
        self._forward = forward
        self._graph = None
        if in_graph:
            capture = capture_on(self._model.device)
            self._graph = GraphedLoop(lambda inputs: self._loop(inputs, lambda: False), capture)

    def sample(
        self,
        captions: Sequence[str],
        seeds_N: Sequence[int],
        guidance_N: Sequence[float],
        abandoned: Callable[[], bool],
    ) -> Sampled:
        """uint8 [N, H, W, 3], the views of each caption after one another.

        Raises DrawAbandonedError before the next step once `abandoned` answers true; with a graph, before all
        of them.
        """
        return self.begin(captions, seeds_N, guidance_N, abandoned).wait()

    @torch.inference_mode()
    def begin(
        self,
        captions: Sequence[str],
        seeds_N: Sequence[int],
        guidance_N: Sequence[float],
        abandoned: Callable[[], bool],
    ) -> Copying:
        """`sample`, not waiting for the device: the next batch may begin meanwhile."""
        device = self._model.device
        conditions = self._conditions(self._encode(captions), guidance_N)
        # float32 also beside half precision: a scale such as 7.3 has no bfloat16.
        scale_N111 = torch.tensor(guidance_N, dtype=torch.float32, device=device)[:, None, None, None]
        noise = tuple(self._draw_noise(seeds_N))
        inputs = LoopInputs(conditions=conditions, scale_N111=scale_N111, noise=noise)
        if self._graph is None:
            outputs = self._loop(inputs, abandoned)
        elif abandoned():
            raise DrawAbandonedError("before the first step")
        else:
            self._output_copy.hold_back()  # the outputs of a graph are the same memory each time
            outputs = self._graph(inputs)
        return self._output_copy.start(outputs, abandoned)

    def cuts(self, caption: str) -> bool:
        """Whether the tokenizer drops the end of the caption."""
        return self._captions.cuts(caption)

    def _loop(self, inputs: LoopInputs, abandoned: Callable[[], bool]) -> LoopOutputs:
        x_NCHW = self._denoise(inputs.conditions, inputs.scale_N111, list(inputs.noise), abandoned)
        finite_N = torch.isfinite(x_NCHW).flatten(1).all(1)
        return LoopOutputs(self._decode(x_NCHW), finite_N)

    def _denoise(
        self,
        conditions: Conditions,
        scale_N111: Tensor,
        noise: list[Tensor],
        abandoned: Callable[[], bool],
    ) -> Tensor:
        first_NCHW, *fresh = noise
        x_NCHW, memory_NCHW = self._plan.begin(first_NCHW), None
        steps = len(self._plan.timesteps_S)
        for step in range(steps):
            if abandoned():
                raise DrawAbandonedError(f"before step {step} of {steps}")
            output_NCHW = self._predict(x_NCHW, step, conditions, scale_N111)
            fresh_NCHW = fresh.pop(0) if self._plan.needs_noise(step) else None
            x_NCHW, memory_NCHW = self._plan.advance(step, output_NCHW, x_NCHW, fresh_NCHW, memory_NCHW)
        return x_NCHW

    def _draw_noise(self, seeds_N: Sequence[int]) -> list[Tensor]:
        """The first latents' noise, then that of each step that takes some."""
        source = NoiseSource(
            seeds_N, shape_CHW=self._latent_CHW, dtype=self._model.dtype, device=self._model.device
        )
        noisy = sum(self._plan.needs_noise(step) for step in range(len(self._plan.timesteps_S)))
        return [source.draw() for _ in range(1 + noisy)]

    def _encode(self, captions: Sequence[str]) -> Embedded:
        with_N = self._captions.encode(captions).repeat(self._spec.views)
        if not self._two_passes:
            return with_N
        without_1 = self._captions.encode([self._spec.negative_prompt])
        zero = self._model.zero_negative and not self._spec.negative_prompt
        text_1TD = without_1.text_NTD * 0 if zero else without_1.text_NTD
        text_NTD = torch.cat([text_1TD.expand_as(with_N.text_NTD), with_N.text_NTD])
        if without_1.pooled_NP is None or with_N.pooled_NP is None:
            return Embedded(text_NTD, None)
        pooled_1P = without_1.pooled_NP * 0 if zero else without_1.pooled_NP
        return Embedded(text_NTD, torch.cat([pooled_1P.expand_as(with_N.pooled_NP), with_N.pooled_NP]))

    def _conditions(self, text: Embedded, guidance_N: Sequence[float]) -> Conditions:
        embedding_NE = time_ids_N6 = None
        if self._model.embeds_guidance:
            excess_N = torch.tensor([scale - 1 for scale in guidance_N], dtype=torch.float32)
            width = self._model.unet.config.time_cond_proj_dim
            embedding_NE = guidance_embedding(excess_N, width).to(self._model.device, self._model.dtype)
        if self._model.is_xl:
            size = self._spec.drawn_size
            # SDXL's sizes: the original's, where it was cropped, the target's.
            ids_16 = torch.tensor([[size, size, 0, 0, size, size]], dtype=self._model.dtype)
            time_ids_N6 = ids_16.to(self._model.device).repeat(len(text.text_NTD), 1)
        return Conditions(
            text_NTD=text.text_NTD,
            guidance_NE=embedding_NE,
            pooled_NP=text.pooled_NP,
            time_ids_N6=time_ids_N6,
        )

    def _predict(self, x_NCHW: Tensor, step: int, conditions: Conditions, scale_N111: Tensor) -> Tensor:
        """The UNet's guided output. A scale of at most 1 means no guidance, as in diffusers."""
        shown_NCHW = torch.cat([x_NCHW, x_NCHW]) if self._two_passes else x_NCHW
        shown_NCHW = self._plan.shown(step, shown_NCHW).contiguous(memory_format=self._memory_format)
        output_NCHW = self._forward.unet(shown_NCHW, self._plan.timesteps_S[step], conditions)
        if not self._two_passes:
            return output_NCHW
        without_NCHW, with_NCHW = output_NCHW.chunk(2)
        guided_NCHW = without_NCHW + (scale_N111 * (with_NCHW - without_NCHW)).to(output_NCHW.dtype)
        return torch.where(scale_N111 > 1, guided_NCHW, with_NCHW)

    def _decode(self, x0_NCHW: Tensor) -> Tensor:
        pixels_NCHW = self._forward.decode(x0_NCHW)
        return to_pixels((pixels_NCHW.float() * 0.5 + 0.5).clamp(0, 1), self._spec.size)


def takes_two_passes(model: StableDiffusion, spec: GenerationSpec) -> bool:
    """Whether the UNet sees each latent with and without its caption."""
    return not model.embeds_guidance and max(spec.guidance) > 1


def latent_shape(model: StableDiffusion, spec: GenerationSpec) -> tuple[int, int, int]:
    """[C, h, w] of an image."""
    side = spec.drawn_size // model.latent_factor
    return model.unet.config.in_channels, side, side


def check_size(model: StableDiffusion, spec: GenerationSpec) -> None:
    """Raises UserError for a size that the model, or diffusers, cannot draw."""
    multiple = max(SIZE_MULTIPLE, model.latent_factor)
    if spec.drawn_size % multiple:
        raise UserError(
            "the model cannot draw this size",
            expected=f"a multiple of {multiple}",
            got=str(spec.drawn_size),
            where="generation.draw_size" if spec.draw_size else "generation.size",
            mend="choose another size",
        )
