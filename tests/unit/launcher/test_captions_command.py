"""`streamrep captions`, from its words to its lines."""

from pathlib import Path

import pytest

from launcher.captions import SHOWN, description
from launcher.main import main
from trainer.captions import Captions


def test_captions_of_a_run_are_counted_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The column as it is written on a command line, by number and by name."""
    table = tmp_path / "c.tsv"
    table.write_text("caption\tn\na dog\t1\na cat\t2\na dog\t3\n")
    assert main(["captions", "--captions.source", str(table), "--captions.column", "caption"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == "2 captions (3 read, 1 duplicates left out)"
    assert main(["captions", "--captions.source", str(table), "--captions.column", "2"]) == 0
    assert "4 captions (4 read)" in capsys.readouterr().out


@pytest.mark.parametrize("column", ["0", "-1", "1.5", "[1]"])
def test_a_column_is_a_name_or_a_number_from_one(column: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Anything else is refused with the key."""
    assert main(["captions", f"--captions.column={column}"]) == 2
    assert "captions.column" in capsys.readouterr().err


def test_bad_captions_are_one_line_and_exit_code_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As every bad input."""
    path = tmp_path / "c.csv"
    path.write_bytes(b"a\n\xff\n")
    assert main(["captions", "--captions.source", str(path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.parametrize("count", [1, SHOWN, SHOWN + 1, 1000])
def test_few_captions_are_shown_from_beginning_to_end(count: int) -> None:
    """However many there are."""
    lines = description(Captions(f"caption {i}" for i in range(count)))
    assert len(lines) <= 2 + SHOWN
    assert lines[2].endswith("1  'caption 0'")
