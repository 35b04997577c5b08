"""The example that trains the embedded model: its placements and the equations of its objectives."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "emoji"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder on the path, as for a script that is run in it; its modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield FOLDER
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if isinstance(module, ModuleType) and str(FOLDER) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


def test_an_unmoved_opaque_drawing_is_itself(example: Path) -> None:
    """Scale 1, no turn, no shift: the pixels of the drawing, whatever lies behind."""
    from placements import compose, premultiply, transform

    drawing = torch.randint(0, 256, (2, 4, 64, 64), dtype=torch.uint8)
    drawing[:, 3] = 255
    zero = torch.zeros(2)
    placed = compose(premultiply(drawing), transform(zero + 1, zero, zero, zero), torch.rand(2, 3, 64, 64))
    assert torch.allclose((placed + 1) * 127.5, drawing[:, :3].float(), atol=1e-3)


def test_a_drawing_shrinks_and_moves_as_told(example: Path) -> None:
    """Half the size, shifted right by a quarter of the side: its left edge lies at half the width."""
    from placements import compose, transform

    half, zero = torch.tensor([0.5]), torch.zeros(1)
    white = torch.ones(1, 4, 64, 64)
    placed = compose(white, transform(half, zero, half, zero), torch.zeros(1, 3, 64, 64))
    row = placed[0, 0, 32]
    assert (row[:31] < -0.99).all()
    assert (row[33:] > 0.99).all()


def test_backgrounds_are_white_or_two_colours_that_meet(example: Path) -> None:
    """The first number decides; the edge lies across the angle, shifted by the last number."""
    from placements import backgrounds_of

    uniform = torch.rand(4, 9, generator=torch.Generator().manual_seed(0))
    uniform[:, 0] = torch.tensor([0.09, 0.11, 0.9, 0.9])
    uniform[:, 1] = torch.tensor([0.0, 0.0, 0.25, 0.0])
    uniform[:, 8] = torch.tensor([0.5, 0.5, 0.5, 1.0])
    white, across, down, shifted = backgrounds_of(uniform)
    assert (white == 1).all()
    for image, row in ((across, 1), (down.mT, 2), (shifted, 3)):
        assert torch.equal(image[:, :, 0], uniform[row, 2:5, None].expand(3, 64))
        assert torch.equal(image[:, :, -1], uniform[row, 5:8, None].expand(3, 64))
    middle = (uniform[1, 2:5] + uniform[1, 5:8]) / 2
    assert torch.allclose(across[:, 5, 31:33].mean(1), middle, atol=1e-6)
    # An edge at 0.6 of the half width, a quarter of it wide: the middle still has the first colour.
    assert torch.equal(shifted[:, :, 32], uniform[3, 2:5, None].expand(3, 64))


def test_numbers_of_a_noise_are_independent_and_uniform(example: Path) -> None:
    """Against the moments of the uniform distribution, over many noises."""
    from coupling import uniforms

    numbers = uniforms(torch.randn(20_000, 16, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert numbers.shape == (20_000, 16)
    assert torch.allclose(numbers.mean(0), torch.tensor(0.5), atol=0.01)
    assert torch.allclose(torch.cov(numbers.T), torch.eye(16) / 12, atol=0.003)
    assert torch.allclose((numbers < 0.1).float().mean(0), torch.tensor(0.1), atol=0.01)


def test_mixtures_of_styles_are_squares_of_evenly_spread_ones(example: Path) -> None:
    """Their roots, scaled to sum to 1, are Dirichlet(1, 1, 1): mean 1/3, variance 1/18, covariance -1/36."""
    from coupling import mixtures

    weights = mixtures(torch.rand(50_000, 2, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(weights.sum(1), torch.tensor(1.0))
    roots = weights.sqrt() / weights.sqrt().sum(1, keepdim=True)
    expected = torch.eye(3) * (1 / 18 + 1 / 36) - 1 / 36
    assert torch.allclose(torch.cov(roots.T), expected, atol=0.002)


def test_a_picture_is_its_names_drawings_mixed_and_placed(example: Path) -> None:
    """Black, grey and white squares of one name: the weights are read off the picture's middle."""
    from coupling import load_looks, mixtures, uniforms
    from placements import Drawings

    images = torch.full((3, 4, 64, 64), 255, dtype=torch.uint8)
    images[0, :3], images[1, :3] = 0, 51
    drawings = Drawings(
        images=images, styles=["noto", "twemoji", "fluent"], names=["square"] * 3, categories=[""] * 3
    )
    looks = load_looks(drawings, torch.device("cpu"))
    noise = torch.randn(5, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    pictures = looks.pictures(torch.zeros(5, dtype=torch.int64), noise)
    weights = mixtures(uniforms(noise)[:, 12:14])
    grey = weights @ torch.tensor([0.0, 0.2, 1.0])
    # At 60% of the size and shifted by 40% at most, the drawing always covers the middle.
    assert torch.allclose((pictures[:, 0, 32, 32] + 1) / 2, grey, atol=0.01)


def test_a_style_that_lacks_a_name_has_the_mean_of_the_others(example: Path) -> None:
    """So that no mixture fades to nothing."""
    from coupling import load_looks
    from placements import Drawings

    images = torch.zeros(2, 4, 64, 64, dtype=torch.uint8)
    images[:, 3] = 255
    images[1, :3] = 100
    drawings = Drawings(images=images, styles=["noto", "fluent"], names=["a", "a"], categories=["", ""])
    looks = load_looks(drawings, torch.device("cpu"))
    assert looks.images[0, :, 0, 0, 0].tolist() == [0, 50, 100]


def test_at_the_first_timestep_the_latents_are_minus_v(example: Path) -> None:
    """DDIMScheduler's single step from pure noise, whatever the noise was."""
    from models import build_scheduler
    from train_unet import FIRST_TIMESTEP

    scheduler = build_scheduler()
    scheduler.set_timesteps(1)
    assert scheduler.timesteps.tolist() == [FIRST_TIMESTEP]
    noise, v = torch.randn(2, 3, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(scheduler.step(v, FIRST_TIMESTEP, noise).prev_sample, -v, atol=1e-5)


def test_half_whitened_components_are_those_of_a_singular_value_decomposition(example: Path) -> None:
    """Each component's deviation is the root of what it was, up to one common scale and the signs."""
    from train_text_encoder import half_whitened

    rows = torch.randn(300, 20, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 5, 20)
    left, values, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    expected = left[:, :6] * values[:6].sqrt()
    expected /= expected.std()
    assert torch.allclose(half_whitened(rows, 6).abs(), expected.abs(), atol=1e-3)


def test_a_patch_code_tells_its_own_patch(example: Path) -> None:
    """Two drawings that differ in their upper right quarter differ in those sixteen codes alone."""
    from placements import Drawings
    from train_text_encoder import patch_codes

    images = torch.randint(0, 256, (40, 4, 64, 64), generator=torch.Generator().manual_seed(0))
    images[1] = images[0]
    images[1, :, :32, 32:] = 255 - images[0, :, :32, 32:]
    names = [f"{row:02}" for row in range(40)]
    drawings = Drawings(
        images=images.to(torch.uint8), styles=["noto"] * 40, names=names, categories=[""] * 40
    )
    found, codes = patch_codes(drawings)
    assert found == names
    differs = (codes[0] - codes[1]).abs().amax(1) > 1e-3
    assert differs.nonzero().flatten().tolist() == [
        row * 8 + column for row in range(4) for column in range(4, 8)
    ]


def test_training_can_go_on_from_the_exported_model(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`restore.py` brings back parts that the training scripts load, name by name, and replaces nothing."""
    import restore
    from checkpoints import load_checkpoint
    from models import build_text_encoder, build_unet, build_vae, load_tokenizer
    from safetensors.torch import load_file

    work = tmp_path / "work"
    monkeypatch.setattr(sys, "argv", ["restore.py", "--work", str(work)])
    restore.main()
    tokenizer = load_tokenizer(work / "tokenizer")
    load_checkpoint(work / "vae", {"vae": build_vae()})
    load_checkpoint(work / "text_encoder", {"text_encoder": build_text_encoder(tokenizer)})
    build_unet().load_state_dict(load_file(work / "initial_unet.safetensors"))
    with pytest.raises(SystemExit, match="expected nothing there"):
        restore.main()


def test_a_shortened_decoder_has_the_first_blocks_of_every_resolution(example: Path) -> None:
    """With all of them it decodes alike; with fewer, the layers between are still those between."""
    from models import build_vae, shortened

    vae = build_vae()
    latents = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = shortened(vae, (3, 3, 2, 1))
    with torch.no_grad():
        assert torch.equal(whole.decode(latents).sample, vae.decode(latents).sample)
    layers, kept = vae.decoder.layers, shortened(vae, (2, 1, 0, 0)).decoder.layers
    rows = [0, 1, 2, 3, 5, 6, 7, 10, 11, 14, 15, 17]
    assert len(kept) == len(rows)
    for row, layer in zip(rows, kept, strict=True):
        assert type(layer) is type(layers[row])
        for name, value in layer.state_dict().items():
            assert torch.equal(value, layers[row].state_dict()[name])
