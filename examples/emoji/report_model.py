"""Measure the exported generator and write results.json and docs/images/embedded_samples.png.

    python examples/emoji/report_model.py

Needs the judges (`judge.py`) and the exported folder (`export.py`). Every sample is drawn by diffusers' own
pipeline in one step, without guidance. Beside the generator's scores stand those of real drawings,
placed with other seeds than in training: the "lookup table", which is what a generator that only knows its
data would give.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from judge import LEFT_OUT, STYLES, Judge, load_judge, recall
from PIL import Image, ImageDraw
from placements import Drawings, load_drawings, place
from registration import registered_distance
from torch import Tensor

from benchmarks.vendi import mean_vendi, pixel_features

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SEED = 1_000_003
STEPS = 1
GUIDANCE = 1.0
SHOWN = (
    "grinning face", "dog face", "red heart", "rocket", "soccer ball", "flag: japan", "pizza", "hot dog",
    "cat face", "red apple", "sunflower", "fire", "alarm clock", "umbrella", "butterfly", "airplane",
)  # fmt: skip


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline: StableDiffusionPipeline, captions: list[str], seed: int, batch: int = 64) -> Tensor:
    """(N, 3, 64, 64) in [-1, 1], image i from a noise generator seeded with seed + i."""
    images = []
    for start in range(0, len(captions), batch):
        chunk = captions[start : start + batch]
        generators = [torch.Generator().manual_seed(seed + start + row) for row in range(len(chunk))]
        output = pipeline(
            chunk, num_inference_steps=STEPS, guidance_scale=GUIDANCE, height=64, width=64,
            generator=generators, output_type="pt",
        )  # fmt: skip
        images.append(output.images.float() * 2 - 1)
    return torch.cat(images)


@torch.no_grad()
def variety(groups: Tensor, judge: Judge, mean_image: Tensor) -> dict[str, float]:
    """Mean Vendi score of (C, M, 3, 64, 64) groups, in pixels (16x16, mean image taken off) and in the
    judge's features.
    """
    return {
        "pixels": mean_vendi(pixel_features(group, mean_image) for group in groups),
        "judge_features": mean_vendi(judge.features(group) for group in groups),
    }


def by_name(drawings: Drawings) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(drawings.names):
        rows.setdefault(name, []).append(row)
    return rows


def lookup(drawings: Drawings, captions: list[str], generator: torch.Generator) -> Tensor:
    """A real drawing of each caption, in a random style, placed at random."""
    rows = by_name(drawings)
    chosen = [rows[name][int(torch.randint(len(rows[name]), (1,), generator=generator))] for name in captions]
    return place(drawings.images[chosen], generator)


@torch.no_grad()
def nearest_rows(judge: Judge, images: Tensor, drawings: Drawings, extra: int) -> list[list[int]]:
    """For each image, the `extra` drawings nearest in the judge's features, drawings laid over grey."""
    rgba = drawings.images.float() / 255
    plain = 2 * (rgba[:, :3] * rgba[:, 3:] + 0.5 * (1 - rgba[:, 3:])) - 1
    gallery = torch.cat([judge.features(chunk) for chunk in plain.split(256)])
    return (judge.features(images) @ gallery.T).topk(extra, dim=1).indices.tolist()


def nearest_distance(judge: Judge, images: Tensor, captions: list[str], drawings: Drawings) -> Tensor:
    """(N,) registered distance to the nearest of: the caption's own drawings, and 2 more by the judge."""
    rows = by_name(drawings)
    extra = nearest_rows(judge, images, drawings, 2)
    pairs = [(i, row) for i, name in enumerate(captions) for row in {*rows[name], *extra[i]}]
    owners, others = torch.tensor(pairs).T
    distances = registered_distance(images[owners], drawings.images[others])
    return torch.full((len(images),), 9.0).scatter_reduce(0, owners, distances, "amin")


def style_distance(drawings: Drawings, names: list[str], generator: torch.Generator) -> float:
    """Mean registered distance between a placed drawing of a name and the same name's drawing in
    another style.
    """
    rows = by_name(drawings)
    pairs = [(a, b) for name in names for a in rows[name] for b in rows[name] if a != b]
    first, second = torch.tensor(pairs).T
    return (
        registered_distance(place(drawings.images[first], generator), drawings.images[second]).mean().item()
    )


def score_names(
    pipeline: StableDiffusionPipeline, drawings: Drawings, judges: Path, every: int
) -> dict[str, Any]:
    """Name R@10 of samples, of the lookup table, of the unseen style (ceiling) and of shuffled
    captions (floor).
    """
    names = sorted(set(drawings.names))
    judge, blind = (
        load_judge(judges / "all.safetensors"),
        load_judge(judges / f"without_{LEFT_OUT}.safetensors"),
    )
    labels = torch.arange(0, len(names), every)
    captions = [names[label] for label in labels]
    images = sample(pipeline, captions, SEED)
    generator = torch.Generator().manual_seed(SEED)
    unseen = drawings.select([row for row, style in enumerate(drawings.styles) if style == LEFT_OUT])
    index = {name: position for position, name in enumerate(names)}
    unseen_labels = torch.tensor([index[name] for name in unseen.names])
    return {
        "samples": len(captions),
        "generated": recall(judge, images, labels),
        "generated_by_blind_judge": recall(blind, images, labels),
        "lookup": recall(judge, lookup(drawings, captions, generator), labels),
        "ceiling_unseen_style": recall(blind, place(unseen.images, generator), unseen_labels),
        "ceiling_samples": len(unseen),
        "floor_shuffled": recall(judge, images, labels[torch.randperm(len(labels), generator=generator)]),
    }


def score_copies(
    pipeline: StableDiffusionPipeline, drawings: Drawings, judge: Judge, count: int
) -> dict[str, Any]:
    """Share of samples nearer to a training drawing than a quarter of the distance between styles."""
    generator = torch.Generator().manual_seed(SEED + 1)
    names = sorted(name for name, rows in by_name(drawings).items() if len(rows) == len(STYLES))
    captions = [names[int(i)] for i in torch.randperm(len(names), generator=generator)[:count]]
    between = style_distance(drawings, captions[: count // 4], generator)
    generated = nearest_distance(judge, sample(pipeline, captions, SEED + 50_000), captions, drawings)
    looked_up = nearest_distance(judge, lookup(drawings, captions, generator), captions, drawings)
    return {
        "samples": count,
        "distance_between_styles": between,
        "threshold": between / 4,
        "generated_mean_distance": generated.mean().item(),
        "lookup_mean_distance": looked_up.mean().item(),
        "generated": (generated < between / 4).float().mean().item(),
        "lookup": (looked_up < between / 4).float().mean().item(),
    }


def score_variety(
    pipeline: StableDiffusionPipeline, drawings: Drawings, judge: Judge, count: int
) -> dict[str, Any]:
    """Vendi scores of 24 samples a caption, of the lookup table, and of the 3 drawings without placement."""
    generator = torch.Generator().manual_seed(SEED + 2)
    names = sorted(name for name, rows in by_name(drawings).items() if len(rows) == len(STYLES))
    captions = [names[int(i)] for i in torch.randperm(len(names), generator=generator)[:count]]
    repeated = [name for name in captions for _ in range(24)]
    mean_image = place(drawings.images, generator).mean(0)
    groups = sample(pipeline, repeated, SEED + 100_000).view(count, 24, 3, 64, 64)
    placed = lookup(drawings, repeated, generator).view(count, 24, 3, 64, 64)
    rgba = drawings.images.float() / 255
    rows = by_name(drawings)
    plain = 2 * (rgba[:, :3] * rgba[:, 3:] + 0.5 * (1 - rgba[:, 3:])) - 1
    unplaced = torch.stack([plain[[rows[name][i % 3] for i in range(24)]] for name in captions])
    return {
        "captions": count,
        "samples_a_caption": 24,
        "generated": variety(groups, judge, mean_image),
        "lookup_placed": variety(placed, judge, mean_image),
        "lookup_unplaced": variety(unplaced, judge, mean_image),
    }


def measure_speed(folder: Path) -> dict[str, Any]:
    """Images a second of batches of 32 on one thread, all of the pipeline included; median of 5."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {"threads": 1, "batch": 32}
    for dtype in (torch.float32, torch.bfloat16):
        pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        seconds = []
        for _ in range(6):
            began = time.perf_counter()
            sample(pipeline, ["rocket"] * 32, SEED)
            seconds.append(time.perf_counter() - began)
        result[str(dtype).removeprefix("torch.")] = 32 / sorted(seconds[1:])[2]
    torch.set_num_threads(os.cpu_count() or 1)
    return result


def draw_picture(pipeline: StableDiffusionPipeline, path: Path, views: int = 6) -> None:
    """Rows of views under the caption they were drawn from, two columns of rows."""
    images = sample(pipeline, [name for name in SHOWN for _ in range(views)], SEED + 200_000)
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    label, cell, columns = 92, 66, 2
    height = (len(SHOWN) + columns - 1) // columns
    sheet = Image.new("RGB", (columns * (label + views * cell + 8), height * cell), "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(SHOWN):
        left, top = (row // height) * (label + views * cell + 8), (row % height) * cell
        draw.text((left + 4, top + 26), name, fill="black")
        for view in range(views):
            sheet.paste(Image.fromarray(pixels[row * views + view]), (left + label + view * cell, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def processor() -> str:
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "generator_service/embedded/model")
    parser.add_argument("--judges", type=Path, default=HERE / "work/judges")
    parser.add_argument("--every", type=int, default=2, help="score every n-th name")
    parser.add_argument("--copies", type=int, default=60, help="samples searched for copies")
    parser.add_argument("--captions", type=int, default=24, help="captions scored for variety")
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/images/embedded_samples.png")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(SEED)
    pipeline, drawings = load_pipeline(arguments.model), load_drawings(STYLES)
    draw_picture(pipeline, arguments.picture)
    judge = load_judge(arguments.judges / "all.safetensors")
    results: dict[str, Any] = {"processor": processor(), "cores": os.cpu_count(), "torch": torch.__version__}
    results |= {"evaluations": STEPS, "guidance_scale": GUIDANCE, "seed": SEED}
    for key, measure in (
        ("vendi", lambda: score_variety(pipeline, drawings, judge, arguments.captions)),
        ("copy_rate", lambda: score_copies(pipeline, drawings, judge, arguments.copies)),
        ("name_recall_at_10", lambda: score_names(pipeline, drawings, arguments.judges, arguments.every)),
        ("images_per_second", lambda: measure_speed(arguments.model)),
    ):
        began = time.monotonic()
        results[key] = measure()
        print(f"{key} ({time.monotonic() - began:.0f} s): {json.dumps(results[key], indent=2)}", flush=True)
        arguments.results.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
