"""The paper's ablations: their arms and runs, what is computed of them, and going on after an interrupt."""

import json
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import ablation, ablation_run, retrieval
from benchmarks.ablation_arms import POSITIVES, VIEWS, Part, Trial, ablations
from benchmarks.ablation_paper import Claim, claims_of
from benchmarks.ablation_run import Pools, config_of
from benchmarks.ablation_table import claims_table, compare, judge, table, verdict
from benchmarks.ended import EndedRuns, Run, complete
from benchmarks.superset import Superset, choose_captions
from protocol.errors import UserError
from protocol.identity import caption_id
from trainer.captions import Captions
from trainer.evaluation.drawings import load_drawings

ABLATIONS = ablations(8)
TRIALS = {trial: f"{name}: {label}" for name, of in ABLATIONS.items() for label, trial in of.trials.items()}
TINY = [
    "--model.encoder",
    '{"model_type": "resnet", "layer_type": "basic", "embedding_size": 4,'
    ' "hidden_sizes": [4], "depths": [1]}',
    "--augment.crop_size",
    "16",
    "--train.batch_groups",
    "8",
]
load_once = lru_cache(load_drawings)
POOLS = Pools(
    folder=Path("nowhere"),
    captions=tuple(choose_captions(4)),
    images_a_caption=40,
    guided_images_a_caption=10,
)


def rows_of(**values: list[float]) -> dict[str, list[dict[str, Any]]]:
    """Arms whose R@10 by seed is given; on backgrounds it is one half of that."""
    return {
        label: [
            {"recall_at_10": x, "recall_at_10_backgrounds": x / 2, "images_trained": 36, "images_drawn": 12}
            for x in found
        ]
        for label, found in values.items()
    }


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_every_table_has_its_baseline_real_drawings_and_an_untrained_encoder(name: str) -> None:
    """And a label is one trial throughout an ablation."""
    for part in ABLATIONS[name].parts:
        assert part.arms[part.baseline].source in ("pool", "fresh")
        assert [trial.source for trial in part.arms.values()][-2:] == ["drawings", "untrained"]
        assert all(ABLATIONS[name].trials[label] == trial for label, trial in part.arms.items())


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_the_papers_directions_are_of_arms_that_are_there(name: str) -> None:
    """Differences: their factors add up to nothing."""
    for claim in claims_of(name, 8 * VIEWS):
        assert set(claim.difference) <= set(ABLATIONS[name].trials)
        assert sum(claim.difference.values()) == 0


def test_arms_that_ablations_have_in_common_are_equal() -> None:
    """The pool of ten is the baseline of five ablations, SimCLR is an arm of two."""
    trials = {name: of.trials for name, of in ABLATIONS.items()}
    shared = [trials["l"]["l = 10"], trials["m"]["m = 3"], trials["guidance"]["w = 1"]]
    shared += [trials["objective"]["stablerep"], trials["augmentation"]["pool, default"]]
    assert len(set(shared)) == 1
    assert trials["m"]["m = 1 (simclr)"] == trials["objective"]["simclr"]
    assert trials["reuse"]["24 images x 1"] == trials["augmentation"]["fresh, default"]


def test_all_arms_but_the_short_ones_see_as_many_images_in_batches_of_one_size() -> None:
    """300 captions and 40 visits of 3 are 36,000 images: 375 steps of 96, whatever m and the crops."""
    short = {f"15 images x {uses}" for uses in (1, 2, 4)}
    for of in ablations(40).values():
        for label, trial in of.trials.items():
            config = config_of([], trial, 0, 300)
            assert config.batch_images == 96
            if trial.source != "untrained" and label not in short:
                assert (config.run.max_steps, config.train.warmup_steps) == (375, 50)
    groups = {views: 96 // views for views in POSITIVES}
    arms = ablations(40)["m"].trials
    assert {v: config_of([], arms[f"m = {v}"], 0, 300).train.batch_groups for v in groups} == groups


def test_reuse_draws_a_uses_part_and_equal_draws_train_longer_with_more_uses() -> None:
    """Of 120 images: 120, 60, 30, 15 drawn; then 15 drawn and 1, 2, 4, 8 times as many steps."""
    trained, drawn = ablations(40)["reuse"].parts
    arms = list(trained.arms.values())[:4]
    assert [arm.images_drawn for arm in arms] == [120, 60, 30, 15]
    assert [arm.images for arm in arms] == [120] * 4
    arms = list(drawn.arms.values())[:4]
    assert [arm.images_drawn for arm in arms] == [15] * 4
    steps = [config_of([], arm, 0, 300).run.max_steps for arm in arms]
    assert steps == [46, 93, 187, 375]
    assert config_of([], arms[0], 0, 300).train.warmup_steps == 11, "a quarter of its steps"


def test_settings_of_arms_reach_the_run_file() -> None:
    """Each objective, scale and strength; the words of the command line hold besides."""
    trials = {label: trial for of in ABLATIONS.values() for label, trial in of.trials.items()}
    config = {label: config_of(["--train.lr", "7e-3"], trial, 5, 100) for label, trial in trials.items()}
    assert {c.run.seed for c in config.values()} == {5}
    assert config["l = 4"].train.lr == 7e-3
    assert config["vit, mae"].train.lr == 1e-3
    names = ("stablerep", "stablerep+", "supcon", "simclr", "clip", "mae")
    assert [config[f"vit, {name}"].train.objective for name in names] == list(names)
    assert len({json.dumps(config[f"vit, {name}"].model.encoder) for name in names}) == 1
    assert config["w of 1, 2, 4, 8"].generation.guidance == (1, 2, 4, 8)
    none = config["fresh, none"].augment
    assert (none.crop_scale, none.flip, none.jitter, none.grayscale, none.blur) == ((1, 1), 0, 0, 0, 0)
    assert config["pool, weak"].augment.strength == "weak"
    assert config["pool, strong"].augment.crop_scale == (0.08, 1.0)


def test_a_batch_that_not_every_m_divides_is_refused() -> None:
    """Ten groups of three are not whole groups of eight."""
    with pytest.raises(UserError, match=r"--train\.batch_groups: .* expected a multiple of 8, got 10"):
        config_of(["--train.batch_groups", "10"], ABLATIONS["l"].trials["l = 4"], 0, 300)


class FakeEvaluation:
    """Judges an encoder by whether it gives features."""

    def evaluate(self, encode: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        features = encode(next(self.gallery_batches()))
        assert torch.isfinite(features).all()
        return {"recall_at_10": features.std().item(), "recall_at_10_backgrounds": 0.0}

    def gallery_batches(self) -> Iterator[torch.Tensor]:
        yield torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("trial", TRIALS, ids=TRIALS.values())
def test_every_arm_trains(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own objective, encoder and images, four steps or fewer; what it draws and sees is counted."""
    random = np.random.default_rng(0)
    images = {
        caption_id(text): random.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8) for text in POOLS.captions
    }
    superset = Superset(
        captions=Captions(POOLS.captions), images=images, digest="", fill_seconds=0.0, picture_bytes=1.0
    )
    for module in (ablation_run, retrieval):
        monkeypatch.setattr(module, "load_drawings", load_once)
    monkeypatch.setattr(ablation_run, "_read_once", lambda *place: superset)
    monkeypatch.setattr(ablation_run, "_evaluation_once", lambda *settings: FakeEvaluation())
    config = config_of(TINY, trial, 3, len(POOLS.captions))
    found = ablation_run.run(config, trial, POOLS)
    assert found["images_drawn"] == 4 * trial.images_drawn
    steps = max(1, 4 * trial.images // 24) if trial.images else 0
    assert (found["steps"], found["images_trained"]) == (steps, 24 * steps)
    assert found["recall_at_10"] > 0
    assert trial.source == "untrained" or math.isfinite(found["loss_excess"])


def test_guided_images_lie_in_folders_of_their_own() -> None:
    """Named by their scales; no guidance is the superset."""
    assert POOLS.folder_of((1.0,)) == Path("nowhere")
    assert POOLS.folder_of((2.5,)) == Path("nowhere/guidance_2.5")
    assert POOLS.folder_of((1.0, 2.0)) == Path("nowhere/guidance_1_2")
    assert [POOLS.count_of(scales) for scales in ((1.0,), (2.0,))] == [40, 10]


def test_a_table_has_means_and_differences_paired_by_seed() -> None:
    """Two seeds: 12.706 deviations over the root of two. The pairs are 1 and 3 points apart."""
    trial = Trial(source="pool", images=12, pool_images=4)
    part = Part(title="", baseline="b", arms={"a": trial, "b": trial})
    found = compare(part, rows_of(a=[0.11, 0.15], b=[0.10, 0.12]))
    first, second = found["arms"]
    assert first["recall_at_10"]["mean"] == pytest.approx(0.13)
    assert first["recall_at_10"]["interval"] == pytest.approx(12.706 * 0.02)
    assert first["recall_at_10"]["over_baseline"] == pytest.approx(0.02)
    assert first["recall_at_10"]["over_baseline_interval"] == pytest.approx(12.706 * 0.01)
    assert "over_baseline" not in second["recall_at_10"]
    lines = table(found).splitlines()
    assert lines[2].startswith("| a | 12 | 36 | 13.0% ± 25.4% | +2.0 ± 12.7 points | 6.5% ± 12.7% |")
    assert lines[3] == "| b | 12 | 36 | 11.0% ± 12.7% |  | 5.5% ± 6.4% |  |"


def test_an_interval_decides_on_a_direction() -> None:
    """Wholly above zero, wholly below, or neither: touching zero shows nothing."""
    assert verdict(0.02, 0.01) == "agrees"
    assert verdict(-0.02, 0.01) == "disagrees"
    assert verdict(0.02, 0.02) == verdict(-0.02, 0.03) == "not shown"


def test_a_direction_is_judged_seed_by_seed() -> None:
    """A difference of differences, (a - b) - (c - d): 2 points in each of three seeds; its interval is 0."""
    rows = rows_of(a=[0.5, 0.3, 0.2], b=[0.4, 0.2, 0.1], c=[0.28, 0.38, 0.48], d=[0.2, 0.3, 0.4])
    claim = Claim(text="t", source="s", difference={"a": 1, "b": -1, "c": -1, "d": 1})
    found = judge(claim, rows)
    assert found["recall_at_10"]["difference"] == pytest.approx(0.02)
    assert found["recall_at_10"]["interval"] == pytest.approx(0.0, abs=1e-9)
    assert found["recall_at_10"]["verdict"] == "agrees"
    assert claims_table([found]).splitlines()[2] == (
        "| t | s | +2.0 ± 0.0 points | agrees | +1.0 ± 0.0 points | agrees |"
    )


def test_runs_of_one_key_run_once_and_what_ended_is_kept_through_an_error(tmp_path: Path) -> None:
    """`dict` is the job. The second call has one run left; a line that was cut off is run again."""
    path = tmp_path / "runs.jsonl"

    def run_of(key: str, words: Any) -> Run:
        return Run(key=key, label=key, words=(words,), about={"seed": 0})

    good = [run_of("a", {"x": 1}), run_of("a", {"x": 1}), run_of("b", {"x": 2})]
    with pytest.raises(TypeError, match="not iterable"):
        complete(EndedRuns(path), dict, [*good, run_of("c", 5)], 1)
    assert [json.loads(line)["key"] for line in path.read_text().split("\n")[1:]] == ["a", "b"]
    path.write_text(path.read_text() + '\n{"key": "c", "x"')
    ended = EndedRuns(path)
    complete(ended, dict, [run_of("a", 5), run_of("c", {"x": 3})], 1)
    assert EndedRuns(path).row("c") == ended.row("c") == {"key": "c", "seed": 0, "x": 3}
    assert EndedRuns(path).row("a")["x"] == 1


class Interrupted:
    """Stands for processes: gives results that depend on arm and seed, and is interrupted after so many."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.asked: list[str] = []

    def __call__(self, ended: EndedRuns, job: Any, runs: list[Run], processes: int) -> None:
        for run in {run.key: run for run in runs if run.key not in ended}.values():
            if len(self.asked) == self.after:
                raise KeyboardInterrupt
            self.asked.append(run.key)
            share = int(run.key[:8], 16) / 2**32
            results = {"recall_at_10": share, "recall_at_10_backgrounds": 1 - share}
            ended.add(run, {**results, "images_trained": 24, "images_drawn": 8})


def test_an_interrupted_command_goes_on_and_ablations_share_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of l's 7 arms and 2 seeds 9 remain after 5; then reuse, which has drawings and untrained in common."""
    filled: list[tuple[Path, int, tuple[float, ...]]] = []
    monkeypatch.setattr(ablation, "fill", lambda at, _, count, __, scales: filled.append((at, count, scales)))
    monkeypatch.setattr(ablation, "digest_at", str)
    places = {"--folder": tmp_path, "--out-dir": tmp_path / "results", "--docs": tmp_path / "docs"}
    words = ["--captions", "20", "--visits", "8", "--seeds", "2", "--train.batch_groups", "8"]
    words += [str(word) for pair in places.items() for word in pair]
    asked = []
    for name, after in (("l", 5), ("l", 99), ("reuse", 99), ("l", 99)):
        processes = Interrupted(after)
        monkeypatch.setattr(ablation, "complete", processes)
        if after == 5:
            with pytest.raises(KeyboardInterrupt):
                ablation.main([name, *words])
            assert not (tmp_path / "docs").exists()
        else:
            assert ablation.main([name, *words]) == 0
        asked.append(len(processes.asked))
    # reuse has 7 arms that l has not.
    assert asked == [5, 9, 14, 0]
    assert set(filled) == {(tmp_path, 40, (1.0,))}
    page = (tmp_path / "docs" / "ablations.md").read_text("utf-8")
    assert page.index("## How many images a caption") < page.index("## How often may a group")
    result = json.loads((tmp_path / "results" / "ablation_l.json").read_text())
    assert [row["seed"] for row in result["runs"]] == [0, 1] * 7
    for part in result["parts"]:
        assert table(part) in page
        assert table(part) in capsys.readouterr().out
    assert (tmp_path / "docs" / "images" / "ablation_reuse.svg").read_text().startswith("<svg")
    assert "images/ablation_l.svg" in page


def test_visits_that_the_most_uses_do_not_divide_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """So that equal images are exactly that."""
    with pytest.raises(SystemExit, match="2"):
        ablation.main(["reuse", "--visits", "12"])
    assert "expected a multiple of 8" in capsys.readouterr().err
