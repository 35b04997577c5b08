"""The two networks of the loop as functions of tensors: what an engine replaces."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from generator_service.families import StableDiffusion


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the UNet is told besides latents and time; N counts twice with two passes."""

    text_NTD: Tensor
    guidance_NE: Tensor | None
    """Of UNets with `time_cond_proj_dim`."""
    pooled_NP: Tensor | None
    """Of SDXL, as is the next."""
    time_ids_N6: Tensor | None

    def tensors(self) -> list[Tensor]:
        """Those that are there, in a fixed order."""
        found = (self.text_NTD, self.guidance_NE, self.pooled_NP, self.time_ids_N6)
        return [tensor for tensor in found if tensor is not None]


class Forward(Protocol):
    """Computes a static batch."""

    def unet(self, x_NCHW: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """The UNet's output, [N, C, h, w]."""

    def decode(self, x0_NCHW: Tensor) -> Tensor:
        """Pixels of latents, [N, 3, H, W], about -1 to 1."""


class PlainForward:
    """diffusers' modules called as they are."""

    def __init__(self, model: StableDiffusion) -> None:
        self._unet, self._decoder = UNetModule(model), DecoderModule(model)

    def unet(self, x_NCHW: Tensor, timestep: Tensor, conditions: Conditions) -> Tensor:
        """See `Forward.unet`."""
        output_NCHW: Tensor = self._unet(x_NCHW, timestep, *conditions.tensors())
        return output_NCHW

    def decode(self, x0_NCHW: Tensor) -> Tensor:
        """See `Forward.decode`."""
        pixels_NCHW: Tensor = self._decoder(x0_NCHW)
        return pixels_NCHW


class UNetModule(torch.nn.Module):
    """A UNet whose inputs and output are tensors, as exporters want it."""

    def __init__(self, model: StableDiffusion) -> None:
        super().__init__()
        self.network = model.unet
        self._embeds_guidance, self._is_xl = model.embeds_guidance, model.is_xl

    def forward(self, x_NCHW: Tensor, timestep: Tensor, text_NTD: Tensor, *more: Tensor) -> Tensor:
        """`more` is the rest of `Conditions.tensors`."""
        rest = list(more)
        guidance_NE = rest.pop(0) if self._embeds_guidance else None
        added: dict[str, Any] | None = None
        if self._is_xl:
            added = {"text_embeds": rest[0], "time_ids": rest[1]}
        output_NCHW: Tensor = self.network(
            x_NCHW,
            timestep,
            encoder_hidden_states=text_NTD,
            timestep_cond=guidance_NE,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return output_NCHW


class DecoderModule(torch.nn.Module):
    """Latents as the loop leaves them to pixels, with the scaling that the family's pipeline does."""

    def __init__(self, model: StableDiffusion) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.network = model.vae
        config = model.vae.config
        mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        self._scaled = model.is_xl and mean is not None and deviation is not None
        if self._scaled:
            for name, values in (("mean", mean), ("deviation", deviation)):
                tensor = torch.tensor(values).view(1, -1, 1, 1).to(model.device, model.dtype)
                self.register_buffer(name, tensor)

    def forward(self, x0_NCHW: Tensor) -> Tensor:
        """[N, 3, H, W]."""
        factor = self.network.config.scaling_factor
        if self._scaled:
            x0_NCHW = x0_NCHW * self.deviation / factor + self.mean
            x0_NCHW = x0_NCHW.to(self.network.dtype)
        else:
            x0_NCHW = x0_NCHW.to(self.network.dtype) / factor
        pixels_NCHW: Tensor = self.network.decode(x0_NCHW, return_dict=False)[0]
        return pixels_NCHW
