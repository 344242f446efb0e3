"""What the registry's plugin costs: alias requests on a plain and on an enforcing `mlflow server` over one database.

    python benchmarks/enforce.py [--database sqlite|postgresql] [--rounds 6]

10,000 versions are registered, a tenth of them with signed evidence; 50 clients ask at once, over 4 workers, for half
versions that are admissible and half that are not (without evidence, or with that of another version). Blocks of plain
and enforced requests alternate. Prints one row; exits with 1 where a decision was wrong.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import create_engine, insert

from quantguard.core.attestation import Binding
from quantguard.core.model import VersionIdentity
from quantguard.registry.embedded import EmbeddedServer
from tests.attest.made import DIGEST, signed_tags
from tests.enforce.world import TODAY, Settings, made_settings
from tests.postgres import postgres

MODELS: Final = 100
VERSIONS: Final = 100  # of each model
WITH_EVIDENCE: Final = 10  # of each model, the first ones; the next ten have that of the first ten
CLIENTS: Final = 50
REQUESTS: Final = 500  # of a block
WORKERS: Final = 4


@dataclass(frozen=True, slots=True)
class Ask:
    model: str
    version: int

    @property
    def admissible(self) -> bool:
        return self.version <= WITH_EVIDENCE


@dataclass(frozen=True, slots=True)
class Answer:
    ask: Ask
    status: int
    seconds: float


def fill(database: str, settings: Settings) -> None:
    """Register everything, in the tables that a server has made."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag, SqlRegisteredModel

    created = int(TODAY.timestamp() * 1000)
    names = [f"model-{number:03d}" for number in range(MODELS)]
    rows: list[dict[str, Any]] = []
    tags: list[dict[str, Any]] = []
    for name in names:
        for version in range(1, VERSIONS + 1):
            source = f"s3://store/{name}/{version}"
            rows.append({"name": name, "version": version, "source": source, "creation_time": created})
        for version in range(1, WITH_EVIDENCE + 1):
            identity = VersionIdentity(name, str(version), f"s3://store/{name}/{version}", created)
            binding = Binding(identity, DIGEST, "production")
            evidence = signed_tags(settings.policy, binding=binding, at=TODAY, signer=settings.gate)
            for holder in (version, version + WITH_EVIDENCE):
                tags += [{"name": name, "version": holder, "key": key, "value": evidence[key]} for key in evidence]
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.execute(insert(SqlRegisteredModel), [{"name": name, "creation_time": created} for name in names])
        connection.execute(insert(SqlModelVersion), rows)
        connection.execute(insert(SqlModelVersionTag), tags)
    engine.dispose()


def block(uri: str, asked: list[Ask]) -> list[Answer]:
    """All of `asked`, by 50 clients with a connection each."""
    host = urlsplit(uri).netloc
    shares = [asked[first::CLIENTS] for first in range(CLIENTS)]

    def client(share: list[Ask]) -> list[Answer]:
        connection = http.client.HTTPConnection(host, timeout=120)
        return [_post(connection, ask) for ask in share]

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [answer for answers in pool.map(client, shares) for answer in answers]


def _post(connection: http.client.HTTPConnection, ask: Ask) -> Answer:
    body = json.dumps({"name": ask.model, "alias": "champion", "version": str(ask.version)})
    started = time.perf_counter()
    connection.request("POST", "/api/2.0/mlflow/registered-models/alias", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return Answer(ask, answer.status, time.perf_counter() - started)


def wrong(answers: list[Answer]) -> list[Answer]:
    """Admissible and refused, or the other way round; neither a lost race (409) nor a busy database (503) decides."""
    return [answer for answer in answers if answer.status == (403 if answer.ask.admissible else 200)]


def draw(chance: random.Random) -> list[Ask]:
    asked = []
    for number in range(REQUESTS):
        version = chance.randint(1, WITH_EVIDENCE) if number % 2 else chance.randint(WITH_EVIDENCE + 1, VERSIONS)
        asked.append(Ask(f"model-{chance.randrange(MODELS):03d}", version))
    return asked


def share(seconds: list[float], of: float) -> float:
    """The quantile `of`, in milliseconds."""
    return sorted(seconds)[min(len(seconds) - 1, int(of * len(seconds)))] * 1000


@contextmanager
def both(kind: str, folder: Path) -> Iterator[tuple[EmbeddedServer, EmbeddedServer]]:
    """A plain and an enforcing server over one filled database."""
    settings = made_settings(folder)
    place = postgres(durable=True) if kind == "postgresql" else nullcontext(f"sqlite:///{folder / 'mlflow.db'}")
    with place as database, EmbeddedServer(folder / "plain", database=database, workers=WORKERS) as plain:
        fill(database, settings)
        registry = settings.uri(database)
        with EmbeddedServer(folder / "ours", database=database, registry=registry, workers=WORKERS) as ours:
            yield plain, ours


def measure(kind: str, rounds: int) -> bool:
    """Print the row of one database; whether every decision was right."""
    chance = random.Random(8)  # noqa: S311  a draw that comes again, not a secret
    plain: list[Answer] = []
    ours: list[Answer] = []
    with tempfile.TemporaryDirectory() as folder, both(kind, Path(folder)) as (first, second):
        for number in range(rounds + 1):
            asked = draw(chance)
            answers = block(first.uri, asked), block(second.uri, asked)
            if number:  # the first warms up
                plain += answers[0]
                ours += answers[1]
    rows = []
    for name, keep in (("all", (True, False)), ("admissible", (True,)), ("refused", (False,))):
        times = [[answer.seconds for answer in answers if answer.ask.admissible in keep] for answers in (plain, ours)]
        p50, p95 = ([share(side, of) for side in times] for of in (0.5, 0.95))
        rows.append(
            f"| {kind} | {name} | {len(times[1])} | {p50[0]:.0f} | {p50[1]:.0f} | {p95[0]:.0f} | {p95[1]:.0f} | "
            f"{100 * (p95[1] / p95[0] - 1):+.0f} % |"
        )
    sys.stdout.write("\n".join(rows) + "\n")
    mistakes, lost = wrong(ours), sum(answer.status == 409 for answer in ours)
    failed = [answer for answer in plain if answer.status != 200]
    unanswered = [answer for answer in ours if answer.status not in (200, 403, 409)]
    sys.stdout.write(
        f"{kind}: wrong decisions {len(mistakes)} of {len(ours)}, lost races {lost}, not answered {len(unanswered)}; "
        f"plain: not answered {len(failed)} of {len(plain)}\n"
    )
    for answer in (mistakes + unanswered + failed)[:5]:
        sys.stdout.write(f"  {answer}\n")
    return not mistakes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], action="append")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    sys.stdout.write(
        "| database | requests | count | p50 plain, ms | p50 ours | p95 plain, ms | p95 ours | p95 overhead |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|---|---|\n")
    right = [measure(kind, arguments.rounds) for kind in arguments.database or ["sqlite", "postgresql"]]
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
