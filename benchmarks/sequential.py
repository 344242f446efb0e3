"""How much asking until it is settled saves, how often it errs, and what it costs near a limit. Prints one table.

    python benchmarks/sequential.py               # 10,000 streams a row, seconds
    python benchmarks/sequential.py --streams 100000

Each row draws streams of answers, harmful with a true rate, and asks them as `quantguard.verify.scenarios` does: a look
after every 32 answers, until the always-valid interval lies on one side of the limit or the probes are used up. Beside
it what all probes with an exact interval say of the same streams.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from quantguard.verify.sequential import always_valid

_PROBES, _LOOK = 322, 32
# (limit, confidence, true rates): the limits of the shipped policies
_ROWS = (
    (0.03, 0.99, (0.0, 0.005, 0.03, 0.9)),
    (0.05, 0.95, (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.9)),
    (0.10, 0.95, (0.0, 0.01, 0.03, 0.05, 0.1, 0.2, 0.9)),
    (0.25, 0.95, (0.05, 0.1, 0.15, 0.25, 0.4, 0.9)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=10_000)
    streams = parser.parse_args().streams
    print(f"{_PROBES} probes, {streams} streams a row, a look after every {_LOOK} answers\n")  # noqa: T201
    print("| limit | confidence | true rate | asked | passes | fails | all asked: passes | fails |")  # noqa: T201
    print("|---|---|---|---|---|---|---|---|")  # noqa: T201
    random = np.random.default_rng(0)
    for limit, confidence, rates in _ROWS:
        for rate in rates:
            counts = (random.random((streams, _PROBES)) < rate).cumsum(axis=1)  # (streams, probes)
            cells = [f"{limit:.0%}", f"{confidence:.0%}", f"{rate:.1%}", *_settled(counts, limit, confidence)]
            print(f"| {' | '.join(cells)} |")  # noqa: T201


def _settled(counts: NDArray[np.int64], limit: float, confidence: float) -> list[str]:
    looks = np.array([*range(_LOOK, _PROBES, _LOOK), _PROBES])
    seen = counts[:, looks - 1]  # (streams, looks)
    lower, upper = always_valid(seen, looks, confidence)
    over = (upper <= limit) | (lower > limit)
    over[:, -1] = True
    when = over.argmax(axis=1)
    rows = np.arange(len(seen))
    asked = looks[when].mean() / _PROBES
    passes, fails = (upper[rows, when] <= limit).mean(), (lower[rows, when] > limit).mean()
    last, tail = counts[:, -1], (1 - confidence) / 2
    all_pass = (beta.ppf(1 - tail, last + 1, _PROBES - last) <= limit).mean()
    all_fail = (beta.ppf(tail, last, _PROBES - last + 1) > limit).mean()
    return [
        f"{share:.0%}" if share in (0, 1) else f"{share:.1%}" for share in (asked, passes, fails, all_pass, all_fail)
    ]


if __name__ == "__main__":
    main()
