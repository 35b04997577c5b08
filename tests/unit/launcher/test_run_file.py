"""The run file's loader: values, overrides, and one line an error."""

import json
from pathlib import Path

import pytest

from launcher.run_file import load, split_overrides, to_tables
from protocol.errors import UserError


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, "utf-8")
    return path


def refused(path: Path | None, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_file_values_win_over_defaults_and_overrides_over_both(tmp_path: Path) -> None:
    """The last word is the command line's; what nobody names keeps the type's default."""
    path = write(tmp_path, "[train]\nlr = 1e-2\nweight_decay = 0.5\n")
    run_file = load(path, ["--train.lr", "1e-3", "--train.threads=2"])
    assert (run_file.train.lr, run_file.train.weight_decay, run_file.train.threads) == (1e-3, 0.5, 2)
    assert run_file.generator.connect == "tcp://127.0.0.1:5755"


def test_override_words_become_their_fields_type(tmp_path: Path) -> None:
    """Numbers, booleans, lists, tables, keys inside a table, and strings that look like numbers."""
    run_file = load(
        write(tmp_path, ""),
        [
            *("--generation.guidance", "[2, 3.5]"),
            *("--stream.insecure_bind", "true"),
            *("--run.name", "007"),
            *("--model.encoder", '{"model_type": "vit", "hidden_size": 64}'),
            *("--model.encoder.num_hidden_layers", "2"),
            *("--generation.negative_prompt", ""),
        ],
    )
    assert run_file.generation.guidance == (2.0, 3.5)
    assert run_file.stream.insecure_bind is True
    assert run_file.run.name == "007"
    assert run_file.model.encoder == {"model_type": "vit", "hidden_size": 64, "num_hidden_layers": 2}


def test_negative_values_and_equals_signs_are_values() -> None:
    """Only a word that begins with two dashes can't be a value of its own."""
    assert split_overrides(["--a.b", "-1", "--c.d=x=y", "--e.f="]) == [
        ("a.b", "-1"),
        ("c.d", "x=y"),
        ("e.f", ""),
    ]


@pytest.mark.parametrize("words", [["--train.lr"], ["--train.lr", "--train.threads", "1"]])
def test_override_without_value_is_refused(words: list[str]) -> None:
    """And not taken from the next option."""
    assert "--train.lr: no value" in refused(None, *words)


def test_unknown_key_names_path_and_nearest_key(tmp_path: Path) -> None:
    """In the file and on the command line alike."""
    path = write(tmp_path, "[train]\nbatch_group = 3\n")
    text = refused(path)
    assert str(path) in text
    assert "got train.batch_group;" in text
    assert "did you mean train.batch_groups?" in text
    assert "did you mean train.lr?" in refused(None, "--train.lrr", "1")


def test_unknown_section_names_the_nearest(tmp_path: Path) -> None:
    """A typing error in a section's name must not lose the whole section."""
    assert "did you mean train?" in refused(write(tmp_path, "[trian]\n"))
    assert "did you mean stream?" in refused(None, "--steam.bind", "x")


def test_section_that_is_a_value_is_refused(tmp_path: Path) -> None:
    """`train = 3` is not a section."""
    assert "expected a section [train], got 3" in refused(write(tmp_path, "train = 3\n"))


@pytest.mark.parametrize(
    ("line", "expected", "got"),
    [
        ("[train]\nlr = -1", "a number >= 0", "-1"),
        ("[train]\nlr = '1e-3'", "a number >= 0", '"1e-3"'),
        ("[train]\nlr = inf", "a number >= 0", "inf"),
        ("[train]\nlr = nan", "a number >= 0", "nan"),
        ("[augment]\nblur_sigma = [0.1, inf]", "a list of (a number, a number)", "[0.1, inf]"),
        ("[train]\nbatch_groups = 1.5", "an integer >= 2", "1.5"),
        (
            "[run]\nseed = 9223372036854775808",
            "an integer >= 0 and <= 9223372036854775807",
            "9223372036854775808",
        ),
        ("[run]\nname = 'a/b'", "a string matching", '"a/b"'),
        ("[generation]\nguidance = []", "a list of 1 to 64 x (a number >= 0 and <= 100)", "[]"),
        ("[generation]\nguidance = [1, 200]", "a list of 1 to 64 x", "[1, 200]"),
        ("[train]\nbetas = [0.9]", "a list of (a number >= 0 and <= 1, a number >= 0 and <= 1)", "[0.9]"),
        ("[train]\nprecision = 'half'", 'one of "auto", "bfloat16", "float16", "float32"', '"half"'),
        ("[stream]\ninsecure_bind = 1", "true or false", "1"),
        ("[model]\nencoder = 'resnet'", "a table", '"resnet"'),
    ],
)
def test_bad_value_names_key_expected_and_got(tmp_path: Path, line: str, expected: str, got: str) -> None:
    """Wrong types, values out of range, and numbers that are none."""
    text = refused(write(tmp_path, line + "\n"))
    section, key = line.split("\n")[0].strip("[]"), line.split("\n")[1].split(" =")[0]
    assert f"bad value of {section}.{key}: expected {expected}" in text
    assert f", got {got};" in text


def test_bad_override_names_the_option() -> None:
    """Not the file, which is innocent."""
    assert refused(None, "--train.lr", "fast").startswith("--train.lr: bad value of train.lr")


def test_key_below_a_plain_value_is_refused() -> None:
    """Only tables have keys of their own."""
    assert "train.lr is not a table" in refused(None, "--train.lr.x", "1")


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    """With the path in it."""
    assert str(tmp_path / "no.toml") in refused(tmp_path / "no.toml")
    assert "cannot read the run file" in refused(tmp_path)


def test_syntax_error_names_line_and_column(tmp_path: Path) -> None:
    """TOML's own message has both."""
    assert "line 2, column 6" in refused(write(tmp_path, "[train]\nlr = \n"))


def test_other_encodings_are_refused_with_the_offset(tmp_path: Path) -> None:
    """UTF-16 from an editor is the common case."""
    path = tmp_path / "run.toml"
    path.write_bytes("[run]\n".encode("utf-16"))
    assert "expected UTF-8, got byte 0xff at offset 0" in refused(path)


def test_settings_that_cannot_work_together_are_refused() -> None:
    """The trainer's limits are part of loading."""
    assert "stream.window_groups" in refused(None, "--stream.window_groups", "1")


def test_resolved_run_loads_again_to_the_same_run(tmp_path: Path) -> None:
    """run.json is a run file: what was resolved once resolves to itself."""
    run_file = load(None, ["--train.lr", "0.003", "--model.encoder.hidden_size", "48"])
    path = tmp_path / "run.json"
    path.write_text(json.dumps(to_tables(run_file)), "utf-8")
    assert load(path) == run_file


def test_json_that_is_no_table_is_refused(tmp_path: Path) -> None:
    """Broken JSON and a list alike."""
    path = tmp_path / "run.json"
    for text in ("[1]", "{"):
        path.write_text(text, "utf-8")
        assert "not JSON" in refused(path)
