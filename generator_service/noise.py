"""Noise of a static batch: one CPU generator a view, drawn in diffusers' order and dtype.

`StableDiffusionPipeline(prompt, generator=[torch.Generator().manual_seed(s) for s in seeds])` draws the same
numbers: the first latents, then one draw for each LCM step but the last. A device's own generator is not
used, since its numbers differ between device models.
"""

from collections.abc import Sequence

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


class NoiseSource:
    """Draws [N, C, h, w] again and again, image i from the stream that `seeds[i]` begins."""

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        shape_CHW: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape_NCHW = (len(seeds), *shape_CHW)
        self._dtype = dtype
        self._device = device

    def draw(self) -> Tensor:
        """The next standard normal numbers of every stream, on the device."""
        noise_NCHW: Tensor = randn_tensor(
            self._shape_NCHW, generator=self._generators, device=self._device, dtype=self._dtype
        )
        return noise_NCHW
