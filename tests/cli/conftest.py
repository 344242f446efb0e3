from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from quantguard.cli.main import main
from tests.command import Ran
from tests.stories import Kind, write_policy, write_story

Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """`quantguard ARGUMENTS` inside this process, which has imported torch already.

    Not sealed: this process could not get its network back. What sealing does is told in test_sealed.
    """
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("quantguard.cli.environment.seal_network", lambda: False)

    def call(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["quantguard", *map(str, arguments)])
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            os.environ.clear()
            os.environ.update(environment)
        captured = capsys.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Kind, Path]:
    """The three tiny models, to be read only."""
    root = tmp_path_factory.mktemp("cli-models")
    return {kind: write_story(kind, root / kind.value) for kind in Kind}


@pytest.fixture(scope="session")
def policy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy that tells them apart."""
    return write_policy(tmp_path_factory.mktemp("cli-policy"))
