"""`python3 -I -m quantguard.execute` in a container: an errand in by standard input, its outcome by standard output.

Both are the records of `quantguard.evidence.errands`; here, beside the programs, they are read and written by the
standard library alone. Nothing else goes in or out: no file, no network, no environment. A program can neither write to
this process's standard output nor look into it (it is not dumpable), nor end it (it is process 1).
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any, Final

from quantguard.execute.runner import Limits, Problem, everything_else, run_problem
from quantguard.execute.sealed import why_not_sealed

_MOST_BYTES: Final = 256 * 1024 * 1024
_PR_SET_DUMPABLE: Final = 4
_MOST_SECONDS: Final = 600
_MOST_MEBIBYTES: Final = 4096


def answer(text: bytes) -> dict[str, Any]:
    """The outcome's record, for the record that was read."""
    try:
        record = json.loads(text)
        asked = record["body"]
        problems = [Problem(*map(str, item)) for item in asked["items"]]
        settings = {name: int(value) for name, value in asked["settings"]}
        limits = Limits(min(settings["seconds"], _MOST_SECONDS), min(settings["mebibytes"], _MOST_MEBIBYTES))
        digest = str(record["inputs"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return _outcome("", [], f"what was asked cannot be read ({type(error).__name__})")
    if why := why_not_sealed():
        return _outcome(digest, [], f"generated programs are run in a sealed container only, and here {why}")
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        return _outcome(digest, [], "the process that runs the programs cannot be hidden from them")
    verdicts = [run_problem(problem, limits, everything_else) for problem in problems]
    return _outcome(digest, [{"word": verdict.word, "note": verdict.note} for verdict in verdicts], "")


def _outcome(digest: str, replies: list[dict[str, str]], problem: str) -> dict[str, Any]:
    body = {"errand": digest, "replies": replies, "problem": problem}
    return {"schema": "quantguard.errand-outcome/1", "inputs": digest, "body": body}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(sys.stdin.buffer.read(_MOST_BYTES))))
