"""The benchmark of quality against speed: what is drawn, how it is judged, and what is shown of it."""

import json
import xml.etree.ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.quality import main
from benchmarks.quality_design import OWN, TINY, Axes, Setting, full_grid, one_at_a_time
from benchmarks.quality_images import Draw, drawings_of, load_images
from benchmarks.quality_judge import Judge
from benchmarks.quality_table import REAL, entry_of, table, write_picture
from benchmarks.quality_train import Train
from benchmarks.vendi import mean_vendi, pixel_features, vendi_score
from launcher.run_file import load
from protocol.errors import UserError
from protocol.identity import caption_id, view_seed
from trainer.evaluation.drawings import Drawings

BASE = Setting(steps=1, guidance=1.0, decoder=OWN, precision="float32")
AXES = Axes(
    steps=(1, 2, 4), guidance=(1.0, 1.5, 3.0), decoders=(OWN, TINY), precisions=("bfloat16", "float32")
)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def own_threads():
    """Engines and learners set torch's threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_by_default_one_factor_changes_at_a_time() -> None:
    """The base comes first, then six settings that differ from it in one factor, then three combinations."""
    settings = one_at_a_time(BASE, AXES)
    fields = ("steps", "guidance", "decoder", "precision")
    changes = [sum(getattr(s, name) != getattr(BASE, name) for name in fields) for s in settings]
    assert changes == [0, *[1] * 6, 2, 2, 2]
    assert len(set(settings)) == len(settings)
    assert len({s.label for s in settings}) == len(settings)


def test_the_grid_is_the_product() -> None:
    """3 x 3 x 2 x 2, each once, the base first; a base beyond the axes is added."""
    grid = full_grid(BASE, AXES)
    assert len(set(grid)) == len(grid) == 36
    assert grid[0] == BASE
    other = Setting(steps=8, guidance=1.0, decoder=OWN, precision="float32")
    assert full_grid(other, AXES)[0] == other
    assert len(full_grid(other, AXES)) == 37


def test_the_vendi_score_counts_what_is_different() -> None:
    """Against exp(entropy) of squared singular values; 1 of copies, N of orthogonal rows, 2 of two pairs."""
    rows = torch.nn.functional.normalize(
        torch.randn(7, 20, generator=torch.Generator().manual_seed(0)), dim=1
    )
    shares = np.linalg.svd(rows.double().numpy(), compute_uv=False) ** 2 / 7
    assert vendi_score(rows) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)
    assert vendi_score(rows[:1].expand(5, -1)) == pytest.approx(1, abs=1e-4)
    assert vendi_score(torch.eye(6)) == pytest.approx(6)
    pairs = torch.eye(2).repeat(2, 1)
    assert vendi_score(pairs) == pytest.approx(2)
    assert mean_vendi([pairs, torch.eye(6)]) == pytest.approx(4)


def test_pixel_features_are_small_images_without_the_mean() -> None:
    """Against a plain loop over squares of 4 x 4 pixels."""
    images, mean = torch.rand(2, 3, 8, 8), torch.rand(3, 8, 8)
    expected = np.zeros((2, 3, 2, 2))
    for (n, c, y, x), _ in np.ndenumerate(expected):
        square = (images - mean)[n, c, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        expected[n, c, y, x] = square.mean().item()
    flat = expected.reshape(2, -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    assert np.allclose(pixel_features(images, mean).numpy(), flat, atol=1e-5)


class Colours:
    """An encoder whose features are an image's mean colour and its deviation."""

    def encode(self, images_NHWC: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] -> [N, 6]."""
        values = images_NHWC.float().flatten(1, 2)
        return torch.cat([values.mean(1), values.std(1)], dim=1)


def drawings(count: int) -> Drawings:
    """Two opaque drawings a name, noise around a colour of the name."""
    random = np.random.default_rng(0)
    colours = random.integers(40, 216, (count, 1, 1, 4)).repeat(2, axis=0)
    rgba = (colours + random.integers(-40, 40, (2 * count, 64, 64, 4))).astype(np.uint8)
    rgba[..., 3] = 255
    names = [f"name {n // 2:02}" for n in range(2 * count)]
    return Drawings(rgba, ["noto", "fluent"] * count, names, [""] * 2 * count)


def test_fidelity_is_recall_by_name_among_the_ten_nearest_drawings() -> None:
    """Against a plain loop over cosines; of what no drawing looks like less is told than of real drawings."""
    known, names = drawings(30), [f"name {n:02}" for n in range(0, 30, 3)]
    judge = Judge(Colours(), known)  # type: ignore[arg-type]  # it asks for encode alone
    real = drawings_of(known, names, 4, seed=1)
    assert real.shape == (10, 4, 64, 64, 3)
    found = judge.score(names, real)
    gallery = judge._gallery_ND.numpy()
    right = []
    for name, group in zip(names, real, strict=True):
        for image in group:
            row = Colours().encode(torch.from_numpy(image[None])).numpy()[0]
            cosines = gallery @ row / np.linalg.norm(gallery, axis=1) / np.linalg.norm(row)
            right.append(name in {known.names[n] for n in np.argsort(-cosines)[:10]})
    assert found["name_recall_at_10"] == pytest.approx(np.mean(right))
    assert judge.score(list(reversed(names)), real)["name_recall_at_10"] < found["name_recall_at_10"]


def test_copies_of_an_image_have_no_diversity() -> None:
    """A Vendi score of 1 in pixels and in features; placed drawings have more."""
    known, names = drawings(12), ["name 03", "name 05"]
    judge = Judge(Colours(), known)  # type: ignore[arg-type]  # it asks for encode alone
    real = drawings_of(known, names, 4, seed=1)
    copies = judge.score(names, real[:, :1].repeat(4, axis=1))
    assert copies["vendi_pixels"] == pytest.approx(1, abs=1e-3)
    assert copies["vendi_features"] == pytest.approx(1, abs=1e-3)
    varied = judge.score(names, real)
    assert varied["vendi_pixels"] > 1.5
    assert varied["vendi_features"] > 1.1


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning"
)  # diffusers' own, in a pipeline
def test_images_are_those_of_the_plans_views(tmp_path: Path) -> None:
    """Those that diffusers draws from each view's seed, captions in their order; and faster settings' too."""
    from diffusers import StableDiffusionPipeline

    captions, config = ("rocket", "red apple"), load(None, ["--generation.views", "3"])
    draw = Draw(config, tmp_path, captions, 6)
    found = draw(BASE)
    assert found["images_per_second"] > 0
    images = load_images(draw.path(draw.key(BASE)))
    assert images.shape == (2, 6, 64, 64, 3)
    pipeline = StableDiffusionPipeline.from_pretrained(draw.model(BASE).path)
    pipeline.set_progress_bar_config(disable=True)
    for caption, group in zip(captions, images, strict=True):
        seeds = [view_seed(config.run.seed, caption_id(caption), view) for view in range(6)]
        expected = pipeline(
            [caption] * 6, num_inference_steps=1, guidance_scale=1.0, height=64, width=64, output_type="np",
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        ).images  # fmt: skip
        assert np.abs(255 * expected - group).mean() < 1
    tiny = Setting(steps=1, guidance=1.0, decoder=TINY, precision="float32")
    draw(tiny)
    others = load_images(draw.path(draw.key(tiny)))
    assert draw.key(tiny) != draw.key(BASE)
    assert 0 < np.abs(others.astype(int) - images).mean() < 8


def test_images_that_are_gone_are_asked_for(tmp_path: Path) -> None:
    """The results are there, the images are not: say what to remove."""
    with pytest.raises(UserError, match=r"images that were drawn are gone.*runs\.jsonl"):
        load_images(tmp_path / "images" / "x.npy")


class Answers:
    """Instead of the evaluation on all drawings, which takes long: the features of a few random images."""

    def evaluate(self, encode: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Their mean."""
        images_NCHW = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return {"features": encode(images_NCHW).mean().item()}


def test_an_encoder_is_trained_for_the_steps_on_the_images_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images, steps and seed give the same encoder; other images give another."""
    monkeypatch.setattr("benchmarks.quality_train.evaluation_once", lambda *words: Answers())
    config = load(
        None, ["--generation.views", "3", "--train.batch_groups", "2", "--train.precision", "float32"]
    )
    results: list[dict[str, Any]] = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        images = np.random.default_rng(seed).integers(0, 255, (4, 6, 64, 64, 3), dtype=np.uint8)
        np.save(tmp_path / f"{name}.npy", images)
        results.append(Train(config, ("a", "b", "c", "d"), 2)(tmp_path / f"{name}.npy", 0))
    keys = ("loss_excess", "features")
    first, again, other = [[result[key] for key in keys] for result in results]
    assert first == again
    assert first != other


def entries() -> list[dict[str, Any]]:
    """Two settings and the real drawings, with two seeds each."""
    scores = {"name_recall_at_10": 0.5, "vendi_pixels": 4.0, "vendi_features": 2.0}
    trained = [{"recall_at_10": v, "recall_at_10_backgrounds": v / 2} for v in (0.1, 0.3)]
    drawn = [{"images_per_second": 40.0}, {"images_per_second": 60.0}, {}]
    names = ["slow", "fast & small", REAL]
    return [entry_of(name, speed, scores, trained) for name, speed in zip(names, drawn, strict=True)]


def test_the_table_tells_speed_beside_the_base_and_the_range_over_seeds() -> None:
    """60 images/s are 1.5 times 40; 10% and 30% are 20% on average; real drawings have no speed."""
    lines = table(entries()).splitlines()
    assert lines[3].startswith(
        "| fast & small | 60.0 | 1.50 | 50.0% | 4.00 | 2.00 | 20.0% (10.0% to 30.0%) |"
    )
    assert lines[4].startswith(f"| {REAL} |  |  | 50.0%")


def test_the_picture_has_a_point_for_each_setting_in_each_panel(tmp_path: Path) -> None:
    """Three panels of two points, faster ones further right; the drawings are a line."""
    write_picture(tmp_path / "quality.svg", entries())
    root = xml.etree.ElementTree.parse(tmp_path / "quality.svg").getroot()
    circles = [float(circle.attrib["cx"]) for circle in root.findall(f"{SVG}circle")]
    assert len(circles) == 6
    assert all(slow < fast for slow, fast in zip(circles[::2], circles[1::2], strict=True))
    texts = [text.text for text in root.findall(f"{SVG}text")]
    assert "2  fast & small" in texts


def test_images_must_fill_their_groups(tmp_path: Path) -> None:
    """Before anything is loaded or trained."""
    with pytest.raises(UserError, match="expected a multiple of 3, got 4"):
        main(["--images", "4", "--folder", str(tmp_path)])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_draws_trains_judges_and_goes_on_where_it_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A small one: the second call draws and trains nothing and says the same."""
    words = ["--captions", "6", "--images", "3", "--judge-steps", "2", "--train-steps", "2", "--seeds", "1"]
    words += ["--steps", "1", "--guidance", "1", "--precisions", "bfloat16", "--train.batch_groups", "4"]
    words += ["--folder", str(tmp_path / "work"), "--out", str(tmp_path / "quality.json")]
    words += ["--picture", str(tmp_path / "quality.svg")]
    assert main(words) == 0
    first = json.loads((tmp_path / "quality.json").read_text())
    assert [TINY in entry["setting"] for entry in first["settings"]][:2] == [False, True]
    assert first["settings"][-1]["setting"] == REAL
    capfd.readouterr()
    assert main(words) == 0
    assert capfd.readouterr().err == ""
    assert json.loads((tmp_path / "quality.json").read_text())["settings"] == first["settings"]
