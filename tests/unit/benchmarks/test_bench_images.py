"""`streamrep bench images` on a tiny architecture: that it runs, and what its figures are made of."""

import json
import xml.etree.ElementTree
from pathlib import Path

import pytest
import torch

from benchmarks.architectures import ARCHITECTURES
from benchmarks.images import main


@pytest.fixture(autouse=True)
def own_threads():
    """The benchmark sets torch's threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_engines_are_measured_beside_stock(tmp_path: Path) -> None:
    """The same images in the same run, every figure in the file, and a plot that can be read."""
    out = tmp_path / "images.json"
    words = ["--architecture", "tiny", "--sizes", "32", "--steps", "2", "--guidance", "3", "--rounds", "1"]
    words += ["--views", "2", "--batch-images", "4", "--seconds", "0", "--precision", "float32"]
    assert main([*words, "--seconds", "0.01", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert "random" in result["weights"]
    assert result["environment"]["commit"]
    rows = {row["contestant"]: row for row in result["rows"]}
    assert list(rows) == ["stock, a caption at a time", "stock, same batch", "eager"]
    for row in rows.values():
        assert row["images_per_second"] > 0
        assert row["mean_levels_off_stock"] < 0.01
        assert row["roofline_share"] == pytest.approx(
            row["images_per_second"] * row["gflops_per_image"] / row["product_gflops_per_second"]
        )
    assert rows["stock, same batch"]["over_stock_same_batch"] == 1
    bars = xml.etree.ElementTree.parse(out.with_suffix(".svg")).getroot()
    assert len(bars.findall("{http://www.w3.org/2000/svg}rect")) == 4


@pytest.mark.parametrize(("name", "millions"), [("sd15", 859.5), ("sd21", 865.9), ("sdxl", 2567.5)])
def test_architectures_have_the_published_number_of_weights(name: str, millions: float) -> None:
    """Counted without making them."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**ARCHITECTURES[name][0])
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
