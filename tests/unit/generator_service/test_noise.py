"""Noise streams against plain torch generators."""

import torch

from generator_service.noise import NoiseSource


def test_each_view_continues_its_own_stream() -> None:
    """Image i of draw j is the j-th draw of a generator seeded with `seeds[i]`, whoever is beside it."""
    seeds = [3, 2**32 - 1, 0]
    source = NoiseSource(seeds, shape_CHW=(4, 8, 8), dtype=torch.float32, device=torch.device("cpu"))
    first, second = source.draw(), source.draw()
    for i, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        assert torch.equal(first[i : i + 1], torch.randn((1, 4, 8, 8), generator=generator))
        assert torch.equal(second[i : i + 1], torch.randn((1, 4, 8, 8), generator=generator))


def test_half_precision_is_drawn_as_such() -> None:
    """diffusers draws in the model's dtype, which gives other numbers than rounding float32."""
    source = NoiseSource([5], shape_CHW=(4, 8, 8), dtype=torch.bfloat16, device=torch.device("cpu"))
    expected = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5), dtype=torch.bfloat16)
    assert torch.equal(source.draw(), expected)
