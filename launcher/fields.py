"""What a run file may hold, read from the config types: the source of `--help`, its page and error texts."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct
from msgspec import inspect as types


class Field(Struct, frozen=True, kw_only=True):
    """One key of a run file. `kind` says in words which values it takes; `default` is plain TOML data."""

    section: str
    name: str
    kind: str
    default: Any
    description: str
    free_text: bool

    @property
    def path(self) -> str:
        """The key as it is written on the command line: `train.lr`."""
        return f"{self.section}.{self.name}"


def fields_of(config: type[Struct]) -> Iterator[Field]:
    """Every key of every section of `config`, in the order of declaration."""
    for section in _struct(types.type_info(config)).fields:
        for field in _struct(section.type).fields:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            bare, description = _strip(field.type)
            yield Field(
                section=section.encode_name,
                name=field.encode_name,
                kind=describe(bare),
                default=msgspec.to_builtins(default),
                description=description,
                free_text=isinstance(bare, types.StrType | types.LiteralType),
            )


def describe(kind: types.Type) -> str:
    """`a number >= 0`, `one of "a", "b"`, `a list of 1 to 64 x (a number >= 0)`."""
    bare, _ = _strip(kind)
    match bare:
        case types.BoolType():
            return "true or false"
        case types.IntType():
            return "an integer" + _bounds(bare)
        case types.FloatType():
            return "a number" + _bounds(bare)
        case types.LiteralType():
            return "one of " + ", ".join(toml_text(value) for value in bare.values)
        case types.StrType():
            pattern = f" matching {bare.pattern}" if bare.pattern else ""
            longest = f" of at most {bare.max_length} characters" if bare.max_length else ""
            return "a string" + pattern + longest
        case types.TupleType():
            return "a list of (" + ", ".join(describe(item) for item in bare.item_types) + ")"
        case types.VarTupleType():
            least, most = bare.min_length or 0, bare.max_length or "any number"
            return f"a list of {least} to {most} x ({describe(bare.item_type)})"
        case types.DictType() | types.StructType():
            return "a table"
        case types.UnionType():
            return " or ".join(map(describe, bare.types))
        case _:
            raise TypeError(f"no words for the config type {bare!r}: add them here")


def toml_text(value: Any) -> str:
    """Plain data as it would stand in a run file."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {toml_text(item)}" for key, item in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(toml_text(item) for item in value) + "]"
        case bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def _bounds(number: types.IntType | types.FloatType) -> str:
    names = (("gt", "> "), ("ge", ">= "), ("lt", "< "), ("le", "<= "))
    parts = [
        sign + _exact(getattr(number, name)) for name, sign in names if getattr(number, name) is not None
    ]
    return " " + " and ".join(parts) if parts else ""


def _exact(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _strip(kind: types.Type) -> tuple[types.Type, str]:
    """A type without its metadata, and the description the metadata held."""
    if isinstance(kind, types.Metadata):
        return kind.type, str((kind.extra_json_schema or {}).get("description", ""))
    return kind, ""


def _struct(kind: types.Type) -> types.StructType:
    bare, _ = _strip(kind)
    assert isinstance(bare, types.StructType), f"a section must be a Struct, got {bare!r}"
    return bare
