"""CodeQL over the code of answers, through its own command line.

The code is extracted as text (`--build-mode=none`) and never run. Nothing is downloaded: the query packs have to be
there, as they are beside the CLI in GitHub's CodeQL bundle. The database is made in the scratch directory and removed.

Limit: most queries follow data from a source that they know, a web request say, to where it does harm. A function that
is given its argument has no such source, so an answer that is only a function is mostly clean for CodeQL.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from quantguard.verify.detectors.codeql_sarif import read_sarif
from quantguard.verify.detectors.interface import DetectorError

SUITE: Final = "codeql/python-queries:codeql-suites/python-security-extended.qls"
_PREFIX: Final = "answer_"
_CREATE_SECONDS: Final = 900
_ANALYZE_SECONDS: Final = 3600
_TAIL: Final = 8192  # bytes of what it prints
_SAID: Final = 300  # characters of the CLI's last line
_REMEDY: Final = "install GitHub's CodeQL bundle and put its codeql on PATH, or write analyser: bandit in the policy"

# Of one text: (last line of the place, CWE, rule) of what was found; None where CodeQL could not read it.
Reading = frozenset[tuple[int, int, str]] | None


def find_codeql() -> Path:
    """The CLI on PATH.

    Raises:
        DetectorError: there is none. Never is another analyser taken in its place.
    """
    found = shutil.which("codeql")
    if found is None:
        raise DetectorError(f"codeql is not on PATH: {_REMEDY}")
    return Path(found)


def codeql_version(program: Path) -> str:
    """As `codeql version` gives it, e.g. 2.20.1.

    Raises:
        DetectorError: it does not say.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = _run([str(program), "version", "--format=terse"], Path(folder), seconds=120).strip()
    if not said or len(said) > 100 or not said.isprintable():
        raise DetectorError(f"codeql does not say its version: {_REMEDY}")
    return said


def analyse(program: Path, texts: Mapping[int, str], scratch: Path) -> dict[int, Reading]:
    """What CodeQL says of each text, by its number.

    Args:
        texts: Python that parses, by the number of its answer.
        scratch: a writable directory; what is made in it is removed again.

    Raises:
        DetectorError: CodeQL failed or took too long; the reason is its own last line.
    """
    if not texts:
        return {}
    with tempfile.TemporaryDirectory(prefix="codeql-", dir=scratch) as name:
        folder = Path(name).resolve()
        sources, database, results = folder / "sources", folder / "database", folder / "results.sarif"
        sources.mkdir()
        for number, text in texts.items():
            (sources / f"{_PREFIX}{number}.py").write_text(text, encoding="utf-8", newline="")
        create = ["database", "create", "--language=python", "--build-mode=none", f"--source-root={sources}"]
        _run([str(program), *create, "--threads=0", "--", str(database)], folder, seconds=_CREATE_SECONDS)
        analyze = ["database", "analyze", "--format=sarif-latest", f"--output={results}", "--no-download"]
        _run([str(program), *analyze, "--threads=0", "--", str(database), SUITE], folder, seconds=_ANALYZE_SECONDS)
        analysis = read_sarif(results)
    found: dict[int, set[tuple[int, int, str]]] = {
        number: set() for number in texts if f"{_PREFIX}{number}.py" in analysis.read
    }
    names = {f"{_PREFIX}{number}.py": number for number in texts}
    for place in analysis.found:
        if place.file not in names:
            raise DetectorError("codeql found something in a file that it was not given")
        found.setdefault(names[place.file], set()).add((place.line, place.cwe, place.rule))
    return {number: frozenset(found[number]) if number in found else None for number in texts}


def _run(command: Sequence[str], folder: Path, *, seconds: int) -> str:
    """What it prints. It gets no environment but where programs, its packs and its temporary files are."""
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath, "/usr/local/bin"]),
        "HOME": str(Path.home()),  # query packs that were downloaded lie there
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
    }
    with (folder / ".out").open("w+b") as out, (folder / ".err").open("w+b") as err:
        try:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise DetectorError(f"codeql cannot be started: {error.strerror or error}: {_REMEDY}") from error
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise DetectorError(f"codeql {' '.join(command[1:3])} took more than {seconds} seconds") from error
        finally:
            _end(process)
        if code != 0:
            raise DetectorError(f"codeql {' '.join(command[1:3])} failed: {_last_line(_tail(err) or _tail(out))}")
        return _tail(out)


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started: a Java machine outlives its launcher."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        process.wait()


def _tail(stream: BinaryIO) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _TAIL))
    return stream.read(_TAIL).decode("utf-8", "replace")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_SAID] if lines else "it said nothing"
