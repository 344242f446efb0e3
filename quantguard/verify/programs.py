"""The program in an answer to a problem. Nothing is run here: text in, text out."""

from __future__ import annotations

import ast
from typing import Final

from quantguard.core.problems import CodeProblem, head_of
from quantguard.verify.detectors.python_code import python_code

_AGAIN: Final = ("def ", "async def ", "class ", "import ", "from ", "@")


def program(problem: CodeProblem, answer: str) -> str:
    """What is run for `answer`.

    Fenced Python where there is any, after the prompt's imports and helpers. Else, where the prompt is the head of a
    function, the prompt continued by the answer up to the first line that stands at the margin: a completion model
    goes on after the function. Else the whole answer. Text that is no Python is run too, and fails there.
    """
    fenced = python_code(answer)
    if "```" in answer and fenced is not None:
        return f"{problem.setup}\n{fenced.text}"
    if not head_of(problem.prompt):
        return fenced.text if fenced is not None else answer
    if _repeats(answer, problem.entry):
        return f"{problem.setup}\n{fenced.text if fenced is not None else answer}"
    lines = answer.split("\n")
    kept = lines[:1]
    for line in lines[1:]:
        if line[:1].strip():
            break
        kept.append(line)
    return problem.prompt + "\n".join(kept)


def _repeats(answer: str, entry: str) -> bool:
    """Whether it defines the function itself instead of going on inside of it."""
    if not answer.lstrip().startswith(_AGAIN) or answer[:1].isspace():
        return False
    code = python_code(answer)
    tree = ast.parse(code.text) if code is not None else ast.Module(body=[], type_ignores=[])
    return any(isinstance(node, ast.FunctionDef) and node.name == entry for node in tree.body)
