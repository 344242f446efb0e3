#!/usr/bin/env python3
"""Stands in for GitHub's `codeql`, which no package index here offers: the two commands that are used, strictly.

Arguments and SARIF are shaped as GitHub's manual and reference of the CLI have them. What it "finds" is a call of eval
or os.system in a line. A file `mode` beside it makes it fail in one way.
"""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import NoReturn

RULES = {
    "py/code-injection": ("eval(", ["security", "external/cwe/cwe-094", "external/cwe/cwe-095"]),
    "py/command-line-injection": ("os.system(", ["correctness", "external/cwe/cwe-078", "external/cwe/cwe-088"]),
    "py/catch-base-exception": ("except:", ["reliability"]),
}
CREATE = r"--language=python --build-mode=none --source-root=(\S+) --threads=0 -- (\S+)"
SUITE = "codeql/python-queries:codeql-suites/python-security-extended.qls"
ALLOWED = {"PATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE", "PWD", "__CF_USER_TEXT_ENCODING"}


def fail(said: str) -> NoReturn:
    sys.stderr.write(f"Starting evaluation...\n{said}\n")
    sys.exit(2)


def location(file: str, **region: int) -> dict[str, object]:
    artifact = {"uri": file, "uriBaseId": "%SRCROOT%", "index": 0}
    return {"physicalLocation": {"artifactLocation": artifact, **({"region": region} if region else {})}}


def create(arguments: list[str]) -> None:
    match = re.fullmatch(
        r"--language=python --build-mode=none --source-root=(\S+) --threads=0 -- (\S+)", " ".join(arguments)
    )
    if not match or not Path(match[1]).is_dir() or Path(match[2]).exists():
        fail("A fatal error occurred: wrong arguments of database create")
    Path(match[2]).mkdir()
    (Path(match[2]) / "codeql-database.yml").write_text(f"sourceLocationPrefix: {match[1]}\nprimaryLanguage: python\n")


def notified(rule: str, level: str, file: str) -> dict[str, object]:
    return {
        "locations": [location(file)], "message": {"text": ""}, "level": level, "descriptor": {"id": rule, "index": 0},
    }  # fmt: skip


def result(rule: str, index: int, line: str, file: str, number: int) -> dict[str, object]:
    return {
        "ruleId": rule,
        "ruleIndex": index,
        "rule": {"id": rule, "index": index, "toolComponent": {"index": 0}},
        "message": {"text": line},
        "locations": [location(file, startLine=number)],
        "partialFingerprints": {"primaryLocationLineHash": "aa:1"},
    }


def analyze(arguments: list[str], mode: str) -> None:
    pattern = rf"--format=sarif-latest --output=(\S+) --no-download --threads=0 -- (\S+) {re.escape(SUITE)}"
    match = re.fullmatch(pattern, " ".join(arguments))
    if not match:
        fail("A fatal error occurred: wrong arguments of database analyze")
    settings = (Path(match[2]) / "codeql-database.yml").read_text()
    root = settings.splitlines()[0].removeprefix("sourceLocationPrefix: ")
    notes, results = [], []
    for path in sorted(Path(root).rglob("*.py")):
        notes.append(notified("py/diagnostics/successfully-extracted-files", "none", path.name))
        lines = path.read_text().splitlines()
        if "# unreadable" in lines:
            notes.append(notified("py/diagnostics/syntax-error", "error", path.name))
        for number, line in enumerate(lines, 1):
            for index, (rule, (sign, _)) in enumerate(RULES.items()):
                if sign in line:
                    results.append(
                        result(rule, index, line, "../evil.py" if mode == "elsewhere" else path.name, number)
                    )
    rules = [
        {
            "id": rule,
            "name": rule,
            "defaultConfiguration": {"enabled": True, "level": "note" if "catch" in rule else "error"},
            "properties": {"tags": tags, "kind": "path-problem"},
        }
        for rule, (_, tags) in RULES.items()
    ]
    told = {
        "toolExecutionNotifications": [] if mode == "silent" else notes,
        "executionSuccessful": mode != "unsuccessful",
    }
    pack = {"name": "codeql/python-queries", "rules": rules}
    run = {
        "tool": {"driver": {"name": "CodeQL", "rules": []}, "extensions": [pack]},
        "invocations": [told],
        "results": results,
    }
    document = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    text = json.dumps(document)
    Path(match[1]).write_text(text[: len(text) // 2] if mode == "cut" else text)


def main() -> None:
    if set(os.environ) - ALLOWED:
        fail(f"unexpected environment: {sorted(set(os.environ) - ALLOWED)}")
    beside = Path(__file__).with_name("mode")
    mode = beside.read_text() if beside.exists() else ""
    if mode == "slow":
        time.sleep(600)
    if sys.argv[1:3] == ["database", "create"]:
        if mode == "fails":
            fail("A fatal error occurred: No license to analyse this.\n")
        create(sys.argv[3:])
    elif sys.argv[1:3] == ["database", "analyze"]:
        analyze(sys.argv[3:], mode)
    elif sys.argv[1:] == ["version", "--format=terse"]:
        sys.stdout.write("2.20.1\n")
    else:
        fail("Unknown command")


if __name__ == "__main__":
    main()
