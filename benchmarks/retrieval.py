"""How good is a run's encoder? Retrieval of OpenMoji drawings, beside what it has to beat.

    run.json ─→ config ─┬→ untrained encoder ───────────────────────────────┐
                        ├→ the run's learner on real drawings, same steps ──┼─ Evaluation ─→ rows ─→ JSON
    encoder/ ───────────┴→ the run's encoder ──── pixels, histogram ────────┘

Usage: streamrep bench retrieval runs/default [--steps N]

The encoder trained on real drawings takes the run's own plan, head, loss, optimizer, augmentation and number
of steps; only its images differ: each view is a drawing of the caption in one of the three styles, placed as
in the data the generator was trained on, and none is ever used twice. "untrained" is the stronger of two:
with fresh batch norm statistics, and with statistics of the gallery.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from benchmarks.environment import environment
from benchmarks.groups import group_of
from protocol.errors import UserError
from protocol.identity import normalise_caption
from protocol.payload import ImagesNHWC
from trainer.batch import Batch
from trainer.captions import Captions
from trainer.config import TrainerConfig
from trainer.encoder import build_encoder
from trainer.evaluation.batch_norm import calibrate_batch_norm
from trainer.evaluation.drawings import Drawings, load_drawings
from trainer.evaluation.evaluate import Evaluation
from trainer.learner import Learner
from trainer.plan import Plan

RESULT = Path("benchmarks/results/retrieval.json")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "emoji"))
# An example's module, found once its folder is on the path; mypy does not look there.
from placements import place  # type: ignore[import-not-found]  # noqa: E402

Row = dict[str, Any]


def read_config(run: Path) -> TrainerConfig:
    """The trainer's sections of run.json; those of other rooms are left aside."""
    path = run / "run.json"
    if not path.is_file():
        raise UserError(
            "not a run folder",
            expected="a folder with run.json",
            got=f"no {path}",
            where="run",
            mend="name the folder of a finished run, such as runs/default",
        )
    sections = json.loads(path.read_text("utf-8"))
    known = {name: sections[name] for name in TrainerConfig.__struct_fields__ if name in sections}
    return msgspec.convert(known, TrainerConfig)


def placed(rgba_NAHW: Tensor, random: torch.Generator) -> ImagesNHWC:
    """uint8 drawings with alpha, [N, 4, 64, 64], each placed at random as in the generator's training: uint8
    [N, 64, 64, 3].
    """
    placed_NCHW = place(rgba_NAHW, random)
    images_NHWC = ((placed_NCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    pixels_NHWC: ImagesNHWC = images_NHWC.contiguous().numpy()
    return pixels_NHWC


class RealDrawings:
    """Batches of the run's plan whose images are placed drawings instead of generated ones."""

    def __init__(self, config: TrainerConfig, drawings: Drawings) -> None:
        self._config = config
        self._rows: dict[str, list[int]] = {}
        for row, name in enumerate(drawings.names):
            self._rows.setdefault(normalise_caption(name), []).append(row)
        self._rgba_NAHW = torch.from_numpy(drawings.rgba_NHWA).permute(0, 3, 1, 2)
        self._plan = Plan(Captions(sorted(self._rows)), config.run.seed, config.generation)
        self._random = torch.Generator().manual_seed(config.run.seed)

    def batch(self, step: int) -> Batch:
        """The batch of step 1, 2, ...: the next groups of the plan, each trained on once."""
        count = self._config.train.batch_groups
        tickets = [self._plan.ticket(group) for group in range((step - 1) * count, step * count)]
        rows = [self._choose(ticket.caption, ticket.views) for ticket in tickets]
        images_NHWC = placed(self._rgba_NAHW[torch.cat(rows)], self._random)
        groups = images_NHWC.reshape(count, -1, *images_NHWC.shape[1:])
        drawn = tuple(
            group_of(ticket, images, "drawings") for ticket, images in zip(tickets, groups, strict=True)
        )
        return Batch(step=step, groups=drawn, uses=(1,) * count)

    def _choose(self, name: str, views: int) -> Tensor:
        rows = torch.tensor(self._rows[name])
        return rows[torch.randint(len(rows), (views,), generator=self._random)]


def train_on_drawings(
    config: TrainerConfig,
    steps: int,
    on_step: Callable[[int, float], None],
    names: Collection[str] | None = None,
) -> Learner:
    """The run's learner after `steps` steps on real drawings, of `names` (normalised captions) if given;
    `on_step` gets each step's excess loss."""
    config = msgspec.structs.replace(config, run=msgspec.structs.replace(config.run, max_steps=steps))
    drawings = load_drawings().of(held_out=False)
    if names is not None:
        rows = [row for row, name in enumerate(drawings.names) if normalise_caption(name) in names]
        drawings = Drawings(
            drawings.rgba_NHWA[rows], *([column[row] for row in rows] for column in drawings[1:])
        )
    source = RealDrawings(config, drawings)
    learner = Learner(config)
    for step in range(1, steps + 1):
        on_step(step, learner.step(source.batch(step)).loss_excess)
    return learner


def judge_untrained(config: TrainerConfig, learner: Learner, evaluation: Evaluation) -> dict[str, Row]:
    """Fresh weights with both kinds of batch norm statistics; "untrained" is the stronger."""
    fresh = evaluation.evaluate(learner.encode)
    norms = calibrate_batch_norm(learner.encoder, evaluation.gallery_batches())
    calibrated = evaluation.evaluate(learner.encode) if norms else fresh
    recall = f"recall_at_{config.eval.k}"
    return {
        "untrained": max(fresh, calibrated, key=lambda row: row[recall]),
        "untrained, fresh statistics": fresh,
        "untrained, calibrated statistics": calibrated,
    }


def measure(run: Path, config: TrainerConfig, steps: int) -> dict[str, Row]:
    """All rows, by name."""
    learner = Learner(config)
    evaluation = Evaluation(config.eval, config.augment.crop_size, learner.device)
    rows: dict[str, Row] = judge_untrained(config, learner, evaluation)
    rows |= evaluation.baselines()
    if steps:
        began = time.monotonic()

        def say(step: int, excess: float) -> None:
            if step % 20 == 0 or step == steps:
                left = (time.monotonic() - began) / step * (steps - step)
                print(
                    f"real drawings: step {step}/{steps}, excess {excess:.3f}, {left:.0f} s left",
                    file=sys.stderr,
                )

        trained = train_on_drawings(config, steps, say)
        rows["trained on real drawings"] = {**evaluation.evaluate(trained.encode), "steps": steps}
    learner.encoder = build_encoder({"folder": str(run / "encoder")}, config.augment.crop_size, seed=0)
    learner.encoder.to(learner.device)
    rows["the run's encoder"] = {**evaluation.evaluate(learner.encode), "steps": config.run.max_steps}
    return rows


def main(argv: Sequence[str]) -> int:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(
        prog="streamrep bench retrieval", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument(
        "--steps", type=int, help="steps on real drawings; 0 leaves it out (default: the run's)"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(argv)
    try:
        config = read_config(options.run)
        steps = config.run.max_steps if options.steps is None else options.steps
        rows = measure(options.run, config, steps)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    keys = list(rows["pixels"])
    print(" ".join([f"{'':34}", *(f"{key:>27}" for key in keys)]))
    for name, row in rows.items():
        print(" ".join([f"{name:34}", *(f"{row[key]:27.4f}" for key in keys)]))
    result = {
        "question": "retrieval of held-out drawings: the run's encoder beside what it has to beat",
        "run": msgspec.to_builtins(config),
        "rows": rows,
        "environment": environment(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
