"""Pascal VOC 2007 as a set that `streamrep eval` reads: SPLIT/picture files and a labels.csv.

    VOC2007/ImageSets/Main/CLASS_SPLIT.txt ─→ OUT/labels.csv: a row for each class of a picture
    VOC2007/JPEGImages                     ─→ OUT/SPLIT/*.jpg, as links

A picture has the classes that its files mark with 1. Those that are there but difficult (0) count as absent,
as in SynCLR's downstreams/voc2007.py. Unpack VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar first.

Usage: python examples/sets/voc2007.py VOCdevkit/VOC2007 sets/voc2007
       streamrep eval RUN --data sets/voc2007 --kind linear
"""

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SPLITS = ("train", "val", "test")


def main(argv: Sequence[str]) -> int:
    """Writes the set and prints its size; exit code 1 where files are missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("devkit", type=Path, help="the unpacked folder VOC2007")
    parser.add_argument("out", type=Path, help="folder of the set")
    options = parser.parse_args(argv)
    try:
        rows = [(split, name, label) for split in SPLITS for name, label in labels(options.devkit, split)]
        for split, name in dict.fromkeys(row[:2] for row in rows):
            link(options.devkit / "JPEGImages" / f"{name}.jpg", options.out / split / f"{name}.jpg")
    except OSError as error:
        print(f"{error.filename}: {error.strerror}; unpack both archives of VOC 2007", file=sys.stderr)
        return 1
    temporary = options.out / ".labels.csv"
    with temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label"))
        table.writerows((f"{split}/{name}.jpg", label) for split, name, label in rows)
    temporary.replace(options.out / "labels.csv")
    for split in SPLITS:
        pictures = len({name for of, name, _ in rows if of == split})
        print(
            f"{split}: {pictures} pictures, {sum(bool(label) for of, _, label in rows if of == split)} labels"
        )
    return 0


def labels(devkit: Path, split: str) -> Iterator[tuple[str, str]]:
    """(picture, class) for each class of each picture of a split, and (picture, "") for every picture."""
    main_folder = devkit / "ImageSets" / "Main"
    for name in (main_folder / f"{split}.txt").read_text("utf-8").split():
        yield name, ""
    for path in sorted(main_folder.glob(f"*_{split}.txt")):
        for line in path.read_text("utf-8").splitlines():
            name, mark = line.split()
            if mark == "1":
                yield name, path.stem.removesuffix(f"_{split}")


def link(picture: Path, path: Path) -> None:
    """Makes `path` lead to the picture. Raises OSError where that is missing."""
    os.stat(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(picture.resolve())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
