"""Rules of the house that no tool checks."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("quantguard", "tests", "benchmarks", "action") for path in (ROOT / folder).rglob("*.py")
)
MAX_FILE, MAX_FUNCTION = 350, 50
EDGES = ("quantguard/cli/",)  # with hooks/ and action/, the only places that talk to the process they run in


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_and_no_function_has_two_subjects(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions(ast.parse(text)) if f.end_lineno is not None}
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION} == {}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.is_relative_to(ROOT / "quantguard")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_only_the_edge_reads_the_environment_or_exits(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    if relative.startswith(EDGES) or relative == "quantguard/registry/launcher.py":  # a process of its own
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    assert used & {"os.environ", "os.getenv", "sys.exit", "sys.argv"} == set()


def test_rooms_stay_light_to_import() -> None:
    """A room's `__init__` is its description; importing one must not import the room."""
    for init in (ROOT / "quantguard").glob("*/__init__.py"):
        body = ast.parse(init.read_text(encoding="utf-8")).body
        assert len(body) == 1, f"{init} holds more than a docstring"
        assert isinstance(body[0], ast.Expr), init


def test_no_pickle_and_no_remote_code() -> None:
    """Nothing here unpickles, and nothing trusts remote code."""
    for path in (ROOT / "quantguard").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}, path
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), path


def test_what_is_checked_in_stays_small() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    sizes = {
        name.decode(): (ROOT / name.decode()).stat().st_size
        for name in listed
        if name and (ROOT / name.decode()).is_file()
    }
    written = {".py", ".md", ".yaml", ".yml"}  # by people, and not built by a command that could build it again
    built = {name: size for name, size in sizes.items() if Path(name).suffix not in written}
    assert sum(built.values()) < 18_000_000
    assert {name: size for name, size in sizes.items() if size > 2_000_000} == {}
