"""The benchmark of decoding, small."""

import json
from pathlib import Path

import pytest

from benchmarks.decode import main


@pytest.mark.timeout(300)
def test_it_fills_decodes_and_trains(tmp_path: Path) -> None:
    """Every size is decoded, the trainer's waiting is a share, and the exit code is the target's."""
    out = tmp_path / "decode.json"
    code = main(["--steps", "60", "--sizes", "32,64", "--seconds", "0.2", "--out", str(out)])
    result = json.loads(out.read_text())
    assert [row["size"] for row in result["decoding"]] == [32, 64]
    assert all(row["images_per_second"] > 0 and row["picture_bytes"] > 0 for row in result["decoding"])
    trained = result["training"]
    assert trained["steps"] == 40
    assert 0 <= trained["waiting_share"] < 1
    assert code == (0 if trained["waiting_share"] < 0.01 else 1)


def test_the_size_that_is_trained_on_has_to_be_decoded(capsys: pytest.CaptureFixture[str]) -> None:
    """One line of argparse, and nothing is filled."""
    with pytest.raises(SystemExit) as ended:
        main(["--sizes", "32"])
    assert ended.value.code == 2
    assert "64 has to be among them" in capsys.readouterr().err
