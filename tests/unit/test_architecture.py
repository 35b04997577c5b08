"""Rules that hold the rooms apart, checked on the source."""

import ast
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = ("protocol", "monitoring", "generator_service", "trainer", "launcher", "benchmarks")
MAY_IMPORT = {
    "protocol": {"protocol"},
    "monitoring": {"protocol", "monitoring"},
    "generator_service": {"protocol", "monitoring", "generator_service"},
    "trainer": {"protocol", "monitoring", "trainer"},
    "launcher": {"protocol", "monitoring", "generator_service", "trainer", "launcher", "benchmarks"},
}
PROTOCOL_LIBRARIES = {"zmq", "msgspec", "xxhash", "numpy"}
FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60
ROOT = Path(__file__).resolve().parents[2]


def sources(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        yield from sorted((ROOT / room).rglob("*.py"))


def own_sources() -> list[Path]:
    paths = [*sources(*ROOMS, "tests")]
    # Data being prepared below examples/ is not part of the repository.
    paths += [path for path in sources("examples") if "work" not in path.relative_to(ROOT).parts]
    assert len(paths) > 20, "the search found too little to mean anything"
    return paths


def imported(path: Path) -> set[str]:
    """Top-level names of every import in a file, those inside functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


def comments(path: Path) -> Iterator[tuple[int, str]]:
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_rooms_import_only_what_their_arrow_allows(room: str) -> None:
    """Generator and trainer never import each other, and protocol imports nothing of ours."""
    checked = 0
    for path in sources(room):
        forbidden = imported(path) & set(ROOMS) - MAY_IMPORT[room]
        assert not forbidden, f"{path.relative_to(ROOT)} imports {sorted(forbidden)}"
        checked += 1
    assert checked


def test_protocol_imports_only_its_four_libraries() -> None:
    """So that any process can speak the protocol without torch."""
    for path in sources("protocol"):
        others = imported(path) - sys.stdlib_module_names - PROTOCOL_LIBRARIES - {"protocol"}
        assert not others, f"{path.relative_to(ROOT)} imports {sorted(others)}"


def test_nothing_unpickles() -> None:
    """No pickle on the wire, in a pool, in a checkpoint."""
    for path in own_sources():
        text = path.read_text("utf-8")
        assert not imported(path) & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called != "torch.load", f"{path}:{node.lineno}"
                assert not called.endswith(("recv_pyobj", "send_pyobj")), f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    "module",
    ["launcher.main", "launcher.run_file", "launcher.up", "trainer.config", "generator_service.config"],
)
def test_entry_and_config_modules_import_without_heavy_libraries(module: str) -> None:
    """`--help` and bad input answer at once, and Ctrl-C works from the first moment."""
    code = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'kornia', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_files_and_functions_are_short() -> None:
    """300 lines a file, 60 a function, entry points included; a test file may be longer."""
    long = []
    for path in own_sources():
        text = path.read_text("utf-8")
        if text.count("\n") > FILE_LINES_MAX and "tests" not in path.parts:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    long.append(f"{path.relative_to(ROOT)}: {node.name}, {length} lines")
    assert long == []


def test_every_ignore_names_its_rule_and_its_reason() -> None:
    """`# noqa: RULE - reason` and `# type: ignore[rule]  # reason`."""
    reasoned = re.compile(
        r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)*( - |  # )\S|# type: ignore\[[\w, -]+\]( - |  # )\S"
    )
    bare = []
    for path in own_sources():
        lines = path.read_text("utf-8").splitlines()
        for line, comment in comments(path):
            is_ignore = re.match(r"#\s*(noqa|type:\s*ignore|mypy:|ruff:)", comment)
            if is_ignore and not reasoned.search(lines[line - 1]):
                bare.append(f"{path.relative_to(ROOT)}:{line}: {comment}")
    assert bare == []


def test_test_files_have_unique_names() -> None:
    """A name says which module is meant."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def run_files() -> list[Path]:
    return [ROOT / "launcher" / "default.toml", *sorted((ROOT / "examples").rglob("*.toml"))]


@pytest.mark.parametrize("path", run_files(), ids=lambda path: path.stem)
def test_every_checked_in_run_file_loads(path: Path) -> None:
    """A renamed key can't leave a broken example behind."""
    from launcher.run_file import load

    assert load(path).run.name
