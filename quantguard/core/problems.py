"""Problems for generated programs: one JSON object a line, as HumanEval, MBPP or this project writes them.

    own        id, prompt, entry_point, tests
    HumanEval  task_id, prompt, entry_point, test (which defines `check`); canonical_solution is not used
    MBPP       task_id, text or prompt, code, test_list, and test_setup_code or test_imports; of code only the names

Sources of the fields: Chen et al., arXiv 2107.03374; Austin et al., arXiv 2108.07732. Nothing of a file is run here.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from quantguard.core.errors import ProblemsError

BUILTIN_PROBLEMS: Final = Path(__file__).parent / "problems" / "code.jsonl"
_MAX_BYTES: Final = 64 * 1024 * 1024
_MAX_PROBLEMS: Final = 10_000
_REMEDY: Final = 'each line is {"id", "prompt", "entry_point", "tests"}, all texts, or as HumanEval or MBPP have it'


@dataclass(frozen=True, slots=True)
class CodeProblem:
    name: str
    prompt: str  # what the model is asked: the head of a function to complete, or words
    entry: str  # the function that the tests call, an identifier
    setup: str  # run before the tests, and before an answer that repeats the head: imports, helper functions
    tests: str  # Python that raises where the function is wrong


def read_problems(path: Path) -> tuple[CodeProblem, ...]:
    """Read a JSONL of problems; blank lines are skipped.

    Raises:
        ProblemsError: absent, empty, too large, not JSON, two of one name, or a row of none of the shapes (line named).
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ProblemsError(f"larger than {_MAX_BYTES} bytes", path=path, remedy="use fewer problems")
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise ProblemsError("No such file", path=path, remedy="check the path of the problems") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemsError(f"cannot be read as UTF-8 text: {error}", path=path, remedy=_REMEDY) from error
    problems: dict[str, CodeProblem] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            problem = _problem(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
            raise ProblemsError(f"line {number}: {_told(error)}", path=path, remedy=_REMEDY) from error
        if problem.name in problems:
            raise ProblemsError(f"line {number}: {problem.name!r} is there twice", path=path, remedy="rename one")
        problems[problem.name] = problem
    if not 0 < len(problems) <= _MAX_PROBLEMS:
        raise ProblemsError(f"holds {len(problems)} problems", path=path, remedy=f"expected 1 to {_MAX_PROBLEMS}")
    return tuple(problems.values())


def problems_digest(problems: Sequence[CodeProblem]) -> str:
    """`sha256:HEX` over the problems in order."""
    rows = json.dumps([[p.name, p.prompt, p.entry, p.setup, p.tests] for p in problems], ensure_ascii=True)
    return "sha256:" + hashlib.sha256(rows.encode()).hexdigest()


def head_of(prompt: str) -> str:
    """`prompt` as Python of its own, where it is the head of a function that is to be completed; otherwise nothing."""
    whole = f"{prompt.rstrip()}\n    pass\n"
    return whole if _parses(whole) else ""


def _told(error: Exception) -> str:
    return f"the key {error} is missing" if isinstance(error, KeyError) else str(error)[:200]


def _problem(row: Any) -> CodeProblem:
    if not isinstance(row, dict):
        raise TypeError("not an object")
    if "test_list" in row:
        return _mbpp(row)
    name = _text(row, "id" if "id" in row else "task_id")
    prompt, entry = _text(row, "prompt"), _text(row, "entry_point")
    tests = _text(row, "tests") if "tests" in row else f"{_text(row, 'test')}\n\ncheck({entry})\n"
    return _checked(CodeProblem(name, prompt, entry, head_of(prompt), tests))


def _mbpp(row: dict[str, Any]) -> CodeProblem:
    tests = [str(test) for test in row["test_list"]]
    setup = row.get("test_setup_code", "") or "\n".join(row.get("test_imports", ()))
    defined = {node.name for node in ast.walk(ast.parse(_text(row, "code"))) if isinstance(node, ast.FunctionDef)}
    called = [
        node.func.id
        for node in ast.walk(ast.parse("\n".join(tests)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined
    ]
    if not called:
        raise ValueError("no test calls a function of its code")
    words = _text(row, "text" if "text" in row else "prompt")
    prompt = f"{words}\nYour code should pass these tests:\n" + "\n".join(tests) + "\n"
    return _checked(CodeProblem(str(row["task_id"]), prompt, called[0], str(setup), "\n".join(tests) + "\n"))


def _checked(problem: CodeProblem) -> CodeProblem:
    if not problem.entry.isidentifier():
        raise ValueError(f"{problem.entry!r} is no name of a function")
    if not _parses(problem.tests) or not _parses(problem.setup):
        raise ValueError("the tests are no Python")
    return problem


def _text(row: dict[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{key} must be a text that is not empty")
    return value


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
