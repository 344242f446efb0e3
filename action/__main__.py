"""`python -P -m action run|sweep|docs`: environment in, exit code out. See `options.py` for what it reads."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from action import containers, launch, outputs, preflight
from action.job import Job, make_job, secrets_in
from action.log import Log
from action.options import OPTIONS, table
from quantguard.core.errors import MachineError, QuantGuardError
from quantguard.core.verdict import ExitCode

_USAGE = "usage: python -P -m action run | sweep | docs; its inputs are the variables that docs names\n"


class Stopped(BaseException):
    """The run was ended from outside; the message says by what."""


def main(arguments: list[str]) -> int:
    match arguments:
        case ["run"]:
            return run()
        case ["sweep"]:
            return sweep()
        case ["docs"]:
            sys.stdout.write(table() + "".join(f"{o.name}: {o.variable}\n" for o in OPTIONS))
            return ExitCode.PASSED
        case _:
            sys.stderr.write(_USAGE)
            return ExitCode.USAGE


def run() -> int:
    """Gate one model, and tell the job what came of it, whatever that is."""
    job, claim, log = None, None, Log(secrets_in(os.environ))
    log.mask()
    try:
        job = make_job(os.environ)
        claim = launch.claim(job.work)
        _arm(job.timeout)
        result = launch.gate(job, log)
    except QuantGuardError as error:
        result = _ended(job, ExitCode(error.exit_code), log.redacted(str(error)))
    except Stopped as stopped:
        result = _ended(job, ExitCode.INCONCLUSIVE, str(stopped))
    except Exception:  # noqa: BLE001  a defect of ours must not look like a verdict
        traceback.print_exc()
        result = _ended(job, ExitCode.INCONCLUSIVE, "internal error in the launcher, which is in the log")
    finally:
        _disarm()
        if job is not None and claim is not None:
            launch.tidy(job.work, kept=job.kept)
            claim.close()
    if result.problem:
        log.error(f"QuantGuard: {result.verdict.value}: {result.problem}")
    outputs.publish(result, os.environ, log)
    return result.code


def _ended(job: Job | None, code: ExitCode, problem: str) -> outputs.Result:
    # Whatever passed until then, a run that was ended has not.
    code = ExitCode.INCONCLUSIVE if code is ExitCode.PASSED else code
    return outputs.Result(code, job.model if job else "?", job.work if job else Path("?"), problem)


def sweep() -> int:
    """After a run that was killed: remove its container and its partial downloads."""
    try:
        job = make_job(os.environ)
        with launch.claim(job.work):
            launch.tidy(job.work, kept=job.kept)
        client = preflight.connect()
        containers.sweep(client)
        client.close()
    except MachineError as error:  # without Docker there is nothing to remove, and another run tidies up itself
        sys.stdout.write(f"{error}\n")
    except QuantGuardError:  # the run has said what is wrong with its inputs
        pass
    return ExitCode.PASSED


def _arm(seconds: float) -> None:
    """From now on a signal, or the end of the time allowed, ends the run as an exception does."""

    def stop(number: int, _frame: FrameType | None) -> None:
        _disarm()  # the runner sends a second signal seconds later: tidying up must not be cut short by it
        if number == signal.SIGALRM:
            raise Stopped(f"not finished within {seconds / 60:g} minutes: raise the input timeout; a rerun resumes")
        raise Stopped(f"ended by {signal.Signals(number).name} before it was over: run it again to go on")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
