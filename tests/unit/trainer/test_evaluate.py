"""The evaluation of a small set of drawings made here, and what is read from files."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from protocol.errors import UserError
from trainer.augment import IMAGENET_MEAN, IMAGENET_STD
from trainer.config import EvalConfig
from trainer.evaluation.batch_norm import calibrate_batch_norm
from trainer.evaluation.drawings import load_drawings, on_backgrounds, on_white
from trainer.evaluation.evaluate import Evaluation

STYLES = ("fluent", "noto", "openmoji", "twemoji")
NAMES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}


def write_set(folder: Path, names: dict[str, tuple[int, int, int]]) -> None:
    """Four styles of one disc a name, the disc's colour being the name; lossless WebP in two archives."""
    y, x = np.mgrid[:64, :64]
    rows = []
    with (
        tarfile.open(folder / "drawings.tar", "w") as train,
        tarfile.open(folder / "openmoji.tar", "w") as held_out,
    ):
        for number, style in enumerate(STYLES):
            for name, colour in names.items():
                alpha = ((y - 32) ** 2 + (x - 32) ** 2 < (20 + number) ** 2) * 255
                pixels = np.dstack([np.full((64, 64, 3), colour), alpha]).astype(np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels, "RGBA").save(buffer, "WEBP", lossless=True, exact=True)
                info = tarfile.TarInfo(f"{style}/{name}.webp")
                info.size = buffer.tell()
                archive = held_out if style == "openmoji" else train
                archive.addfile(info, io.BytesIO(buffer.getvalue()))
                kind = "grey" if name == "black" else "colour"
                rows.append([info.name, style, name, name, "discs", kind])
    with (folder / "drawings.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["path", "style", "codepoint", "name", "category", "subcategory"], *rows])


@pytest.fixture(name="folder")
def drawings_folder(tmp_path: Path) -> Path:
    write_set(tmp_path, NAMES)
    return tmp_path


def centre_colour(images_NCHW: Tensor) -> Tensor:
    """An encoder that knows the answer: the colour in the middle, as 0 or 1 a channel, and one constant."""
    side = images_NCHW.shape[-1]
    colour_NC = images_NCHW[:, :, side // 2, side // 2] * torch.tensor(IMAGENET_STD) + torch.tensor(
        IMAGENET_MEAN
    )
    return torch.cat([colour_NC.round(), torch.full((len(colour_NC), 1), 0.1)], dim=1)


KEYS = {"recall_at_3", "knn_subcategory", "recall_at_3_backgrounds", "knn_subcategory_backgrounds"}


@pytest.mark.parametrize("image_size", [64, 32])
def test_an_encoder_that_sees_the_colour_finds_everything(folder: Path, image_size: int) -> None:
    """All four results are 1, at the drawings' size and at another; k names the keys."""
    results = Evaluation(EvalConfig(k=3, batch_images=5), image_size, "cpu", folder).evaluate(centre_colour)
    assert set(results) == KEYS
    assert all(value == pytest.approx(1.0) for value in results.values())


def test_an_encoder_that_sees_nothing_is_at_chance_or_below(folder: Path) -> None:
    """Equal features rank the gallery in some fixed order: 3 of 12 rows hold at most 3 of the 4 names."""
    evaluation = Evaluation(EvalConfig(k=3), 64, "cpu", folder)
    results = evaluation.evaluate(lambda images: torch.ones(len(images), 2))
    assert results["recall_at_3"] <= 0.75
    assert results["knn_subcategory"] == pytest.approx(0.5)


def test_encoders_are_fed_normalised_batches_of_their_size(folder: Path) -> None:
    """Batches hold at most batch_images images; a white corner is ImageNet's white."""
    seen: list[tuple[int, ...]] = []

    def encode(images_NCHW: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        seen.append(tuple(images_NCHW.shape))
        if len(seen) == 1:
            white = [(1 - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
            assert images_NCHW[0, :, 0, 0].tolist() == pytest.approx(white, rel=1e-5)
        return images_NCHW.flatten(1)

    Evaluation(EvalConfig(batch_images=5), 32, "cpu", folder).evaluate(encode)
    # 4 queries and 12 gallery drawings, twice.
    assert seen == [(4, 3, 32, 32), (5, 3, 32, 32), (5, 3, 32, 32), (2, 3, 32, 32)] * 2


def test_calibration_batches_are_the_whole_gallery_shuffled(folder: Path) -> None:
    """Every gallery drawing comes once, in another order than the table's."""
    evaluation = Evaluation(EvalConfig(batch_images=5), 64, "cpu", folder)
    seen: list[Tensor] = []
    evaluation.evaluate(lambda images: seen.append(images) or images.flatten(1))
    table = torch.cat(seen[1:4]).flatten(1)
    shuffled = torch.cat(list(evaluation.gallery_batches())).flatten(1)
    assert not torch.equal(shuffled, table)
    assert sorted(shuffled.tolist()) == sorted(table.tolist())


def test_baselines_find_discs_of_the_same_colour(folder: Path) -> None:
    """On white both features tell these four colours; every baseline reports every result."""
    rows = Evaluation(EvalConfig(k=3), 64, "cpu", folder).baselines()
    assert set(rows) == {"pixels", "histogram"}
    for results in rows.values():
        assert set(results) == KEYS
        assert results["recall_at_3"] == 1.0


def test_backgrounds_differ_by_drawing_and_by_side_and_repeat_by_seed(folder: Path) -> None:
    """About half are plain; the same seed gives the same pixels; the discs are on top of them."""
    rgba = np.repeat(load_drawings(folder).rgba_NHWA, 20, axis=0)
    images = on_backgrounds(rgba, 3)
    assert (images == on_backgrounds(rgba, 3)).all()
    assert (images != on_backgrounds(rgba, 4)).mean() > 0.3
    assert len({tuple(corner) for corner in images[:, 0, 0].tolist()}) > 0.95 * len(images)
    plain = (images[:, 0, 0] == images[:, -1, -1]).all(axis=1) & (images[:, 0, -1] == images[:, -1, 0]).all(
        axis=1
    )
    assert 0.4 < plain.mean() < 0.6
    opaque: NDArray[np.bool_] = rgba[..., 3] == 255
    assert (images[opaque] == rgba[..., :3][opaque]).all()


def test_on_white_is_pillows_composite() -> None:
    """Partly transparent pixels are blended with white within the rounding of 8 bits."""
    rgba = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 4)).astype(np.uint8)
    for got, pixels in zip(on_white(rgba), rgba, strict=True):
        white = Image.new("RGBA", (64, 64), "white")
        expected = Image.alpha_composite(white, Image.fromarray(pixels, "RGBA")).convert("RGB")
        assert np.abs(got.astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_rows_of_the_table_get_their_own_pixels(folder: Path) -> None:
    """Names and colours belong together, and the held-out style is kept apart."""
    drawings = load_drawings(folder)
    for name, rgba in zip(drawings.names, drawings.rgba_NHWA, strict=True):
        assert tuple(rgba[32, 32, :3]) == NAMES[name]
    assert set(drawings.of(held_out=True).styles) == {"openmoji"}
    assert drawings.of(held_out=False).styles.count("noto") == len(NAMES)
    assert len(drawings.of(held_out=False).names) == 3 * len(NAMES)


@pytest.mark.parametrize("gone", ["drawings.csv", "drawings.tar", "openmoji.tar"])
def test_a_missing_file_is_named(folder: Path, gone: str) -> None:
    """The error says which file is missing and how to build it."""
    (folder / gone).unlink()
    with pytest.raises(UserError, match=rf"{gone}.*build_dataset\.py"):
        load_drawings(folder)


def test_a_missing_member_is_named(folder: Path) -> None:
    """A row of the table without its drawing is an error, not a shorter set."""
    with (folder / "drawings.csv").open("a", encoding="utf-8") as file:
        file.write("noto/lost.webp,noto,lost,lost,discs,colour\n")
    with pytest.raises(UserError, match=r"noto/lost\.webp"):
        load_drawings(folder)


def test_calibration_sets_the_mean_of_the_batches_statistics() -> None:
    """Running mean and variance equal the plain means over the batches; the rest is untouched."""
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.1)).eval()
    batches = list(torch.randn(3, 8, 3, 5, 5).unbind())
    weights = [value.clone() for value in model.parameters()]
    assert calibrate_batch_norm(model, batches) == 1
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    maps = [model[0](batch).detach().transpose(0, 1).flatten(1) for batch in batches]
    torch.testing.assert_close(norm.running_mean, torch.stack([m.mean(1) for m in maps]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([m.var(1) for m in maps]).mean(0))
    assert norm.momentum == 0.1
    assert not model.training
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert calibrate_batch_norm(nn.Linear(2, 2), batches) == 0
