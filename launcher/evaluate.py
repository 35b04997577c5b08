"""`streamrep eval`: how good an encoder is, on pictures of any set."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from launcher.command_line import OneLineParser
from launcher.errors import RunFileError
from launcher.interrupts import Interrupts
from launcher.recorded_run import find_run
from trainer.config import RunConfig, TrainConfig
from trainer.errors import StopRequestedError

KINDS = ("retrieval", "knn", "linear", "fewshot", "zeroshot")
VARIANTS = ("clean", "paper")
EPILOG = """\
kinds, all that the encoder and the set allow by default:
  retrieval  recall at k among the pictures of train; with a text tower also images by captions, and
             captions by images
  knn        weighted vote of the k nearest pictures of train
  linear     logistic regression, its L2 chosen on validation, by accuracy, or with --chosen-by mean_class by
             the mean over classes (which SynCLR reports of Aircraft, Caltech-101, Flowers and Pets). From
             100,000 train pictures on StableRep's probe: 10 learning rates with and without batch norm, 90
             epochs of random crops. Where pictures have several classes one regression a class, and mean
             average precision, by the eleven points of Pascal VOC 2007 (as SynCLR reports it) and by area
  fewshot    600 episodes of 5 classes with 5 labelled pictures each, and a 95% interval
  zeroshot   classes by their names, for runs with train.objective = "stablerep+" or "clip"

variants of the probe:
  clean      learning rate and epoch chosen on the validation split, or on a tenth of train that is held out
  paper      chosen on the test split, as published; not to be mistaken for an honest estimate

data: `openmoji`, or a folder of SPLIT/CLASS/picture files (with a captions.csv of path, caption, group), of
WebDataset shards train-*.tar with KEY.cls or KEY.json, or of Parquet files with the columns image and label.
Splits are called train, val and test; a set without test is judged on val. classes.txt names the classes of
labels that are numbers. Where pictures have several classes, or none: lists in KEY.json or in the column, or
in the folder a labels.csv of path and label, with a row for each class of a picture (an empty label: none).
Such sets are judged by linear and zeroshot, and by retrieval where they have captions.
"""


def evaluate(argv: list[str], interrupts: Interrupts) -> int:
    """Carries out the words after `eval`; returns the exit code. Raises UserError."""
    words = _parser().parse_args(argv)
    target = _target(words.target)
    templates = _templates(words.templates)
    kinds: Any = _listed(words.kind, KINDS, "--kind")
    variants: Any = _listed(words.variant, VARIANTS, "--variant")
    # Imported when the words are known to be good: these take seconds.
    from trainer.device import resolve_device, resolve_precision
    from trainer.evaluation.across_sets import across_sets, judged_sets, lines_of, save_across
    from trainer.evaluation.assess import Assessment, Settings
    from trainer.evaluation.features import Features
    from trainer.evaluation.open_set import open_set
    from trainer.evaluation.result import table
    from trainer.evaluation.subject import Subject
    from trainer.evaluation.tracked import track

    config = TrainConfig(device=words.device, precision=words.precision, threads=words.threads)
    device = resolve_device(config)
    subject = Subject(target, device, resolve_precision(config, device), words.image_size)
    data = open_set(words.data, words.cache)
    features = Features(
        subject, words.cache, batch_images=words.batch_images, workers=words.workers, stop=interrupts.stop
    )
    settings = Settings(
        variants=variants or ["clean"],
        solver=words.solver,
        chosen_by=words.chosen_by,
        epochs=words.epochs,
        probe_batch=words.probe_batch,
        k=words.k,
        temperature=words.temperature,
        episodes=words.episodes,
        seed=words.seed,
        templates=templates,
    )
    assessment = Assessment(data, features, device, settings)
    folder = words.out or target / "evaluations" / data.name
    try:
        found = assessment.run(kinds or assessment.possible(), folder)
        # Only where sets lie beside each other by our own doing.
        judged = [] if words.out else judged_sets(folder.parent, found.encoder_digest)
        sets = across_sets(judged) if len(judged) > 1 else None
        if sets:
            save_across(folder.parent, sets)
        untold = track(found, target) if (target / "run.json").is_file() else []
    except StopRequestedError:
        return interrupts.exit_code
    except OSError as error:
        raise _cannot_write(folder, error) from error
    print(f"{data.name}: {subject.folder}\n{table(found)}\n  see {folder / 'results.html'}")
    if sets:
        print(f"all sets in {folder.parent}:\n{lines_of(sets)}")
    for reason in untold:
        print(f"streamrep: {reason}", file=sys.stderr)
    return interrupts.exit_code


def _target(words: str) -> Path:
    """A run's folder, or an encoder's."""
    return Path(words) if (Path(words) / "config.json").is_file() else find_run(words).folder


def _templates(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RunFileError(
            "no templates",
            expected="a UTF-8 text file with one text a line, {} where the class name goes",
            got=getattr(error, "strerror", None) or str(error),
            where=str(path),
            mend="check --templates",
        ) from error


def _listed(text: str | None, known: tuple[str, ...], option: str) -> list[str]:
    """The names of a comma separated list, each once; nothing where nothing was asked."""
    names = list(dict.fromkeys(text.split(","))) if text else []
    for name in names:
        if name not in known:
            raise RunFileError(
                "unknown name",
                expected=f"{', '.join(known)}, with commas between",
                got=name,
                where=option,
                mend="`streamrep eval --help` explains them",
            )
    return names


def _cannot_write(folder: Path, error: OSError) -> RunFileError:
    return RunFileError(
        "cannot write or read",
        expected="folders for results (--out) and features (--cache)",
        got=f"{error.strerror or error}: {error.filename or ''}",
        where=str(folder),
        mend="choose others",
    )


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="streamrep eval",
        description="Judges the encoder of a finished run, or any folder of a transformers vision model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "target", metavar="RUN|ENCODER", help="a run folder, its name, or an encoder's folder"
    )
    parser.add_argument("--data", default="openmoji", metavar="SET", help="(openmoji)")
    parser.add_argument("--kind", metavar="KIND,...", help="what to judge by (all that is possible)")
    parser.add_argument("--variant", metavar="VARIANT,...", help="of the probe (clean)")
    parser.add_argument("--solver", choices=("auto", "sgd", "lbfgs"), default="auto", help="of linear (auto)")
    parser.add_argument(
        "--chosen-by", choices=("accuracy", "mean_class"), default="accuracy", help="L2 of linear (accuracy)"
    )
    parser.add_argument("--epochs", type=_count, default=90, metavar="N", help="of the probe (90)")
    parser.add_argument(
        "--probe-batch", type=_count, default=1024, metavar="N", help="pictures of a step of the probe (1024)"
    )
    parser.add_argument("--episodes", type=_count, default=600, metavar="N", help="of fewshot (600)")
    parser.add_argument("--k", type=_count, default=10, metavar="N", help="neighbours (10)")
    parser.add_argument("--temperature", type=_positive, default=0.07, metavar="T", help="of the vote (0.07)")
    parser.add_argument(
        "--templates", type=Path, metavar="FILE", help="texts with {} for zeroshot, one a line"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of what is drawn (0)")
    parser.add_argument(
        "--image-size",
        type=_count,
        default=0,
        metavar="PX",
        help="(what the encoder was trained for, else 224)",
    )
    parser.add_argument("--batch-images", type=_count, default=256, metavar="N", help="encoded at once (256)")
    parser.add_argument(
        "--workers",
        type=_count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="decoding threads (all cores)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto)")
    parser.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16", "float16"), default="auto", help="(auto)"
    )
    parser.add_argument("--threads", type=_count, default=0, metavar="N", help="of a CPU (left to torch)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(RunConfig().dir) / ".features",
        metavar="DIR",
        help="(runs/.features)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="of results (RUN|ENCODER/evaluations/SET)")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text}")
    return count


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number > 0, got {text}")
    return value
