"""Jobs side by side, each in a process of its own that has the imports already; what is done is not done again."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing.context import ForkServerContext
from pathlib import Path

from harden_work import NONE, Job, work

_TELL = 15.0  # seconds between two lines of progress


def run(jobs: Sequence[Job], processes: int) -> list[Job]:
    """Do what has no record yet, `processes` at a time; the jobs that failed, whose processes said why."""
    different = {job.record: job for job in jobs}
    left = [job for record, job in different.items() if not record.exists()]
    sys.stderr.write(f"{len(different)} runs, {len(left)} of them to do\n")
    context = multiprocessing.get_context("forkserver")
    # Python 3.11's fork server looks for what it is to import there, and nowhere else.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    context.set_forkserver_preload(["harden_imports"])
    failed: list[Job] = []
    began = told = time.monotonic()
    pool = ThreadPoolExecutor(processes)
    try:
        places = {pool.submit(_done, context, job): job for job in left}
        for done, future in enumerate(as_completed(places), 1):
            if not future.result():
                failed.append(places[future])
                sys.stderr.write(f"not done: {_told(places[future])}\n")
            now = time.monotonic()
            if now - told > _TELL or done == len(left):
                told = now
                rest = (now - began) / done * (len(left) - done)
                sys.stderr.write(f"[{done}/{len(left)}, {(now - began) / 60:.1f} min] about {rest / 60:.1f} min left\n")
                sys.stderr.flush()
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def _told(job: Job) -> str:
    """The job in words."""
    if job.request is None:
        return f"{job.member.name}: {NONE}"
    schemes = "+".join(scheme.value for scheme in job.request.schemes)
    return f"{job.member.name}: {job.request.method} for {schemes}"


def _done(context: ForkServerContext, job: Job) -> bool:
    process = context.Process(target=work, args=(job,), daemon=True)
    process.start()
    process.join()
    return process.exitcode == 0
