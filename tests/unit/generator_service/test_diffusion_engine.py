"""The eager engine: padding, independence of neighbours, hashes, what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch

from generator_service.config import GeneratorConfig
from generator_service.diffusion_engine import DiffusionEngine
from generator_service.errors import OutOfDeviceMemoryError, TicketError
from generator_service.model_folder import open_model_folder
from protocol.errors import UserError
from protocol.generation import GenerationSpec

SPEC = GenerationSpec(views=2, size=32, steps=2, sampler="lcm", guidance=(1.0, 3.0))


def _engine(folder: Path, spec: GenerationSpec = SPEC, **settings: object) -> DiffusionEngine:
    config = GeneratorConfig(model=str(folder), **{"batch_images": 7, "precision": "float32"} | settings)
    opened = open_model_folder(str(folder))
    return DiffusionEngine(config, opened, opened.weights_digest(), spec, lambda: False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pixels_do_not_depend_on_slot_or_neighbours(
    distilled_folder: Path, make_ticket, precision: str
) -> None:
    """Bit for bit: alone, first, last. The engine has seen the same at its warm-up."""
    engine = _engine(distilled_folder, precision=precision)
    assert engine.exact
    assert engine.batch_images == 6
    probe, *others = [make_ticket(i, f"caption {i}", views=2, guidance=(1.0, 3.0)) for i in range(5)]
    (alone,) = engine.draw([probe], lambda: False)
    first = engine.draw([probe, *others[:2]], lambda: False)
    last = engine.draw([*others[2:], probe], lambda: False)
    assert np.array_equal(alone, first[0])
    assert np.array_equal(alone, last[2])
    assert not np.array_equal(first[0], first[1])
    assert alone.shape == (2, 32, 32, 3)


def test_hashes_name_content_and_engine(distilled_folder: Path) -> None:
    """The content hash knows model and spec and not the batch; the engine hash the reverse."""
    engine, bigger = _engine(distilled_folder), _engine(distilled_folder, batch_images=4)
    other = _engine(distilled_folder, GenerationSpec(views=2, size=32, steps=1, sampler="lcm"))
    assert engine.content_hash == bigger.content_hash != other.content_hash
    assert engine.engine_hash == other.engine_hash != bigger.engine_hash


def test_refuses_tickets_of_another_spec(distilled_folder: Path, make_ticket) -> None:
    """Wrong number of views, or a guidance scale that the run has not."""
    engine = _engine(distilled_folder)
    with pytest.raises(TicketError, match="ticket 4: expected 2 views, got 3 seeds"):
        engine.draw([make_ticket(4, "a", views=3)], lambda: False)
    with pytest.raises(TicketError, match=r"ticket 5: guidance 2\.5 is not of the run's"):
        engine.draw([make_ticket(5, "a", views=2, guidance=(2.5,))], lambda: False)


def test_refuses_a_batch_without_room_for_a_group(distilled_folder: Path) -> None:
    """Before any weight is read."""
    with pytest.raises(UserError, match=r"expected at least generation\.views = 2, got 1"):
        _engine(distilled_folder, batch_images=1)


def test_running_out_of_memory_is_the_workers_failure(
    distilled_folder: Path, make_ticket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both a CUDA and a CPU allocator's error become one line that tells what to lower."""
    engine = _engine(distilled_folder)
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 9 GB")):

        def fail(*args: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(engine._sampler, "begin", fail)
        with pytest.raises(
            OutOfDeviceMemoryError, match=r"static batch of 6 images.*lower generator.batch_images"
        ):
            engine.draw([make_ticket(1, "a", views=2)], lambda: False)


def test_refuses_weights_that_do_not_fit_their_config(
    distilled_folder: Path, tmp_path: Path, edit_json
) -> None:
    """A folder put together wrongly is told apart from a defect."""
    import shutil

    folder = Path(shutil.copytree(distilled_folder, tmp_path / "model"))
    edit_json(folder / "unet" / "config.json", cross_attention_dim=48)
    with pytest.raises(UserError, match="the model cannot be read"):
        _engine(folder)
