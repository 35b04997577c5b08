"""Every engine for CUDA beside eager, on the embedded model: `pytest -m gpu tests/gpu`. Never executed."""

from pathlib import Path

import numpy as np
import pytest

from generator_service.config import GeneratorConfig
from generator_service.diffusion_engine import DiffusionEngine
from generator_service.model_folder import open_model_folder
from protocol.generation import GenerationSpec
from protocol.identity import caption_id, view_seed
from protocol.payload import ImagesNHWC
from protocol.tickets import Ticket

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's exporters use what torch deprecates
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SPEC = GenerationSpec(views=2, size=64, steps=1, sampler="ddim", guidance=(1.0,))
CAPTIONS = ("red apple", "smiling cat", "blue car", "green tree")


def _engine(cache: Path, engine: str, **settings: object) -> DiffusionEngine:
    config = GeneratorConfig(
        engine=engine, engine_cache=str(cache), batch_images=8, device="cuda", **settings
    )
    opened = open_model_folder("embedded")
    return DiffusionEngine(config, opened, opened.weights_digest(), SPEC, lambda: False)


def _tickets(captions: tuple[str, ...]) -> list[Ticket]:
    return [
        Ticket(
            group_id=i,
            caption_id=caption_id(caption),
            caption=caption,
            first_view=0,
            seeds=tuple(view_seed(7, caption_id(caption), view) for view in range(SPEC.views)),
            guidance=(1.0,) * SPEC.views,
        )
        for i, caption in enumerate(captions)
    ]


def _draw(engine: DiffusionEngine, captions: tuple[str, ...] = CAPTIONS) -> ImagesNHWC:
    return np.concatenate(engine.draw(_tickets(captions), lambda: False))


@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize("engine", ["compile", "tensorrt", "torch-tensorrt"])
def test_a_built_engine_draws_what_eager_draws(tmp_path: Path, engine: str, cuda_graphs: bool) -> None:
    """Within float16's rounding, alike in every slot, and the same from the cache."""
    wanted = _draw(_engine(tmp_path, "eager")).astype(int)
    built = _engine(tmp_path, engine, cuda_graphs=cuda_graphs)
    loaded = _engine(tmp_path, engine, cuda_graphs=cuda_graphs)
    assert built.engine_hash == loaded.engine_hash
    assert loaded.exact
    drawn = _draw(built)
    assert np.abs(drawn - wanted).mean() < 2
    assert np.array_equal(drawn, _draw(loaded))
    assert np.array_equal(_draw(loaded, CAPTIONS[2:])[:2], drawn[4:6])


def test_eager_draws_the_same_bits_in_a_graph(tmp_path: Path) -> None:
    """Batch after batch."""
    plain, graphed = _engine(tmp_path, "eager"), _engine(tmp_path, "eager", cuda_graphs=True)
    for captions in (CAPTIONS, CAPTIONS[::-1], CAPTIONS):
        assert np.array_equal(_draw(graphed, captions), _draw(plain, captions))


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_a_batch_that_begins_before_the_last_was_fetched_changes_nothing(
    tmp_path: Path, cuda_graphs: bool
) -> None:
    """Its computation may not overwrite what is still on its way to the host."""
    engine = _engine(tmp_path, "eager", cuda_graphs=cuda_graphs)
    orders = [CAPTIONS, CAPTIONS[::-1], CAPTIONS[1:] + CAPTIONS[:1]]
    alone = [_draw(engine, captions) for captions in orders]
    begun = [engine.begin(_tickets(captions), lambda: False) for captions in orders]
    for drawing, expected in zip(begun, alone, strict=True):
        assert np.array_equal(np.concatenate(drawing.groups()), expected)
