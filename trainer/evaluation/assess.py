"""`streamrep eval`: one encoder on one set, by the kinds that are asked for.

ImageSet ─Features→ [N, F] ─ kinds: retrieval, knn, linear, fewshot, zeroshot ─→ Results ─→ files
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from protocol.errors import UserError
from trainer.evaluation import linear
from trainer.evaluation.accuracy import measure_accuracy
from trainer.evaluation.features import Features
from trainer.evaluation.few_shot import WAYS, able_classes, draw_episodes, few_shot
from trainer.evaluation.image_set import ImageSet, Split
from trainer.evaluation.image_text import PHOTOGRAPH, image_text_recall, zero_shot_classes
from trainer.evaluation.measure import ChosenBy, measure
from trainer.evaluation.result import Found, Result, known_found, of_measure, save_found
from trainer.evaluation.result_page import write_page
from trainer.evaluation.retrieval import knn_predict, recall_at_k
from trainer.evaluation.subject import Subject

Kind = Literal["retrieval", "knn", "linear", "fewshot", "zeroshot"]
KINDS: tuple[Kind, ...] = ("retrieval", "knn", "linear", "fewshot", "zeroshot")
LARGE = 100_000
"""Train pictures from which `linear` is the probe by SGD: its 90 passes with random crops suit ImageNet."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the kinds work."""

    variants: Sequence[linear.Variant] = ("clean",)
    solver: Literal["auto", "sgd", "lbfgs"] = "auto"
    chosen_by: ChosenBy = "accuracy"
    """For l2 of the logistic regression."""
    epochs: int
    probe_batch: int
    k: int
    temperature: float
    episodes: int
    seed: int
    templates: Sequence[str] = ()


class Assessment:
    """Judges one encoder on one set."""

    def __init__(self, data: ImageSet, features: Features, device: torch.device, settings: Settings) -> None:
        self._data = data
        self._features = features
        self._subject: Subject = features.subject
        self._device = device
        self._settings = settings

    def run(self, kinds: Sequence[Kind], folder: Path) -> Found:
        """Judges by each kind and writes results.json and results.html after each, in `folder`.

        What the same encoder and pictures were judged by before stays. Raises UserError and
        StopRequestedError.
        """
        data = self._data
        splits = [split for split in (data.train, data.validation, data.test) if split]
        empty = Found(
            encoder=str(self._subject.folder),
            encoder_digest=self._subject.digest,
            data=data.name,
            data_digest=":".join(split.digest + split.labels_digest for split in splits),
            pictures={split.name: len(split) for split in splits},
            classes=len(data.classes),
            results=[],
        )
        folder.mkdir(parents=True, exist_ok=True)
        found = known_found(folder / "results.json", empty)
        judge: dict[Kind, Callable[[], list[Result]]] = {
            "retrieval": self._retrieval,
            "knn": self._knn,
            "linear": self._linear,
            "fewshot": self._few_shot,
            "zeroshot": self._zero_shot,
        }
        for kind in kinds:
            found = found.with_results(judge[kind]())
            save_found(folder / "results.json", found)
            write_page(folder / "results.html", found)
        return found

    def possible(self) -> list[Kind]:
        """The kinds that this encoder and this set allow."""
        train, test = self._data.train, self._data.test
        texts: list[Kind] = ["zeroshot"] if self._subject.text else []
        if self._data.is_multi_label:
            several: list[Kind] = ["retrieval"] if self._has_texts else []
            return several + (["linear"] if train else []) + texts
        kinds: list[Kind] = ["retrieval"] if train or self._has_texts else []
        kinds += ["knn", "linear"] if train else []
        kinds += ["fewshot"] if train and len(able_classes(train.labels_N, test.labels_N)) >= WAYS else []
        return kinds + texts

    @property
    def _has_texts(self) -> bool:
        return self._subject.text is not None and any(self._data.test.captions)

    def _of(self, split: Split) -> torch.Tensor:
        return self._features.of(split, "small").to(self._device)

    def _train(self) -> Split:
        return linear.train_of(self._data)

    def _retrieval(self) -> list[Result]:
        data, k = self._data, self._settings.k
        scores = {}
        test_NF = self._of(data.test)
        if not self._has_texts:
            self._need_one_class("--kind retrieval")
        if data.train and not data.is_multi_label:
            train, test = data.train, data.test
            labels = [
                split.labels_N if split.instances_N is None else split.instances_N for split in (test, train)
            ]
            recall = recall_at_k(
                test_NF, labels[0].to(self._device), self._of(train), labels[1].to(self._device), k
            )
            scores[f"recall_at_{k}"] = recall.share
        if self._has_texts:
            images_ND = self._subject.images(test_NF)
            scores |= image_text_recall(images_ND, data.test.captions, self._subject.texts)
        if not scores:
            self._train()
        return [Result(kind="retrieval", scores=scores)]

    def _need_one_class(self, what: str) -> None:
        if self._data.is_multi_label:
            raise UserError(
                "pictures have several classes",
                expected="one class a picture",
                got="lists of classes",
                where=f"{what} on {self._data.name}",
                mend="judge such a set by --kind linear, or by zeroshot where there is a text tower",
            )

    def _knn(self) -> list[Result]:
        self._need_one_class("--kind knn")
        train, test = self._train(), self._data.test
        k, temperature = self._settings.k, self._settings.temperature
        predicted_N = knn_predict(
            self._of(test), self._of(train), train.labels_N.to(self._device), k, temperature
        )
        accuracy = measure_accuracy(predicted_N, test.labels_N, self._data.classes, test.groups)
        return [of_measure("knn", accuracy, settings={"k": k, "temperature": temperature})]

    def _linear(self) -> list[Result]:
        settings, train = self._settings, self._train()
        large = len(train) >= LARGE and not self._data.is_multi_label
        by_sgd = settings.solver == "sgd" or (settings.solver == "auto" and large)
        if by_sgd:
            self._need_one_class("--solver sgd")
        else:
            return linear.logistic(
                self._data, self._features, self._device, settings.seed, settings.chosen_by
            )
        return [
            result
            for variant in settings.variants
            for result in linear.probe(
                self._data,
                self._features,
                self._device,
                variant=variant,
                seed=settings.seed,
                epochs=settings.epochs,
                batch_images=settings.probe_batch,
            )
        ]

    def _few_shot(self) -> list[Result]:
        self._need_one_class("--kind fewshot")
        train, test, settings = self._train(), self._data.test, self._settings
        episodes = draw_episodes(
            train.labels_N, test.labels_N, seed=settings.seed, episodes=settings.episodes
        )
        found = few_shot(self._of(train), self._of(test), episodes)
        told = {"interval": found.interval, "episodes": found.episodes, "ways": 5, "shots": 5}
        return [Result(kind="fewshot", scores={"accuracy": found.accuracy}, settings=told)]

    def _zero_shot(self) -> list[Result]:
        data, test = self._data, self._data.test
        templates = self._settings.templates or data.templates or PHOTOGRAPH
        for template in templates:
            if "{}" not in template:
                raise UserError(
                    "a template has no place for the class",
                    expected="{} in each line",
                    got=template,
                    where="--templates",
                    mend="mend that line",
                )
        classes_CD = zero_shot_classes(data.classes, templates, self._subject.texts)
        scores_NC = self._subject.images(self._of(test)) @ classes_CD.T
        measured = measure(scores_NC, test, data.classes)
        return [of_measure("zeroshot", measured, settings={"templates": len(templates)})]
