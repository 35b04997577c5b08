"""The embedded emoji drawings: three styles to search in, and OpenMoji, a style never trained on.

Shapes: N drawings of H = W = 64 pixels, C = 3 colours, A = 4 with alpha (not premultiplied).
"""

import csv
import io
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from protocol.errors import UserError

EMBEDDED = Path(__file__).resolve().parents[1] / "embedded"
HELD_OUT_STYLE = "openmoji"


class Drawings(NamedTuple):
    """Row i of every field belongs together."""

    rgba_NHWA: NDArray[np.uint8]
    styles: list[str]
    names: list[str]
    subcategories: list[str]

    def of(self, *, held_out: bool) -> "Drawings":
        """The drawings of the held-out style, or of all others."""
        rows = [row for row, style in enumerate(self.styles) if (style == HELD_OUT_STYLE) is held_out]
        return Drawings(self.rgba_NHWA[rows], *([column[row] for row in rows] for column in self[1:]))


def load_drawings(folder: Path = EMBEDDED) -> Drawings:
    """All drawings of drawings.csv, in its order. Raises UserError where a file or a member is missing."""
    table, archives = folder / "drawings.csv", [folder / "drawings.tar", folder / "openmoji.tar"]
    for path in [table, *archives]:
        if not path.is_file():
            raise _missing(str(path))
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pixels: dict[str, NDArray[np.uint8]] = {}
    for archive in archives:
        with tarfile.open(archive) as tar:
            for member in tar:
                file_object = tar.extractfile(member)
                if file_object is not None:
                    image = Image.open(io.BytesIO(file_object.read()), formats=["WEBP"]).convert("RGBA")
                    pixels[member.name] = np.asarray(image)
    for row in rows:
        if row["path"] not in pixels:
            raise _missing(f"{row['path']} of {table}")
    return Drawings(
        rgba_NHWA=np.stack([pixels[row["path"]] for row in rows]),
        styles=[row["style"] for row in rows],
        names=[row["name"] for row in rows],
        subcategories=[row["subcategory"] for row in rows],
    )


def _missing(what: str) -> UserError:
    return UserError(
        "drawings are missing",
        expected="drawings.csv, drawings.tar and openmoji.tar",
        got=f"no {what}",
        where="[eval]",
        mend="build them with `python examples/emoji/build_dataset.py`",
    )


def on_white(rgba_NHWA: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 3]: the drawings on white."""
    return _compose(rgba_NHWA, np.full((1, 1, 1, 3), 255.0, dtype=np.float32))


def on_backgrounds(rgba_NHWA: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 3]: one half on random plain colours, the other on random linear gradients."""
    count, height, width, _ = rgba_NHWA.shape
    random = np.random.default_rng(seed)
    first_NC, second_NC = random.uniform(0, 255, (2, count, 1, 1, 3)).astype(np.float32)
    angle_N = random.uniform(0, 2 * np.pi, (count, 1, 1)).astype(np.float32)
    plain_N = random.uniform(size=(count, 1, 1)) < 0.5
    y_H1 = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x_W = np.linspace(-1, 1, width, dtype=np.float32)
    ramp_NHW = np.clip(0.5 + 0.5 * (np.cos(angle_N) * x_W + np.sin(angle_N) * y_H1), 0, 1) * ~plain_N
    return _compose(rgba_NHWA, first_NC + (second_NC - first_NC) * ramp_NHW[..., None])


def _compose(rgba_NHWA: NDArray[np.uint8], background_NHWC: NDArray[np.float32]) -> NDArray[np.uint8]:
    alpha_NHW1 = rgba_NHWA[..., 3:].astype(np.float32) / 255
    blended: NDArray[np.float32] = rgba_NHWA[..., :3] - background_NHWC
    blended *= alpha_NHW1
    blended += background_NHWC
    np.rint(blended, out=blended)
    return blended.astype(np.uint8)
