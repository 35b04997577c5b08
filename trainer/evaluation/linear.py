"""The kind `linear`: on small sets logistic regression, on large ones StableRep's probe by SGD.

Two variants of the latter: `paper` chooses head and epoch on the test split, as published; `clean` on the
set's own validation split, or on a tenth of train that is held out, and touches the test split only to
report. The logistic regression never chooses on test, so it is `clean` as it is. Where pictures have several
classes it is one regression for each class and a common l2, chosen and judged by average precision, as in
SynCLR's main_downstream_linear.py for VOC2007.
"""

import sys
from collections.abc import Iterator
from typing import Literal

import torch
import xxhash
from torch import Tensor

from protocol.errors import UserError
from trainer.errors import StopRequestedError
from trainer.evaluation.accuracy import measure_accuracy
from trainer.evaluation.features import Features
from trainer.evaluation.image_set import ImageSet, Split
from trainer.evaluation.linear_probe import BASE_LRS, NORMS, Asked, LinearProbe, run_probe
from trainer.evaluation.loading import random_crop
from trainer.evaluation.logistic import L2_SWEEP, choose_l2, fit_logistic, standardise
from trainer.evaluation.measure import ChosenBy, choosing_score, measure
from trainer.evaluation.result import Result, of_measure
from trainer.progress import Progress

Variant = Literal["paper", "clean"]
HELD_OUT = 10
"""One of so many pictures of train."""


def hold_out(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of train that stay, and those held out: a tenth, at least one, drawn by the seed."""
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held = max(1, count // HELD_OUT)
    return rows[held:].sort().values, rows[:held].sort().values


def logistic(
    data: ImageSet, features: Features, device: torch.device, seed: int, chosen_by: ChosenBy
) -> list[Result]:
    """L2 chosen on validation among 45, then fitted again on train and validation together. By average
    precision where pictures have several classes, whatever `chosen_by` is."""
    train = train_of(data)
    train_NF, train_targets = features.of(train, "small").to(device), train.targets.to(device)
    if data.validation:
        fit = (train_NF, train_targets)
        asked = (features.of(data.validation, "small").to(device), data.validation.targets.to(device))
        whole = (torch.cat([fit[0], asked[0]]), torch.cat([fit[1], asked[1]]))
    else:
        kept, held = hold_out(len(train), seed)
        fit, asked = (train_NF[kept], train_targets[kept]), (train_NF[held], train_targets[held])
        whole = (train_NF, train_targets)
    progress = Progress(len(L2_SWEEP) + 1, sys.stderr, unit="logistic regression: fit")

    def score(scores_NC: Tensor) -> float:
        return choosing_score(scores_NC, asked[1], chosen_by)

    def tried(count: int) -> None:
        progress.update({"step": count})
        if features.stop.is_set():
            raise StopRequestedError("asked to stop while evaluating")

    classes = len(data.classes)
    chosen = choose_l2(fit, asked, classes, score=score, tried=tried)
    test_NF = features.of(data.test, "small").to(device)
    (whole_NF, targets), (test_NF, _) = standardise(whole, (test_NF, data.test.targets))
    linear = fit_logistic(whole_NF[None], targets[None], classes, chosen.l2)
    progress.update({"step": len(L2_SWEEP) + 1})
    progress.close()
    return [
        of_measure(
            "linear",
            measure(linear.scores(test_NF[None])[0], data.test, data.classes),
            variant="clean",
            chosen_on="validation" if data.validation else "a tenth of train",
            settings={
                "solver": "lbfgs",
                "l2": chosen.l2,
                "chosen_by": "map_11_point" if data.is_multi_label else chosen_by,
            },
            curves={"score": [(float(torch.tensor(l2).log10()), value) for l2, value in chosen.sweep]},
            curve_of="log10 l2",
        )
    ]


def probe(
    data: ImageSet,
    features: Features,
    device: torch.device,
    *,
    variant: Variant,
    seed: int,
    epochs: int,
    batch_images: int,
) -> list[Result]:
    """StableRep's protocol; a row without batch norm and one with it."""
    train, test = train_of(data), data.test
    asked = Asked(features.of(test, "large").to(device), test.labels_N.to(device))
    rows, chosen_on, where = torch.arange(len(train)), asked, "test"
    if variant == "clean" and data.validation:
        where = "validation"
        chosen_on = Asked(
            features.of(data.validation, "large").to(device), data.validation.labels_N.to(device)
        )
    elif variant == "clean":
        where = "a tenth of train"
        rows, held = hold_out(len(train), seed)
        held_NF = features.of(train, "large")[held]
        chosen_on = Asked(held_NF.to(device), train.labels_N[held].to(device))
    batch_images = min(batch_images, len(rows))
    steps = epochs * (len(rows) // batch_images)
    subject = features.subject
    labels = train.labels_N.tolist(), asked.labels_N.tolist(), chosen_on.labels_N.tolist(), len(data.classes)
    told = f"{subject.digest}:{train.digest}:{test.digest}:{where}:{seed}:{epochs}:{batch_images}:{labels}"
    features.cache.mkdir(parents=True, exist_ok=True)
    state = features.cache / f"probe-{xxhash.xxh3_64_hexdigest(told.encode())}.safetensors"
    heads = LinearProbe(
        subject.dim, len(data.classes), batch_images=batch_images, total_steps=steps, seed=seed
    ).to(device)
    progress = Progress(steps, sys.stderr, unit=f"linear probe, {variant}: step")

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(f"{seed}:{epoch}".encode()) >> 1)
        order = rows[torch.randperm(len(rows), generator=generator)]
        whole = order[: len(order) // batch_images * batch_images].tolist()
        crop = random_crop(subject.image_size, seed, epoch)
        step = epoch * (len(whole) // batch_images)
        for chunk, images_NHWC in features.batches(train, whole, crop, batch_images):
            parts = [subject.encode(part) for part in torch.split(images_NHWC, features.batch_images)]
            yield torch.cat(parts), train.labels_N[list(chunk)].to(device)
            step += 1
            progress.update({"step": step})

    run_probe(heads, batches, chosen_on, asked, epochs=epochs, state=state)
    progress.close()
    return [_row(heads, norm, data, variant, where) for norm in NORMS]


def _row(heads: LinearProbe, norm: str, data: ImageSet, variant: Variant, where: str) -> Result:
    best = heads.best[norm]
    accuracy = measure_accuracy(best.predicted_N, data.test.labels_N, data.classes, data.test.groups)
    keys = {f"{norm}-{base_lr:g}".replace(".", "_"): f"{base_lr:g}" for base_lr in BASE_LRS}
    shown = {key: label for key, label in keys.items() if label in ("0.001", "0.01", "0.1", "0.5")}
    return of_measure(
        "linear",
        accuracy,
        variant=variant,
        chosen_on=where,
        settings={"solver": "sgd", "norm": norm, "base_lr": best.base_lr, "epoch": best.epoch},
        curves={
            f"base lr {label}": [(float(row["epoch"]), row[key]) for row in heads.curve]
            for key, label in shown.items()
        },
        curve_of="epoch",
    )


def train_of(data: ImageSet) -> Split:
    """Raises UserError where the set has none."""
    if data.train is None:
        raise UserError(
            "no pictures to train on",
            expected="a split called train",
            got=f"{len(data.test)} of test alone",
            where=data.name,
            mend="add one, or ask for --kind zeroshot alone",
        )
    return data.train
