"""The run file as flat hyperparameters."""

from launcher.run_file import RunFile, to_tables
from trainer.trackers.hyperparameters import hyperparameters_of


def test_every_key_of_a_run_file_has_a_plain_value_under_its_dotted_name() -> None:
    """But for those of the sections that say only who watches."""
    tables = to_tables(RunFile())
    found = hyperparameters_of(tables)
    assert found["train.objective"] == "stablerep"
    assert found["train.betas"] == "[0.9, 0.98]"
    assert found["model.encoder.model_type"] == "resnet"
    assert found["generation.views"] == tables["generation"]["views"]
    assert {type(value) for value in found.values()} <= {bool, int, float, str}
    assert not any(name.startswith(("monitor.", "log.")) for name in found)


def test_what_has_no_value_is_left_out() -> None:
    """An empty text is a value."""
    assert hyperparameters_of({"a": {"b": None, "c": "", "d": {}, "e": [None]}}) == {
        "a.c": "",
        "a.e": "[null]",
    }
