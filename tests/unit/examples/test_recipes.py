"""The recipes hold what was published, worked out here from captions, passes and images."""

import math
from pathlib import Path

import pytest

from launcher.run_file import load

RECIPES = sorted((Path(__file__).resolve().parents[3] / "examples" / "recipes").glob("*.toml"))
SCHEDULES = {
    "cc12m_1x": (10_000_000, 15, 0.5),
    "cc12m_2x": (10_000_000, 31, 1.0),
    "cc12m_3x": (10_000_000, 46, 1.5),
    "redcaps_1x": (11_600_000, 13, 0.45),
    "redcaps_2x": (11_600_000, 27, 0.9),
    "redcaps_3x": (11_600_000, 40, 1.35),
    "cc12m_1x_text": (10_000_000, 15, 0.5),
    "redcaps_1x_text": (11_600_000, 13, 0.45),
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_what_it_is(path: Path) -> None:
    """Its head names command, cost and expected result; every ViT-B/16 recipe sees 224 pixels of 256."""
    run_file = load(path, environment={})
    assert run_file.model.encoder == {"model_type": "vit"}
    assert (run_file.augment.crop_size, run_file.generation.size) == (224, 256)
    head = path.read_text("utf-8").split("\n[run]")[0]
    assert all(word in head for word in ("# Command:", "# Cost:", "# Expected, as published:"))
    assert path.name in head
    online = load(path, ["--run.mode", "online", "--stream.max_reuse", "9"], environment={})
    assert (online.run.mode, online.run.max_steps) == ("online", run_file.run.max_steps)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_published_schedules(name: str) -> None:
    """Passes over captions at 1,376 captions a step, 6 of 10 images each, peak learning rate 3.225e-3."""
    captions, passes, warm = SCHEDULES[name]
    run_file = load(next(path for path in RECIPES if path.stem == name), environment={})
    train = run_file.train
    assert run_file.run.max_steps == math.ceil(captions * passes / (43 * 32))
    assert train.warmup_steps == round(captions * warm / (43 * 32))
    assert run_file.batch_images == 8256
    assert run_file.peak_lr == pytest.approx(3.225e-3)
    assert (run_file.generation.views, run_file.pool.images_per_caption) == (6, 10)
    assert (run_file.generation.steps, run_file.generation.guidance) == (50, (2.0,))
    assert (train.temperature, train.betas, train.weight_decay) == (0.1, (0.9, 0.98), 0.1)
    assert train.objective == ("stablerep+" if name.endswith("text") else "stablerep")


@pytest.mark.parametrize(
    ("name", "images", "guidance"),
    [
        ("laion_text", 8256, 2),
        ("cc12m_simclr", 8256, 8),
        ("cc12m_clip", 8256, 2),
        ("cc12m_mae", 4096, 6),
        ("cc12m_supcon", 8256, 2),
    ],
)
def test_the_other_recipes_see_as_many_images(name: str, images: int, guidance: float) -> None:
    """SimCLR's augmentations count as images; each at the guidance that suits it best."""
    run_file = load(next(path for path in RECIPES if path.stem == name), environment={})
    assert run_file.batch_images == images
    assert run_file.generation.guidance == (guidance,)
