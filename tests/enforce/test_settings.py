"""The address of the store, and a server that is started with a wrong one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quantguard.core.errors import UsageError
from quantguard.registry.enforce.settings import store_settings
from tests.enforce.world import made_settings

GOOD = "quantguard://?db=postgresql%2Bpsycopg2://u:p%26w@h/d&policy=/p.yaml&keys=/keys&environment=production"


def test_an_address_is_read_with_its_plus_signs_and_shows_no_password() -> None:
    settings = store_settings(GOOD.replace("%2B", "+"), default_environment="default")
    assert settings == store_settings(GOOD, default_environment="default")
    assert settings.db == "postgresql+psycopg2://u:p&w@h/d"
    assert (settings.policy, settings.keys, settings.environment) == (Path("/p.yaml"), Path("/keys"), "production")
    assert "p&w" not in repr(settings)
    short = store_settings("quantguard://?db=sqlite:////m.db&policy=/p.yaml&keys=/k", default_environment="default")
    assert (short.db, short.environment) == ("sqlite:////m.db", "default")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("quantguard://?db=x&policy=/p", "lacks keys"),
        ("quantguard://?db=x&policy=/p&keys=", "lacks keys"),
        (f"{GOOD}&polcy=/q", "did you mean policy"),
        (f"{GOOD}&policy=/q", "policy twice"),
        ("quantguard://?db=x&policy=p.yaml&keys=/k", "relative path"),
        ("quantguard://host?db=x&policy=/p&keys=/k", "no address"),
        ("sqlite:///secret.db", "no address"),
    ],
)
def test_an_address_that_is_none_is_refused_with_what_to_write(address: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        store_settings(address, default_environment="default")
    assert said in str(caught.value)
    assert "p&w" not in str(caught.value)
    assert caught.value.remedy


def test_a_server_whose_policy_cannot_be_read_does_not_start(tmp_path: Path) -> None:
    settings = made_settings(tmp_path)
    address = settings.uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    document = json.loads(settings.policy.path.read_text(encoding="utf-8"))
    settings.policy.path.write_text(json.dumps({**document, "nmae": "x"}), encoding="utf-8")
    command = [sys.executable, "-m", "mlflow", "server", "--port", "0", "--backend-store-uri"]
    command += [f"sqlite:///{tmp_path / 'mlflow.db'}", "--registry-store-uri", address]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert ended.returncode != 0
    assert str(settings.policy.path) in ended.stderr
    assert "did you mean name" in ended.stderr
