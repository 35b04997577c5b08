"""From `--data` to the set of pictures that it names: the embedded OpenMoji set, or a folder."""

import re
from pathlib import Path

import torch
import xxhash

from protocol.errors import UserError
from trainer.evaluation.drawings import EMBEDDED, Drawings, load_drawings, on_white
from trainer.evaluation.image_folder import read_folder
from trainer.evaluation.image_set import SPLIT_NAMES, ImageSet, Row, Split, SplitName, assemble
from trainer.evaluation.parquet_files import read_parquet_rows
from trainer.evaluation.shard_files import read_shards

OPENMOJI = "openmoji"
CLASSES_FILE = "classes.txt"
_BEGINNING = re.compile(rf"^({'|'.join(SPLIT_NAMES)})(?![A-Za-z])")


def open_set(data: str, cache: Path) -> ImageSet:
    """`openmoji`, or a folder of class folders, of .tar shards or of .parquet files. Raises UserError."""
    if data == OPENMOJI:
        return openmoji_set()
    folder = Path(data)
    if not folder.is_dir():
        raise UserError(
            "no such set",
            expected=f"`{OPENMOJI}`, or a folder of class folders, .tar shards or .parquet files",
            got="no such folder",
            where=data,
            mend="check --data",
        )
    class_names = folder / CLASSES_FILE
    names = class_names.read_text("utf-8-sig").splitlines() if class_names.is_file() else []
    rows: dict[SplitName, list[Row]] = {}
    for split, paths in _files_by_split(folder).items():
        if paths[0].suffix == ".tar":
            rows[split] = read_shards(paths)
        else:
            rows[split], told = read_parquet_rows(paths, cache)
            names = names or told
    return assemble(folder.resolve().name, rows or read_folder(folder), names, folder)


def _files_by_split(folder: Path) -> dict[SplitName, list[Path]]:
    """Shards, else Parquet files, by the word that their names begin with."""
    for suffix in (".tar", ".parquet"):
        paths = sorted(folder.rglob(f"*{suffix}"))
        found: dict[SplitName, list[Path]] = {}
        for path in paths:
            if match := _BEGINNING.match(path.name):
                found.setdefault(SPLIT_NAMES[match[1]], []).append(path)
        if paths and not found:
            raise UserError(
                "no splits",
                expected="file names that begin with train, val or test",
                got=paths[0].name,
                where=str(folder),
                mend="rename the files",
            )
        if found:
            return found
    return {}


def openmoji_set(folder: Path = EMBEDDED) -> ImageSet:
    """Trained on the three other styles, judged on OpenMoji's. A class is a Unicode subcategory, retrieval
    looks for the name, which is the caption too. Raises UserError where the drawings are missing."""
    drawings = load_drawings(folder)
    classes = sorted(set(drawings.subcategories))
    names = {name: number for number, name in enumerate(sorted(set(drawings.names)))}

    def split(some: Drawings, name: SplitName) -> Split:
        images_NHWC = on_white(some.rgba_NHWA)
        return Split(
            name=name,
            read=lambda index: images_NHWC[index],
            labels_N=torch.tensor([classes.index(text) for text in some.subcategories]),
            captions=[(text,) for text in some.names],
            groups=some.styles if name == "train" else [""] * len(some.names),
            digest=xxhash.xxh3_64_hexdigest(images_NHWC.tobytes()),
            instances_N=torch.tensor([names[text] for text in some.names]),
        )

    return ImageSet(
        name=OPENMOJI,
        classes=classes,
        train=split(drawings.of(held_out=False), "train"),
        validation=None,
        test=split(drawings.of(held_out=True), "test"),
        templates=("{}",),
    )
