"""Programs that tests need beside Python: absent on somebody's machine they skip, in CI they fail."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(program: str, package: str, variable: str) -> NoReturn:
    """What a test does without `program`, which `.ci/run` installs as Debian's `package` before it sets `variable`."""
    message = f"no {program} here (Debian: apt-get install {package})"
    if os.environ.get(variable):
        pytest.fail(message)
    pytest.skip(message)
