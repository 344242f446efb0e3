"""What the address of the store says: `quantguard://?db=URI&policy=FILE&keys=FILE-OR-FOLDER&environment=WORD`.

It may hold the database's password, so give it to `mlflow server` in the variable MLFLOW_REGISTRY_STORE_URI, which
MLflow reads itself, and not on the command line.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from quantguard.core.errors import UsageError
from quantguard.registry.errors import redacted

SCHEME: Final = "quantguard"
_REQUIRED: Final = ("db", "policy", "keys")
_KNOWN: Final = (*_REQUIRED, "environment")
_EXAMPLE: Final = (
    "quantguard://?db=sqlite:////srv/mlflow.db&policy=/etc/quantguard/policy.yaml&keys=/etc/quantguard/keys"
    "&environment=production"
)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    db: str = field(repr=False)  # SQLAlchemy URI of MLflow's database; may hold a password
    policy: Path  # absolute: the server may be started anywhere
    keys: Path  # absolute; a public key, a folder of them, or a keyring
    environment: str


def store_settings(uri: str, *, default_environment: str) -> StoreSettings:
    """The settings in `uri`. Values are percent-encoded where they hold `&`, `%` or `#`; `+` is itself.

    Raises:
        UsageError: something is missing, unknown, given twice, or a relative path. No value of `db` is shown.
    """
    split = urlsplit(uri)
    if split.scheme != SCHEME or split.netloc or split.path not in ("", "/") or split.fragment:
        raise UsageError(
            f"{redacted(uri.partition('?')[0])!r} is no address of this store", remedy=f"write it as {_EXAMPLE}"
        )
    given: dict[str, str] = {}
    for part in filter(None, split.query.split("&")):
        key, _, value = part.partition("=")
        if key not in _KNOWN:
            close = difflib.get_close_matches(key, _KNOWN, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(_KNOWN)}"
            raise UsageError(f"unknown setting {key!r} in the address of the store", remedy=f"{hint} (& is %26 inside)")
        if key in given:
            raise UsageError(f"the address of the store says {key} twice", remedy="say it once")
        given[key] = unquote(value)
    if missing := [key for key in _REQUIRED if not given.get(key)]:
        raise UsageError(f"the address of the store lacks {', '.join(missing)}", remedy=f"write it as {_EXAMPLE}")
    environment = given.get("environment") or default_environment
    return StoreSettings(given["db"], _absolute(given, "policy"), _absolute(given, "keys"), environment)


def _absolute(given: dict[str, str], key: str) -> Path:
    path = Path(given[key])
    if not path.is_absolute():
        remedy = "write the whole path: a server is not always started in the same folder"
        raise UsageError(f"{key} is a relative path in the address of the store", path=path, remedy=remedy)
    return path
