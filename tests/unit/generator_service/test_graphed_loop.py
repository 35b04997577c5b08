"""The loop as a graph. Without a GPU a stand-in captures, and what it replays reads what it captured."""

from pathlib import Path

import numpy as np
import pytest
import torch

from generator_service.config import GeneratorConfig
from generator_service.diffusion_engine import DiffusionEngine
from generator_service.errors import DrawAbandonedError
from generator_service.families import load_family
from generator_service.forward import PlainForward
from generator_service.graphed_loop import Captured
from generator_service.model_folder import open_model_folder
from generator_service.sampler import Sampler
from protocol.errors import UserError
from protocol.generation import GenerationSpec

SPEC = GenerationSpec(views=2, size=32, steps=3, sampler="lcm", guidance=(2.0, 7.3))


def _capture(compute) -> Captured:
    outputs = compute()

    def replay() -> None:
        for kept, fresh in zip(outputs, compute(), strict=True):
            kept.copy_(fresh)

    return Captured(outputs, replay)


@pytest.fixture
def samplers(distilled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Sampler, Sampler]:
    """The same loop, plain and as a graph."""
    monkeypatch.setattr("generator_service.sampler.capture_on", lambda device: _capture)
    opened = open_model_folder(str(distilled_folder))
    model = load_family(opened, device=torch.device("cpu"), dtype=torch.float32)
    plain, graphed = (Sampler(model, SPEC, groups=2) for _ in range(2))
    graphed.compute_with(PlainForward(model), in_graph=True)
    return plain, graphed


def test_every_batch_is_drawn_from_its_own_captions_seeds_and_scales(
    samplers: tuple[Sampler, Sampler],
) -> None:
    """Not from those that were captured."""
    plain, graphed = samplers
    first = (["a red dog", "flag"], [1, 2, 3, 4], [2.0, 2.0, 7.3, 7.3])
    second = (["a cat", "a red dog"], [5, 6, 1, 2], [7.3, 7.3, 2.0, 2.0])
    # Copied, as they are on their way from a GPU: the outputs of a graph are its own.
    drawn = [graphed.sample(*batch, lambda: False).images_NHWC.copy() for batch in (first, second, first)]
    wanted = [plain.sample(*batch, lambda: False).images_NHWC for batch in (first, second, first)]
    for got, expected in zip(drawn, wanted, strict=True):
        assert np.array_equal(got, expected)
    assert not np.array_equal(drawn[0], drawn[1])


def test_a_graph_is_not_begun_for_nobody(samplers: tuple[Sampler, Sampler]) -> None:
    """It can't be left in the middle."""
    with pytest.raises(DrawAbandonedError):
        samplers[1].sample(["a", "b"], [1, 2, 3, 4], [2.0] * 4, lambda: True)


def test_a_cpu_has_no_graphs(distilled_folder: Path) -> None:
    """Refused, and not left out in silence."""
    opened = open_model_folder(str(distilled_folder))
    config = GeneratorConfig(cuda_graphs=True, batch_images=4, device="cpu", precision="float32")
    with pytest.raises(UserError, match=r"generator\.cuda_graphs: .* expected a CUDA device, got cpu"):
        DiffusionEngine(config, opened, "w", SPEC, lambda: False)
