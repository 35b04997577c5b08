"""Whole evaluations of a tiny encoder with a text tower, on pictures of plain colours."""

import dataclasses
import json
import math
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from protocol.errors import UserError
from trainer.augment import normalise
from trainer.config import TrainerConfig
from trainer.encoder import build_encoder
from trainer.errors import StopRequestedError
from trainer.evaluation.assess import KINDS, Assessment, Settings
from trainer.evaluation.average_precision import mean_average_precision
from trainer.evaluation.features import Features
from trainer.evaluation.image_set import ImageSet, Split, SplitName
from trainer.evaluation.logistic import fit_logistic, standardise
from trainer.evaluation.subject import Subject
from trainer.learner import Learner
from trainer.objectives.build import build_objective
from trainer.objectives.image_text import ImageText

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}
ENCODER = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
CONFIG = msgspec.convert(
    {
        "generation": {"views": 1},
        "model": {
            "encoder": ENCODER,
            "text": {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "projection_dim": 8,
            },
        },
        "train": {"objective": "clip"},
    },
    TrainerConfig,
)


def split(name: SplitName, count: int) -> Split:
    def read(index: int) -> np.ndarray:
        noise = np.random.default_rng([len(name), index]).integers(-40, 40, (20, 24, 3))
        return (np.array(list(COLOURS.values())[index % 5]) + noise).clip(0, 255).astype(np.uint8)

    return Split(
        name=name,
        read=read,
        labels_N=torch.arange(count) % 5,
        captions=[(f"{list(COLOURS)[i % 5]} {i // 5}",) for i in range(count)],
        groups=[f"group {i % 2}" for i in range(count)],
        digest=f"{name}{count}",
    )


DATA = ImageSet(
    name="colours",
    classes=list(COLOURS),
    train=split("train", 40),
    validation=None,
    test=split("test", 25),
)
SETTINGS = Settings(epochs=2, probe_batch=16, k=3, temperature=0.07, episodes=20, seed=0)


@pytest.fixture(name="saved", scope="module")
def saved_encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageText]:
    """An encoder's folder as a run leaves it, and the objective it is of."""
    folder = tmp_path_factory.mktemp("saved") / "encoder"
    encoder = build_encoder(ENCODER, 16, 0)
    objective = build_objective(CONFIG, encoder)
    assert isinstance(objective, ImageText)
    encoder.save(folder)
    objective.save(folder, objective.exported)
    return folder, objective


def subject(folder: Path) -> Subject:
    return Subject(folder, torch.device("cpu"), torch.float32, 16)


def assessment(folder: Path, cache: Path, data: ImageSet = DATA, **changes: Any) -> Assessment:
    features = Features(subject(folder), cache, batch_images=16, workers=2, stop=threading.Event())
    settings = {name: getattr(SETTINGS, name) for name in Settings.__dataclass_fields__} | changes
    return Assessment(data, features, torch.device("cpu"), Settings(**settings))


def test_a_saved_text_tower_gives_what_the_trained_one_gave(saved: tuple[Path, ImageText]) -> None:
    """Vectors of texts and images, from the folder alone, to 1e-5."""
    folder, objective = saved
    loaded = subject(folder)
    captions = ["a red drawing", "a longer caption of a green one"]
    with torch.no_grad():
        texts_TD = objective.parts["text"].eval()(captions)
        features_NF = torch.randn(3, loaded.dim)
        images_ND = objective.parts["image_text"](features_NF)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(loaded.texts(captions), unit(texts_TD, dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(loaded.images(features_NF), unit(images_ND, dim=1), atol=1e-5, rtol=0)


def test_every_kind_writes_its_row(saved: tuple[Path, ImageText], tmp_path: Path) -> None:
    """Results by kind in results.json, a page beside it; a later call keeps the rows of other kinds."""
    folder, _ = saved
    judged = assessment(folder, tmp_path / "cache")
    assert judged.possible() == list(KINDS)
    found = judged.run(KINDS, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    rows = {row["kind"]: row for row in told["results"]}
    assert set(rows) == set(KINDS)
    assert rows["linear"]["chosen_on"] == "a tenth of train"
    # Colours that differ so much are told apart by any features.
    assert rows["linear"]["scores"]["accuracy"] == 1.0
    assert rows["knn"]["scores"]["worst_class"] == 1.0
    assert set(rows["knn"]["by_group"]) == {"group 0", "group 1"}
    assert rows["fewshot"]["settings"]["episodes"] == 20
    assert 0 <= rows["zeroshot"]["scores"]["accuracy"] <= 1
    assert {"recall_at_3", "text_to_image_recall_at_1"} <= set(rows["retrieval"]["scores"])
    assert "<svg" in (tmp_path / "out" / "results.html").read_text("utf-8")
    again = assessment(folder, tmp_path / "cache").run(["knn"], tmp_path / "out")
    assert {row.kind for row in again.results} == set(KINDS)
    assert again.encoder_digest == found.encoder_digest


def test_zero_shot_and_knn_against_loops(saved: tuple[Path, ImageText], tmp_path: Path) -> None:
    """From the encoder's own features, picture by picture."""
    folder, objective = saved
    found = assessment(folder, tmp_path / "cache", templates=["a {}.", "{}"]).run(["zeroshot"], tmp_path)
    encoder = build_encoder({"folder": str(folder)}, 16, 0).eval()
    tower, head = objective.parts["text"].eval(), objective.parts["image_text"]
    right = 0
    with torch.no_grad():
        classes = []
        for name in COLOURS:
            vectors = [tower([text])[0] for text in (f"a {name}.", name)]
            classes.append(sum(v / v.norm() for v in vectors))
        for index in range(25):
            # 20 x 24 pixels: the shorter side to 16 makes 16 x 19, whose middle begins at column 2.
            small = Image.fromarray(DATA.test.read(index)).resize((19, 16), Image.Resampling.BICUBIC)
            cut = torch.from_numpy(np.asarray(small)[:, 2:18].copy())[None]
            image = head(encoder(normalise(cut)))[0]
            scores = [float(image @ vector / vector.norm()) for vector in classes]
            right += scores.index(max(scores)) == index % 5
    assert found.results[0].scores["accuracy"] == pytest.approx(right / 25)


def test_features_are_computed_once_for_an_encoder_and_its_pictures(
    saved: tuple[Path, ImageText], tmp_path: Path
) -> None:
    """A second evaluation encodes nothing; another picture size, or other pictures, are other features."""
    folder, _ = saved
    encoded: list[int] = []

    def counting(of: Subject) -> Features:
        plain = of.encode

        def encode(images_NHWC: Tensor) -> Tensor:
            encoded.append(len(images_NHWC))
            return plain(images_NHWC)

        of.encode = encode  # type: ignore[method-assign]  # to count
        return Features(of, tmp_path, batch_images=16, workers=1, stop=threading.Event())

    first = counting(subject(folder)).of(DATA.test, "small")
    assert sum(encoded) == 25
    torch.testing.assert_close(counting(subject(folder)).of(DATA.test, "small"), first, rtol=0, atol=0)
    assert sum(encoded) == 25
    counting(Subject(folder, torch.device("cpu"), torch.float32, 24)).of(DATA.test, "small")
    counting(subject(folder)).of(DATA.test, "large")
    counting(subject(folder)).of(split("test", 10), "small")
    assert sum(encoded) == 25 + 25 + 25 + 10


def test_l2_is_chosen_by_what_was_asked(saved: tuple[Path, ImageText], tmp_path: Path) -> None:
    """A strong l2 always says the frequent class, which is worth more by accuracy than by classes."""
    folder, _ = saved
    rare_N = torch.rand(40, generator=torch.Generator().manual_seed(0)) < 0.15
    parts = {
        name: dataclasses.replace(split(name, 40), labels_N=rare_N.roll(shift).long())
        for shift, name in enumerate(("train", "validation", "test"))
    }
    data = ImageSet(name="rare", classes=["often", "rare"], **parts)
    frequent = 1 - rare_N.double().mean().item()
    for chosen_by, strongest in (("accuracy", frequent), ("mean_class", 0.5)):
        judged = assessment(folder, tmp_path / "cache", data, chosen_by=chosen_by)
        [row] = judged.run(["linear"], tmp_path / chosen_by).results
        assert row.settings["chosen_by"] == chosen_by
        assert row.curves["score"][-1][1] == pytest.approx(strongest)
        _, best_l2 = max((score, log_l2) for log_l2, score in row.curves["score"])
        assert math.log10(row.settings["l2"]) == pytest.approx(best_l2, abs=1e-5)


@pytest.mark.parametrize("variant", ["paper", "clean"])
def test_the_probe_says_what_it_chose_on(saved: tuple[Path, ImageText], tmp_path: Path, variant: str) -> None:
    """A row for each norm; colours are learned in a few epochs by the best head."""
    folder, _ = saved
    judged = assessment(folder, tmp_path / "cache", solver="sgd", variants=[variant], epochs=6, probe_batch=8)
    rows = judged.run(["linear"], tmp_path).results
    assert [(row.variant, row.settings["norm"]) for row in rows] == [
        (variant, "plain"),
        (variant, "batch_norm"),
    ]
    assert {row.chosen_on for row in rows} == {"test" if variant == "paper" else "a tenth of train"}
    assert max(row.scores["accuracy"] for row in rows) > 0.5


def test_a_variant_leaves_the_rows_of_the_other(saved: tuple[Path, ImageText], tmp_path: Path) -> None:
    """Judged at different times, they stand beside each other; a changed label is another probe."""
    folder, _ = saved
    changes = {"solver": "sgd", "epochs": 1, "probe_batch": 8}
    for variant in ("clean", "paper", "clean"):
        judged = assessment(folder, tmp_path / "cache", variants=[variant], **changes)
        found = judged.run(["linear"], tmp_path)
    assert sorted(row.variant or "" for row in found.results) == ["clean"] * 2 + ["paper"] * 2
    states = set((tmp_path / "cache").glob("probe-*"))
    assert len(states) == 2
    assert DATA.train is not None
    other = dataclasses.replace(DATA.train, labels_N=4 - DATA.train.labels_N)
    relabelled = dataclasses.replace(DATA, train=other)
    assessment(folder, tmp_path / "cache", relabelled, variants=["paper"], **changes).run(
        ["linear"], tmp_path
    )
    assert len(set((tmp_path / "cache").glob("probe-*")) - states) == 1


def test_a_stop_is_heard_between_fits(saved: tuple[Path, ImageText], tmp_path: Path) -> None:
    """Nothing is written of a kind that was not finished."""
    folder, _ = saved
    stop = threading.Event()
    features = Features(subject(folder), tmp_path / "cache", batch_images=16, workers=2, stop=stop)
    for some in (DATA.train, DATA.test):
        assert some is not None
        features.of(some, "small")
    stop.set()
    with pytest.raises(StopRequestedError):
        Assessment(DATA, features, torch.device("cpu"), SETTINGS).run(["linear"], tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_what_an_encoder_or_a_set_lacks_is_refused(saved: tuple[Path, ImageText], tmp_path: Path) -> None:
    """Zero-shot without a text tower, training without train, and a template without a place."""
    folder, _ = saved
    bare = tmp_path / "bare"
    build_encoder(ENCODER, 16, 0).save(bare)
    judged = assessment(bare, tmp_path / "cache")
    assert judged.possible() == ["retrieval", "knn", "linear", "fewshot"]
    with pytest.raises(UserError, match="no text tower"):
        judged.run(["zeroshot"], tmp_path)
    test_only = without_train(DATA)
    judged = assessment(folder, tmp_path / "cache", test_only)
    assert judged.possible() == ["retrieval", "zeroshot"]
    with pytest.raises(UserError, match="no pictures to train on"):
        judged.run(["knn"], tmp_path)
    with pytest.raises(UserError, match="no place for the class"):
        assessment(folder, tmp_path / "cache", templates=["a photo"]).run(["zeroshot"], tmp_path)


def several(name: SplitName, count: int) -> Split:
    """Each picture's colour, and whether it is a light one, which more than one colour is."""
    plain = split(name, count)
    light = torch.tensor([False, True, False, False, True])
    colour_N5 = torch.nn.functional.one_hot(plain.labels_N, 5).bool()
    classes_NC = torch.cat([colour_N5, light[plain.labels_N][:, None]], dim=1)
    return dataclasses.replace(plain, labels_N=torch.full((count,), -1), classes_NC=classes_NC)


SEVERAL = ImageSet(
    name="several",
    classes=[*COLOURS, "light"],
    train=several("train", 40),
    validation=several("validation", 20),
    test=several("test", 25),
)


def test_pictures_with_several_classes_are_ranked(saved: tuple[Path, ImageText], tmp_path: Path) -> None:
    """By one regression a class, chosen on validation; colours apart are ranked without fault."""
    folder, _ = saved
    judged = assessment(folder, tmp_path / "cache", SEVERAL)
    assert judged.possible() == ["retrieval", "linear", "zeroshot"]
    rows = {row.kind: row for row in judged.run(judged.possible(), tmp_path / "out").results}
    assert rows["linear"].scores == {
        name: pytest.approx(1.0) for name in ("map_11_point", "map_area", "worst_class", "worst_group")
    }
    assert rows["linear"].chosen_on == "validation"
    assert set(rows["linear"].by_class) == {*COLOURS, "light"}
    assert 0 < rows["zeroshot"].scores["map_11_point"] < 1
    assert "text_to_image_recall_at_1" in rows["retrieval"].scores
    assert "recall_at_3" not in rows["retrieval"].scores
    page = (tmp_path / "out" / "results.html").read_text("utf-8")
    assert "map 11 point" in page
    assert "average precision" in page


def test_scores_are_those_of_a_regression_fitted_by_hand(
    saved: tuple[Path, ImageText], tmp_path: Path
) -> None:
    """With labels that say nothing of the pictures, so that no ranking is perfect."""
    folder, _ = saved
    generator = torch.Generator().manual_seed(0)
    parts = {}
    for some in (SEVERAL.train, SEVERAL.validation, SEVERAL.test):
        assert some is not None
        drawn_NC = torch.rand(len(some), 6, generator=generator) < 0.4
        parts[some.name] = dataclasses.replace(some, classes_NC=drawn_NC)
    data = dataclasses.replace(SEVERAL, **parts)
    judged = assessment(folder, tmp_path / "cache", data)
    [row] = judged.run(["linear"], tmp_path / "out").results
    features = Features(
        subject(folder), tmp_path / "cache", batch_images=16, workers=1, stop=threading.Event()
    )
    whole = [parts["train"], parts["validation"]]
    fitted_NF = torch.cat([features.of(some, "small") for some in whole])
    targets = torch.cat([some.targets for some in whole])
    asked = (features.of(data.test, "small"), data.test.targets)
    (fitted_NF, _), (asked_NF, _) = standardise((fitted_NF, targets), asked)
    linear = fit_logistic(fitted_NF[None], targets[None], 6, row.settings["l2"])
    scores = linear.scores(asked_NF[None])[0]
    assert data.test.classes_NC is not None
    expected = mean_average_precision(scores, data.test.classes_NC)
    assert row.scores["map_11_point"] == pytest.approx(expected.eleven_point)
    assert row.scores["map_area"] == pytest.approx(expected.area)
    assert expected.eleven_point < 0.95
    _, best_l2 = max((score, log_l2) for log_l2, score in row.curves["score"])
    assert math.log10(row.settings["l2"]) == pytest.approx(best_l2, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes"), [("knn", {}), ("fewshot", {}), ("linear", {"solver": "sgd"}), ("retrieval", {})]
)
def test_what_wants_one_class_a_picture_is_refused(
    tmp_path: Path, kind: Any, changes: dict[str, Any]
) -> None:
    """In one line that names the kind; retrieval where there are no texts."""
    build_encoder(ENCODER, 16, 0).save(tmp_path / "bare")
    judged = assessment(tmp_path / "bare", tmp_path / "cache", SEVERAL, **changes)
    with pytest.raises(UserError, match="pictures have several classes") as caught:
        judged.run([kind], tmp_path / "out")
    assert "\n" not in str(caught.value)


def without_train(data: ImageSet) -> ImageSet:
    return ImageSet(name=data.name, classes=data.classes, train=None, validation=None, test=data.test)


def test_a_learner_saves_the_tower_into_the_encoders_folder(tmp_path: Path) -> None:
    """What a finished run leaves is an encoder that can be judged by texts."""
    train = msgspec.structs.replace(CONFIG.train, device="cpu", precision="float32")
    augment = msgspec.structs.replace(CONFIG.augment, crop_size=16)
    learner = Learner(msgspec.structs.replace(CONFIG, train=train, augment=augment))
    learner.save_encoder(tmp_path / "encoder")
    loaded = subject(tmp_path / "encoder")
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    torch.testing.assert_close(loaded.encode(pixels), learner.encode(normalise(pixels)), atol=1e-5, rtol=0)
    assert loaded.texts(["a caption"]).shape == (1, 8)
