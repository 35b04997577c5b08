"""Run-file keys from environment variables."""

from pathlib import Path

import pytest

from launcher.environment import environment_overrides, variable_of
from launcher.fields import fields_of
from launcher.run_file import RunFile, load
from protocol.errors import UserError


def test_every_key_has_a_variable_of_its_own() -> None:
    """There and back, for all fields that there are."""
    paths = [field.path for field in fields_of(RunFile)]
    environment = {variable_of(path): "x" for path in paths}
    assert len(environment) == len(paths)
    assert {key for key, _, _ in environment_overrides(environment)} == set(paths)


def test_variables_win_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    """Each with its field's type; what is not ours is left alone."""
    path = tmp_path / "run.toml"
    path.write_text("[train]\nlr = 1e-2\nweight_decay = 0.5\nthreads = 3\n", "utf-8")
    environment = {
        "STREAMREP_TRAIN__LR": "1e-3",
        "STREAMREP_TRAIN__THREADS": "2",
        "STREAMREP_GENERATION__GUIDANCE": "[2, 3.5]",
        "STREAMREP_RUN__NAME": "007",
        "STREAMREP_MODEL__ENCODER": '{"model_type": "vit"}',
        "STREAMREP_MODEL__ENCODER__NUM_HIDDEN_LAYERS": "2",
        "STREAMREP_DEVICE": "not a key",
        "PATH": "/bin",
    }
    run_file = load(path, ["--train.threads", "4"], environment)
    assert (run_file.train.lr, run_file.train.weight_decay, run_file.train.threads) == (1e-3, 0.5, 4)
    assert run_file.generation.guidance == (2.0, 3.5)
    assert run_file.run.name == "007"
    assert run_file.model.encoder == {"model_type": "vit", "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("STREAMREP_TRAIN__LRR", "1", "environment: unknown key: expected a key of [train], got STREAMREP_"),
        ("STREAMREP_TRIAN__LR", "1", "did you mean train?"),
        ("STREAMREP_TRAIN__LR", "fast", "STREAMREP_TRAIN__LR: bad value of train.lr: expected a number"),
        ("STREAMREP_TRAIN__LR__X", "1", "environment: train.lr is not a table"),
    ],
)
def test_errors_name_the_variable(variable: str, text: str, told: str) -> None:
    """A typing error can't be lost among the other variables."""
    with pytest.raises(UserError) as caught:
        load(None, [], {variable: text})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_process_environment_is_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container sets it."""
    monkeypatch.setenv("STREAMREP_RUN__MAX_STEPS", "321")
    assert load(None).run.max_steps == 321
