"""The arms of `bench ablation`: for each of the paper's ablations, what its runs differ in.

An arm is a trial (which images, how many, under which run-file settings) with a label. Trials that occur in
several ablations are equal, and run once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from trainer.objectives.needs import ObjectiveName

VIEWS = 3
"""m, where an arm does not say otherwise; the superset is drawn in groups of as many."""
POOL = 10
"""l, likewise: the paper's."""
POOLS = (1, 2, 4, 10, 40)
POSITIVES = (2, 3, 4, 6, 8)
SCALES = (1.0, 2.0, 4.0, 8.0)
"""The first is no guidance: what the embedded model was trained for, and the superset is drawn with."""
USES = (1, 2, 4, 8)
BATCH_IMAGES_STEP = 24
"""Every m of POSITIVES divides it, so that batches of a multiple of it are whole groups in every arm."""

# On 64 pixels: 64 patches and CLS. Small: a run takes about twice as long as with the convolutions.
VIT = (
    "--model.encoder",
    '{"model_type": "vit", "patch_size": 8, "hidden_size": 96, "num_hidden_layers": 3,'
    ' "num_attention_heads": 3, "intermediate_size": 384}',
    "--train.lr",
    "1e-3",
)
TEXT = (
    "--model.text",
    '{"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512,'
    ' "projection_dim": 128}',
)
MAE = (
    "--model.mae",
    '{"mask_ratio": 0.75, "norm_pix_loss": true, "decoder_hidden_size": 64, "decoder_num_hidden_layers": 2,'
    ' "decoder_num_attention_heads": 4, "decoder_intermediate_size": 256}',
)
# A caption's class is its drawing's Unicode subcategory, such as `face-smiling`. The key only names the table
# that tells it: the learner is handed the classes.
CLASSES = ("--captions.classes", "trainer/embedded/drawings.csv")
STRENGTHS: Mapping[str, tuple[str, ...]] = {
    "none": (
        *("--augment.crop_scale", "[1.0, 1.0]", "--augment.flip", "0", "--augment.jitter", "0"),
        *("--augment.grayscale", "0", "--augment.blur", "0"),
    ),
    "weak": ("--augment.strength", "weak"),
    "default": (),
    "strong": (
        *("--augment.crop_scale", "[0.08, 1.0]", "--augment.flip", "0.5", "--augment.jitter", "0.8"),
        *("--augment.grayscale", "0.2", "--augment.blur", "0.5"),
    ),
}
"""weak is the official code's `--weak_aug`, strong its list, default the embedded run's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What one run is, beside its seed and the run file that all share."""

    source: Literal["pool", "fresh", "replay", "drawings", "untrained"]
    images: int
    """Of a caption, that the encoder sees over the run, each augmentation for itself."""
    pool_images: int = 0
    """l, of a pool."""
    reuse: int = 1
    """Visits that a replayed group serves, one after another."""
    views: int = VIEWS
    objective: ObjectiveName = "stablerep"
    guidance: tuple[float, ...] = SCALES[:1]
    """Scales that the images were drawn with."""
    words: tuple[str, ...] = ()
    """Overrides of the run file."""

    @property
    def images_drawn(self) -> int:
        """Images of a caption that a generator has to draw for the run."""
        if self.source in ("fresh", "replay"):
            return -(-self.images // self.views // self.reuse) * self.views
        return self.pool_images


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Arms that are compared with each other: one table."""

    title: str
    baseline: str
    """The label of the arm from which the others' differences are taken."""
    arms: Mapping[str, Trial]
    """By label, which no other trial of the ablation has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """One question."""

    question: str
    about: str
    """What the arms share and differ in."""
    parts: tuple[Part, ...]

    @property
    def trials(self) -> dict[str, Trial]:
        """All arms by label."""
        return {label: trial for part in self.parts for label, trial in part.arms.items()}


def ablations(visits: int) -> dict[str, Ablation]:
    """By name; an arm trains on `visits` x VIEWS images a caption where it does not say otherwise.
    `visits` is a multiple of the most uses."""
    images = visits * VIEWS
    return {
        "l": _pools(images),
        "m": _positives(images),
        "guidance": _guidance(images),
        "objective": _objectives(images),
        "reuse": _reuse(images),
        "augmentation": _augmentation(images),
    }


def _pool(images: int) -> Trial:
    return Trial(source="pool", images=images, pool_images=POOL)


def _beside(images: int, name: str = "", words: tuple[str, ...] = ()) -> dict[str, Trial]:
    """What stands beside the arms of every table."""
    return {
        f"{name}real drawings": Trial(source="drawings", images=images, words=words),
        f"{name}untrained": Trial(source="untrained", images=0, words=words),
    }


def _pools(images: int) -> Ablation:
    pool = _pool(images)
    arms = {f"l = {count}": replace(pool, pool_images=count) for count in POOLS}
    return Ablation(
        question="How many images a caption does a pool need?",
        about="Pools of the first l images of each caption, all from one superset, at equal images trained.",
        parts=(Part(title="", baseline=f"l = {POOL}", arms=arms | _beside(images)),),
    )


def _positives(images: int) -> Ablation:
    pool = _pool(images)
    arms = {"m = 1 (simclr)": _simclr(images)}
    arms |= {f"m = {views}": replace(pool, views=views) for views in POSITIVES}
    return Ablation(
        question="How many images of a caption should a batch hold?",
        about=f"Batches of as many images from one pool of l = {POOL}: m images of each of fewer captions."
        " StableRep's loss has no positives at m = 1, so SimCLR's stands there: two augmentations of each"
        " image, and a batch counts both.",
        parts=(Part(title="", baseline=f"m = {VIEWS}", arms=arms | _beside(images)),),
    )


def _simclr(images: int, words: tuple[str, ...] = ()) -> Trial:
    return replace(_pool(images), objective="simclr", views=1, words=words)


def _guidance(images: int) -> Ablation:
    pool = _pool(images)
    arms = {f"w = {scale:g}": replace(pool, guidance=(scale,)) for scale in SCALES}
    mixed = ", ".join(f"{scale:g}" for scale in SCALES)
    arms[f"w of {mixed}"] = replace(pool, guidance=SCALES)
    return Ablation(
        question="At which guidance scale should images be drawn?",
        about=f"A pool of l = {POOL} for each scale, from the same noise; each group of the last has one of"
        " these. The embedded model is made to be used without guidance, w = 1; the paper's is not.",
        parts=(Part(title="", baseline=f"w = {SCALES[0]:g}", arms=arms | _beside(images)),),
    )


def _objectives(images: int) -> Ablation:
    def part(title: str, name: str, words: tuple[str, ...]) -> Part:
        pool = _pool(images)
        arms = {
            f"{name}stablerep": replace(pool, words=words),
            f"{name}stablerep+": replace(pool, objective="stablerep+", words=(*words, *TEXT)),
            f"{name}supcon": replace(pool, objective="supcon", words=(*words, *CLASSES)),
            f"{name}simclr": _simclr(images, words),
            f"{name}clip": replace(pool, objective="clip", views=1, words=(*words, *TEXT)),
        }
        if words:
            arms[f"{name}mae"] = replace(pool, objective="mae", words=(*words, *MAE))
        return Part(title=title, baseline=f"{name}stablerep", arms=arms | _beside(images, name, words))

    return Ablation(
        question="Which objective?",
        about=f"The same encoder on the same pool of l = {POOL}, at as many images that the encoder sees;"
        " SimCLR sees each twice. A masked autoencoder needs a ViT, so the others are there with one, too."
        " The classes of supcon are the drawings' Unicode subcategories, which captions do not tell.",
        parts=(part("The embedded run's ResNet", "", ()), part("A small ViT", "vit, ", VIT)),
    )


def _reuse(images: int) -> Ablation:
    def arms(drawn: dict[int, int]) -> dict[str, Trial]:
        return {
            f"{count} images x {uses}": Trial(
                source="fresh" if uses == 1 else "replay", images=count * uses, reuse=uses
            )
            for uses, count in drawn.items()
        }

    trained = {uses: images // uses for uses in USES}
    fewest = trained[USES[-1]]
    return Ablation(
        question="How often may a group be trained on?",
        about="A stream whose groups serve 1 to 8 visits of their caption, one after another: at equal images"
        " trained, where more uses mean fewer images, and at equal images drawn, where they mean a longer"
        " run.",
        parts=(
            Part(
                title="At equal images trained",
                baseline=f"{images} images x 1",
                arms=arms(trained) | _beside(images),
            ),
            Part(
                title="At equal images drawn",
                baseline=f"{fewest} images x 1",
                arms=arms(dict.fromkeys(USES, fewest)) | _beside(images),
            ),
        ),
    )


def _augmentation(images: int) -> Ablation:
    def part(name: str, title: str, trial: Trial) -> Part:
        arms = {f"{name}, {key}": replace(trial, words=words) for key, words in STRENGTHS.items()}
        return Part(title=title, baseline=f"{name}, default", arms=arms | _beside(images))

    return Ablation(
        question="How strong should augmentation be, on a pool and on a fresh stream?",
        about="No augmentation, the official code's weak one (a crop of half the area or more), the embedded"
        " run's, and the official code's list.",
        parts=(
            part("pool", f"From a pool of l = {POOL}", _pool(images)),
            part("fresh", "From a fresh stream", Trial(source="fresh", images=images)),
        ),
    )
