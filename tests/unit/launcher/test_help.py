"""Help and reference page are complete and current."""

from pathlib import Path

import msgspec

from launcher.fields import fields_of, toml_text
from launcher.help import help_text, page
from launcher.run_file import RunFile


def test_every_field_has_a_description() -> None:
    """A key that nobody explains can't be used."""
    assert [field.path for field in fields_of(RunFile) if not field.description] == []


def test_help_names_every_field_of_the_config_types() -> None:
    """Compared with the types themselves, walked without launcher.fields."""
    text = help_text()
    for section in msgspec.structs.fields(RunFile):
        for field in msgspec.structs.fields(section.type):
            assert f"  --{section.name}.{field.name}\n" in text


def test_help_of_some_sections_leaves_out_the_others() -> None:
    """A generator's help is about generators."""
    text = help_text(("generator",))
    assert "--generator.batch_images" in text
    assert "--train.temperature" not in text


def test_reference_page_is_current(repository: Path) -> None:
    """Mend with `python -m launcher.help > docs/run-file.md`."""
    assert (repository / "docs" / "run-file.md").read_text("utf-8") == page()


def test_defaults_are_shown_as_toml() -> None:
    """Strings quoted, booleans lower case, nested lists and tables."""
    value = {"a": [1, 2.5, True], "b": 'x"y'}
    assert toml_text(value) == '{ a = [1, 2.5, true], b = "x\\"y" }'
