"""Reads a run file: one TOML file, then environment variables, then the command line; every value checked,
one line an error. A run.json that a run left behind is read as well.

    file (TOML) ─tables→ overrides ─tables→ msgspec.convert ─RunFile→ trainer.limits.check

Overrides are converted to their field's type first, so that `--train.lr 1e-3` is a number; the file itself is
held to TOML's own types.
"""

import difflib
import json
import math
import os
import re
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from generator_service.config import GeneratorConfig
from launcher.environment import environment_overrides
from launcher.errors import RunFileError
from launcher.fields import Field, fields_of, toml_text
from monitoring.address import parse_address
from trainer.config import TrainerConfig
from trainer.limits import check

DEFAULT_PATH = Path(__file__).with_name("default.toml")
HELP = "`streamrep train --help` lists every key"
Tables = dict[str, Any]


class RunFile(TrainerConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every section of a run file: the trainer's, and the generator's."""

    generator: GeneratorConfig = GeneratorConfig()


def load(
    path: Path | None, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> RunFile:
    """The run that `path`, `environment` and `overrides` (`--section.key value` words) describe, the last
    of them winning.

    Without a path it is the embedded run, launcher/default.toml. Raises UserError for a file that can't be
    read, an unknown key, a value of a wrong type or out of range, or settings that can't work together.
    """
    tables = _read(path or DEFAULT_PATH)
    where = str(path) if path else "the embedded run file"
    _refuse_unknown_keys(tables, where)
    places = {}
    for key, text, variable in environment_overrides(environment):
        places[_set_override(tables, key, text, variable, "environment")] = variable
    for key, text in split_overrides(overrides):
        places[_set_override(tables, key, text, f"--{key}", "command line")] = f"--{key}"
    run_file = _convert(tables, where, places)
    check(run_file)
    if run_file.generator.monitor_bind:
        parse_address(run_file.generator.monitor_bind, "generator.monitor_bind")
    return run_file


def to_tables(run_file: RunFile) -> Tables:
    """The resolved run as plain data, every default filled in: what is saved as run.json."""
    tables: Tables = msgspec.to_builtins(run_file)
    return tables


def split_overrides(words: Sequence[str]) -> list[tuple[str, str]]:
    """`--a.b 1 --c.d=2` as (key, text) pairs, in order. Raises UserError for a key without a value."""
    pairs = []
    rest = iter(words)
    for word in rest:
        key, equals, text = word.removeprefix("--").partition("=")
        value = text if equals else next(rest, None)
        if value is None or (not equals and value.startswith("--")):
            got = "nothing" if value is None else value
            raise RunFileError(
                "no value", expected="a value", got=got, where=f"--{key}", mend=f"write --{key} VALUE"
            )
        pairs.append((key, value))
    return pairs


def _read(path: Path) -> Tables:
    """The file's tables. Raises UserError when it is missing, not UTF-8, or neither TOML nor a run.json."""
    try:
        text = path.read_bytes().decode("utf-8")
        return _json_tables(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise RunFileError(
            "cannot read the run file",
            expected="a TOML file",
            got=error.strerror or type(error).__name__,
            where=str(path),
            mend="check the path, or leave it out to use the embedded run",
        ) from error
    except UnicodeDecodeError as error:
        raise RunFileError(
            "not a text file",
            expected="UTF-8",
            got=f"byte 0x{error.object[error.start]:02x} at offset {error.start}",
            where=str(path),
            mend="save the file as UTF-8",
        ) from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        language = "JSON" if path.suffix == ".json" else "TOML 1.0"
        raise RunFileError(
            f"not {language}", expected=language, got=str(error), where=str(path), mend="mend that line"
        ) from error


def _json_tables(text: str) -> Tables:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise json.JSONDecodeError("not an object of sections", text, 0)
    return value


def _refuse_unknown_keys(tables: Tables, where: str) -> None:
    known: dict[str, list[str]] = {}
    for field in fields_of(RunFile):
        known.setdefault(field.section, []).append(field.name)
    for section, table in tables.items():
        if section not in known:
            raise _unknown(f"[{section}]", "section", section, known, where)
        if not isinstance(table, dict):
            raise RunFileError(
                f"{section} is not a table",
                expected=f"a section [{section}]",
                got=toml_text(table),
                where=where,
                mend=f"write [{section}] and its keys below it",
            )
        for name in table:
            if name not in known[section]:
                raise _unknown(f"{section}.{name}", "key", name, known[section], where, section)


def _unknown(
    shown: str, what: str, name: str, known: Iterable[str], where: str, section: str = ""
) -> RunFileError:
    near = difflib.get_close_matches(name, list(known), n=1)
    expected = f"a {what} of {f'[{section}]' if section else 'a run file'}"
    mend = f"did you mean {section + '.' if section else ''}{near[0]}?" if near else HELP
    return RunFileError(f"unknown {what}", expected=expected, got=shown, where=where, mend=mend)


def _set_override(tables: Tables, key: str, text: str, shown: str, where: str) -> str:
    """Puts one override into the tables; returns the path of the field it belongs to. People know it as
    `shown`."""
    by_path = {field.path: field for field in fields_of(RunFile)}
    section, name, *deeper = key.split(".")
    field = by_path.get(f"{section}.{name}")
    if field is None:
        names = [other.name for other in by_path.values() if other.section == section]
        if not names:
            sections = {other.section for other in by_path.values()}
            raise _unknown(shown, "section", section, sections, where)
        raise _unknown(shown, "key", name, names, where, section)
    if deeper and not isinstance(field.default, dict):
        raise RunFileError(
            f"{field.path} is not a table",
            expected=field.kind,
            got=shown,
            where=where,
            mend=f"write --{field.path}",
        )
    table = tables.setdefault(section, {})
    if not deeper:
        table[name] = text if field.free_text else _plain(text)
        return field.path
    table = table.setdefault(name, dict(field.default))
    for part in deeper[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RunFileError(
                f"{part} is not a table",
                expected="a table",
                got=toml_text(table),
                where=shown,
                mend="shorten the key",
            )
    table[deeper[-1]] = _plain(text)
    return field.path


def _plain(text: str) -> Any:
    """A value written as TOML (`1e-3`, `[2.0, 3.0]`, `{ a = 1 }`) or JSON; anything else is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text


def _convert(tables: Tables, where: str, places: dict[str, str]) -> RunFile:
    """Checked structs. `places` names, by field path, the override a value came from."""
    fields = {field.path: field for field in fields_of(RunFile)}
    for section, table in tables.items():
        for name, value in table.items():
            path = f"{section}.{name}"
            if not _is_finite(value):
                raise _bad_value(fields[path], value, places.get(path, where))
    try:
        return msgspec.convert(tables, RunFile)
    except msgspec.ValidationError as error:
        # Sections and keys are known by now, so what is left is a value: msgspec ends with its path.
        section, name = re.findall(r"`\$\.(\w+)\.(\w+)", str(error))[0]
        path = f"{section}.{name}"
        raise _bad_value(fields[path], tables[section][name], places.get(path, where)) from error


def _bad_value(field: Field, value: Any, where: str) -> RunFileError:
    return RunFileError(
        f"bad value of {field.path}",
        expected=field.kind,
        got=textwrap.shorten(toml_text(value), 100, placeholder=" ..."),
        where=where,
        mend=f"the default is {toml_text(field.default)}" if field.default != "" else HELP,
    )


def _is_finite(value: Any) -> bool:
    match value:
        case dict():
            return all(_is_finite(item) for item in value.values())
        case list():
            return all(_is_finite(item) for item in value)
        case float():
            return math.isfinite(value)
        case _:
            return True
