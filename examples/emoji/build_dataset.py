"""Build the embedded drawings: four openly licensed emoji sets at 64x64 with their Unicode names.

    npm packages ──find──> Drawing rows ──render──> 64x64 RGBA WebP ──pack──> drawings.tar, openmoji.tar
                                  └──────────────────────────────────> drawings.csv, captions.txt

    python examples/emoji/build_dataset.py            # fetches the packages with npm
    python examples/emoji/build_dataset.py --packages DIR/node_modules

The same packages give the same bytes: tar members are sorted and carry no time and no owner.
Needs `pip install resvg-py` to rasterise OpenMoji's SVG, and npm unless --packages is given.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parents[1] / "trainer" / "embedded"
SIZE = 64
STYLES = ("noto", "twemoji", "fluent")
HELD_OUT = "openmoji"
PACKAGES = {
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "openmoji": "17.0.0",
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One row of drawings.csv."""

    path: str
    """The tar member, e.g. noto/1f600.webp."""
    style: str
    codepoint: str
    """Lower-case hexadecimal code points joined by '-', variation selectors (fe0f) left out."""
    name: str
    """Lower-case CLDR short name, e.g. 'flag: japan'."""
    category: str
    subcategory: str


def codepoint_of(text: str) -> str:
    """'2764-FE0F.svg' -> '2764': one spelling of a code point for all four packages."""
    parts = text.rsplit(".", 1)[0].lower().split("-")
    return "-".join(part for part in parts if part != "fe0f")


def plain_name(annotation: str) -> str:
    """Lower case, NFC, with typewriter quotes, so that a caption can be typed."""
    table = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
    return unicodedata.normalize("NFC", annotation.translate(table).lower())


def fetch_packages(folder: Path) -> Path:
    """Install the pinned npm packages under `folder` and return its node_modules."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = [f"{name}@{version}" for name, version in PACKAGES.items()]
    print("npm install " + " ".join(specs), flush=True)
    subprocess.run(
        ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", *specs],
        check=True,
    )
    return folder / "node_modules"


def check_versions(packages: Path) -> None:
    """Refuse packages of another version: their drawings and names differ."""
    for name, version in PACKAGES.items():
        found = json.loads((packages / name / "package.json").read_text(encoding="utf-8"))["version"]
        if found != version:
            raise ValueError(
                f"{packages / name} is version {found}, expected {version}: install {name}@{version}"
            )


def find_drawings(packages: Path) -> dict[Drawing, Path]:
    """Every drawing of a name that the training sets hold, with the file it comes from."""
    records = json.loads((packages / "emoji-datasource-google/emoji.json").read_text(encoding="utf-8"))
    openmoji = json.loads((packages / "openmoji/data/openmoji.json").read_text(encoding="utf-8"))
    # OpenMoji carries CLDR names and Unicode groups in one spelling for every code point, so it names all
    # styles.
    named = {codepoint_of(row["hexcode"]): row for row in openmoji if not row["group"].startswith("extras")}
    folders = {
        "noto": packages / "emoji-datasource-google/img/google/64",
        "twemoji": packages / "emoji-datasource-twitter/img/twitter/64",
        "fluent": packages / "@lobehub/fluent-emoji-3d/assets",
        HELD_OUT: packages / "openmoji/color/svg",
    }
    drawings: dict[Drawing, Path] = {}
    for style, folder in folders.items():
        files = {codepoint_of(file.name): file for file in folder.iterdir()}
        for record in records:
            codepoint = codepoint_of(record["unified"])
            if codepoint not in files:
                continue
            row = named[codepoint]
            drawing = Drawing(
                path=f"{style}/{codepoint}.webp",
                style=style,
                codepoint=codepoint,
                name=plain_name(row["annotation"]),
                category=row["group"],
                subcategory=row["subgroups"],
            )
            drawings[drawing] = files[codepoint]
    return drawings


def render(file: Path) -> bytes:
    """One drawing as a lossless 64x64 RGBA WebP."""
    if file.suffix == ".svg":
        import resvg_py

        data = resvg_py.svg_to_bytes(
            svg_path=str(file), width=SIZE * 4, height=SIZE * 4, skip_system_fonts=True
        )
        image = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    else:
        image = Image.open(file).convert("RGBA")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # exact keeps the colour of transparent pixels, which edges are interpolated with.
    image.save(buffer, "WEBP", lossless=True, exact=True, quality=100, method=6)
    return buffer.getvalue()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary neighbour of `path`, then rename it."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    os.replace(temporary, path)


def pack(members: dict[str, bytes], path: Path) -> None:
    """A tar whose bytes depend on its members alone."""

    def write(temporary: Path) -> None:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name in sorted(members):
                info = tarfile.TarInfo(name)
                info.size = len(members[name])
                tar.addfile(info, io.BytesIO(members[name]))

    write_atomically(path, write)


def write_table(drawings: list[Drawing], output: Path) -> None:
    """drawings.csv, all four styles, and captions.txt, the names of the training styles."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(Drawing.__dataclass_fields__), lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(drawing) for drawing in sorted(drawings, key=lambda d: d.path))

    write_atomically(output / "drawings.csv", write)
    names = sorted({drawing.name for drawing in drawings if drawing.style in STYLES})
    text = "\n".join(names) + "\n"
    write_atomically(
        output / "captions.txt", lambda temporary: temporary.write_text(text, encoding="utf-8") and None
    )


def write_licences(packages: Path, output: Path) -> None:
    """ATTRIBUTION.md and the licence texts; OpenMoji's comes from its package, the others from this
    folder.
    """
    shutil.copyfile(HERE / "licences" / "ATTRIBUTION.md", output / "ATTRIBUTION.md")
    folder = output / "LICENSES"
    folder.mkdir(exist_ok=True)
    for file in sorted((HERE / "licences").glob("*.txt")):
        shutil.copyfile(file, folder / file.name)
    shutil.copyfile(packages / "openmoji/LICENSE.txt", folder / "CC-BY-SA-4.0.txt")


def render_all(drawings: dict[Drawing, Path]) -> dict[str, bytes]:
    """Tar member -> WebP bytes, in as many processes as there are cores."""
    started, members = time.monotonic(), {}
    with ProcessPoolExecutor() as pool:
        images = pool.map(render, drawings.values(), chunksize=32)
        for done, (drawing, data) in enumerate(zip(drawings, images, strict=True), start=1):
            members[drawing.path] = data
            if done % 1000 == 0 or done == len(drawings):
                left = (time.monotonic() - started) / done * (len(drawings) - done)
                print(f"rendered {done}/{len(drawings)}, {left:.0f} s left", flush=True)
    return members


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, help="a node_modules folder that already holds the packages")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="where npm installs them otherwise")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the embedded data")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    packages = arguments.packages or fetch_packages(arguments.work)
    check_versions(packages)
    drawings = find_drawings(packages)
    members = render_all(drawings)
    arguments.output.mkdir(parents=True, exist_ok=True)
    training = {path: data for path, data in members.items() if not path.startswith(HELD_OUT)}
    held_out = {path: data for path, data in members.items() if path.startswith(HELD_OUT)}
    pack(training, arguments.output / "drawings.tar")
    pack(held_out, arguments.output / "openmoji.tar")
    write_table(list(drawings), arguments.output)
    write_licences(packages, arguments.output)
    names = len({drawing.name for drawing in drawings})
    size = sum(file.stat().st_size for file in arguments.output.rglob("*") if file.is_file())
    counts = f"{len(training)} training and {len(held_out)} held-out drawings"
    print(f"{counts} of {names} names, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
