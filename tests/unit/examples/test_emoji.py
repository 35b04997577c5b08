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
    from placements import compose, transform

    drawing = torch.randint(0, 256, (2, 4, 64, 64), dtype=torch.uint8)
    drawing[:, 3] = 255
    zero = torch.zeros(2)
    placed = compose(drawing, transform(zero + 1, zero, zero, zero), torch.rand(2, 3, 64, 64))
    assert torch.allclose((placed + 1) * 127.5, drawing[:, :3].float(), atol=1e-3)


def test_a_drawing_shrinks_and_moves_as_told(example: Path) -> None:
    """Half the size, shifted right by a quarter of the side: its left edge lies at half the width."""
    from placements import compose, transform

    drawing = torch.full((1, 4, 64, 64), 255, dtype=torch.uint8)
    half, zero = torch.tensor([0.5]), torch.zeros(1)
    placed = compose(drawing, transform(half, zero, half, zero), torch.zeros(1, 3, 64, 64))
    row = placed[0, 0, 32]
    assert (row[:31] < -0.99).all()
    assert (row[33:] > 0.99).all()


def test_backgrounds_are_white_plain_and_gradient_by_thirds(example: Path) -> None:
    """What the caption does not tell is drawn from the generator alone."""
    from placements import draw_backgrounds

    backgrounds = draw_backgrounds(3000, torch.Generator().manual_seed(0))
    flat = (backgrounds.flatten(2).amax(2) - backgrounds.flatten(2).amin(2)).amax(1) < 1e-6
    white = flat & (backgrounds.flatten(1).amin(1) == 1)
    assert abs(white.float().mean() - 1 / 3) < 0.04
    assert abs((flat & ~white).float().mean() - 1 / 3) < 0.04
    again = draw_backgrounds(3000, torch.Generator().manual_seed(0))
    assert torch.equal(backgrounds, again)


def test_the_consistency_function_is_that_of_diffusers(example: Path) -> None:
    """Against LCMScheduler.step at its four timesteps, zero signal included."""
    from distill_lcm import Solver, check_against_scheduler
    from models import build_scheduler, signal_and_noise

    signal, noise = signal_and_noise(build_scheduler(), torch.device("cpu"))
    assert float(signal[-1]) == pytest.approx(0.0, abs=1e-6)
    check_against_scheduler(Solver(signal=signal, noise=noise), build_scheduler())
    with pytest.raises(ArithmeticError):
        check_against_scheduler(Solver(signal=signal, noise=noise, scaling=0.01), build_scheduler())


def test_one_ddim_step_with_the_true_v_lands_on_the_earlier_latents(example: Path) -> None:
    """x_t = a x0 + s e; with v = a e - s x0 the step gives a' x0 + s' e exactly, from zero signal too."""
    from distill_lcm import Solver
    from models import build_scheduler, signal_and_noise

    signal, noise = signal_and_noise(build_scheduler(), torch.device("cpu"))
    solver = Solver(signal=signal, noise=noise)
    clean, grain = torch.randn(2, 3, 4, 16, 16)
    times, earlier = torch.tensor([999, 519, 19]), torch.tensor([879, 399, -101])
    a, s = solver.at(times)
    stepped = solver.step(a * clean + s * grain, a * grain - s * clean, times, earlier)
    a, s = solver.at(earlier.clamp(min=0))
    expected = torch.where((earlier < 0).view(-1, 1, 1, 1), clean, a * clean + s * grain)
    assert torch.allclose(stepped, expected, atol=1e-5)


def test_the_loss_weighs_zero_signal(example: Path) -> None:
    """min(SNR + 1, 5) / (SNR + 1): 1 at zero SNR, falling once SNR is over 4."""
    from train_unet import loss_weights

    snr = torch.tensor([0.0, 1.0, 4.0, 9.0])
    signal, noise = (snr / (1 + snr)).sqrt(), (1 / (1 + snr)).sqrt()
    assert torch.allclose(loss_weights(signal, noise), torch.tensor([1.0, 1.0, 1.0, 0.5]), atol=1e-5)


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
