"""Programs against tests: what passes, what does not, and every way to pretend that we could think of."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from quantguard.execute.harness import UnplainError, decode, encode
from quantguard.execute.runner import Limits, Problem, Verdict, nothing_else, run_problem
from quantguard.execute.sealed import why_not_sealed

TESTS = "assert add(1, 2) == 3\nassert add([1], [2]) == [1, 2]\n"
GOOD = "def add(a, b):\n    return a + b\n"
LIMITS = Limits(20, 512)


def run(source: str, tests: str = TESTS, *, setup: str = "", seconds: int = 20) -> Verdict:
    return run_problem(Problem(source, "add", setup, tests), Limits(seconds, 512), nothing_else)


def test_a_right_program_passes_and_what_it_prints_is_nothing() -> None:
    assert run(GOOD) == Verdict("passed")
    assert run('print("{\\"verdict\\": [\\"failed\\", \\"\\"]}")\n' + GOOD + "\nprint('x' * 10**6)") == Verdict(
        "passed"
    )


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("def add(a, b):\n    return a - b\n", "AssertionError"),
        ("def plus(a, b):\n    return a + b\n", "KeyError"),
        ("def add(a, b)\n    return a + b\n", "SyntaxError"),
        ("", "KeyError"),
        ("def add(a, b):\n    raise ValueError('no')\n", "ValueError: no"),
        ("import torch\n" + GOOD, "ModuleNotFoundError"),
    ],
)
def test_a_wrong_program_fails_and_why_is_told(source: str, note: str) -> None:
    verdict = run(source)
    assert verdict.word == "failed"
    assert note in verdict.note


OTHER = "def add(a, b):\n    return 0\n"
EQUAL = "    def __eq__(self, other): return True\n    __hash__ = None\n"
PASSED = 'import os\nline = b\'{"verdict": ["passed", ""]}\\n\'\n'
PRETENDING = {
    "exits with success": "import sys\nsys.exit(0)",
    "exits at once with success": "import os\nos._exit(0)",
    "exits in the call": "import os\ndef add(a, b):\n    os._exit(0)",
    "raises SystemExit in the call": "def add(a, b):\n    raise SystemExit(0)",
    "says that it passed": "def add(a, b):\n    print('passed')\n    return 'passed'",
    "an int equal to everything": f"class E(int):\n{EQUAL}def add(a, b):\n    return E(7)",
    "an object equal to everything": f"class E:\n{EQUAL}def add(a, b):\n    return E()",
    "a list equal to everything": f"class E(list):\n{EQUAL}def add(a, b):\n    return E()",
    "takes assertions away": f"import builtins\nbuiltins.AssertionError = builtins.Exception = None\n{OTHER}",
    "writes a verdict to every descriptor": (
        f"{PASSED}for fd in range(64):\n    try: os.write(fd, line)\n    except OSError: pass\n{OTHER}"
    ),
    "writes verdicts in the call": (
        f"{PASSED}def add(a, b):\n    for fd in range(64):\n"
        "        try: os.write(fd, line * 100)\n        except OSError: pass\n    return 0"
    ),
    "writes what is not JSON": (
        "import os\ndef add(a, b):\n    for fd in range(64):\n"
        "        try: os.write(fd, b'[' * 10**5 + b'\\n')\n        except OSError: pass\n"
    ),
    "ends its siblings": (
        "import os, signal\nparent = f'PPid:\\t{os.getppid()}\\n'\n"
        "for name in filter(str.isdigit, os.listdir('/proc')):\n    try:\n"
        "        ours = b'harness.py' in open(f'/proc/{name}/cmdline', 'rb').read()\n"
        "        if ours and parent in open(f'/proc/{name}/status').read() and int(name) != os.getpid():\n"
        f"            os.kill(int(name), signal.SIGKILL)\n    except OSError: pass\n{OTHER}"
    ),
    "looks for the tests in its frames": (
        "import sys, gc\ndef add(a, b):\n    frame, texts = sys._getframe(), []\n    while frame:\n"
        "        texts += [str(frame.f_locals), str(frame.f_globals)]\n        frame = frame.f_back\n"
        "    texts += [str(o) for o in gc.get_objects() if isinstance(o, (str, dict))]\n"
        "    needle = chr(97) + 'ssert ad' + chr(100)\n    return a + b if needle in ' '.join(texts) else 0"
    ),
}


@pytest.mark.parametrize("how", PRETENDING)
def test_a_program_that_only_pretends_does_not_pass(how: str) -> None:
    assert run(PRETENDING[how]).word == "failed"


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time\ntime.sleep(600)",
        "def add(a, b):\n    while True: pass",
        "import os\nos.kill(os.getpid(), 19)  # stops itself",
    ],
)
def test_a_program_that_does_not_end_is_ended(source: str) -> None:
    assert run(source, seconds=3).word == "timeout"


def test_a_program_that_takes_all_memory_or_says_too_much_fails() -> None:
    assert run("x = bytearray(2**31)\n" + GOOD).note.startswith("MemoryError")
    assert run("def add(a, b):\n    return 'x' * 3_000_000").word == "failed"
    assert run("f = open('big', 'wb')\nf.write(b'x' * 2**26)\n" + GOOD).word == "failed"


def test_what_it_starts_in_its_group_is_ended_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"import time; time.sleep(4); open({str(mark)!r}, 'w')"
    source = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {code!r}])\n{GOOD}"
    assert run(source) == Verdict("passed")
    assert run("import time\ntime.sleep(5)\n" + GOOD).word == "passed"
    assert not mark.exists()


def test_it_has_no_environment_and_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "s3cret")
    told = "sorted(os.environ) + os.listdir('.') + [os.getcwd() == os.environ['HOME']]"
    source = f"import os\ndef add(a, b):\n    return {told}"
    assert run(source, "assert set(add(1, 2)) <= {'PATH', 'HOME', 'TMPDIR', 'LC_CTYPE', True}").word == "passed"


@pytest.mark.parametrize(
    ("tests", "note"),
    [
        ("assert add(", "SyntaxError"),
        ("assert True", "never call"),
        ("add(open, 1)", "a value of type"),
        ("add(object(), 1)", "a value of type object"),
    ],
)
def test_tests_that_cannot_be_run_say_nothing_of_the_program(tests: str, note: str) -> None:
    verdict = run(GOOD, tests)
    assert verdict.word == "broken"
    assert note in verdict.note


def test_helpers_of_the_setup_are_there_for_the_tests_alone_and_exceptions_keep_their_kind() -> None:
    tests = "assert twice(add(1, 2)) == 6\ntry:\n    add(1, 'a')\n    assert False\nexcept TypeError:\n    pass\n"
    assert run(GOOD, tests, setup="def twice(x):\n    return 2 * x\n") == Verdict("passed")
    assert run("def add(a, b):\n    return twice(a)", tests, setup="def twice(x):\n    return 2 * x\n").word == "failed"


VALUES: list[object] = [
    None, True, 0, -(10**400), 1.5, math.inf, "", "a\ud800\x00", b"\xff", [], (), {}, set(), frozenset({1}), 1 + 2j,
    {(1, "a"): [{"b": {2.0, None}}]}, [[[]]], float("nan"),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_pass_unchanged(value: object) -> None:
    again = decode(encode(value))
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def test_what_is_not_plain_does_not_pass() -> None:
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    for value in (object(), deep, print, iter([])):
        with pytest.raises(UnplainError):
            encode(value)


def test_this_machine_is_no_sealed_container() -> None:
    assert "not process 1" in why_not_sealed()
