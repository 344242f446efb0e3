"""The files that two policies name, compared by what they hold: with other probes a limit is another limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from quantguard.core.calibration import CalibrationSet, Sampled, read_calibration
from quantguard.core.measurement import BenchmarkKind, Scenario
from quantguard.core.suites import read_probes
from quantguard.core.triggers import read_triggers
from quantguard.policy.compare import Change, Direction, compare
from quantguard.policy.load import LoadedPolicy
from quantguard.policy.naming import NAMED
from quantguard.policy.schema import BenchmarkLimits
from quantguard.policy.tasks import read_task

# Keys of one file each, where a policy may name it otherwise.
_RENAMED: Final = frozenset(
    ".".join((*keys[:1], scenario.value, *keys[2:])) if "*" in keys else ".".join(keys)
    for keys in NAMED
    for scenario in Scenario
    if keys[0] != "benchmarks"
)
_SHOWN: Final = 3  # rows quoted in a sentence
_SHOWN_CHARS: Final = 60


def differences(before: LoadedPolicy, after: LoadedPolicy) -> tuple[Change, ...]:
    """All that differs between two policies, in what they say and in what they name.

    A file that has another name and holds the same is no difference.

    Raises:
        QuantGuardError: a file has gone since its policy was loaded.
    """
    was, now = ({file.key: file.digest for file in policy.inputs} for policy in (before, after))
    renamed = {key for key, digest in now.items() if key in _RENAMED and was.get(key) == digest}
    said = compare(before.policy, after.policy)
    return (*(change for change in said if change.rule not in renamed), *compare_inputs(before, after))


def compare_inputs(before: LoadedPolicy, after: LoadedPolicy) -> tuple[Change, ...]:
    """What differs in files that both policies name under the same key; their paths do not matter.

    A probe taken out is looser: the model need not withstand it any more. Probes that were only added are different:
    they look at more, and thin out what the others find. Files are read again; line ends do not matter.

    Raises:
        QuantGuardError: a file has gone since its policy was loaded.
    """
    return (*_calibrations(before, after), *_triggers(before, after), *_probes(before, after), *_tasks(before, after))


def _calibrations(before: LoadedPolicy, after: LoadedPolicy) -> Iterator[Change]:
    """What a repair is calibrated on, and what rounding, perplexity and triggers are measured on."""
    old, new = before.policy.harden.calibration, after.policy.harden.calibration
    if old is not None and new is not None:
        sources = _read(before, old.prompts), _read(after, new.prompts)
        yield from _calibration(*sources, ("harden", "calibration", "prompts"))
    was, now = before.policy.counterfactual, after.policy.counterfactual
    if was is not None and now is not None:
        sources = _read(before, was.prompts), _read(after, now.prompts)
        yield from _calibration(*sources, ("counterfactual", "prompts"))
    read, reads = before.policy.perplexity, after.policy.perplexity
    if read is not None and reads is not None:
        sources = _read(before, read.prompts), _read(after, reads.prompts)
        yield from _calibration(*sources, ("perplexity", "prompts"))
    then, today = before.policy.triggers, after.policy.triggers
    if then is not None and today is not None:
        sources = _read(before, then.prompts), _read(after, today.prompts)
        yield from _calibration(*sources, ("triggers", "prompts"))


def _triggers(before: LoadedPolicy, after: LoadedPolicy) -> Iterator[Change]:
    """A trigger taken out of the list is looser, as a probe is; one that was added leaves less room for the others."""
    old, new = before.policy.triggers, after.policy.triggers
    if old is None or new is None or old.list is None or new.list is None:
        return
    was, now = (read_triggers(policy.resolve(name)) for policy, name in ((before, old.list), (after, new.list)))
    if set(was) != set(now):
        direction = Direction.LOOSER if set(was) - set(now) else Direction.DIFFERENT
        location = ("triggers", "list")
        yield Change(".".join(location), direction, _counted(len(was), "trigger"), _difference(was, now), location)


def _read(policy: LoadedPolicy, source: str) -> CalibrationSet | Sampled:
    return read_calibration(source, folder=policy.path.parent)


def _calibration(
    was: CalibrationSet | Sampled, now: CalibrationSet | Sampled, location: tuple[str, ...]
) -> Iterator[Change]:
    if isinstance(was, Sampled) or isinstance(now, Sampled):
        return  # the model's own are not held by any file; another source is told as another word
    if was.prompts != now.prompts:
        rule = ".".join(location)
        said = _difference([row.prompt for row in was.prompts], [row.prompt for row in now.prompts])
        yield Change(rule, Direction.DIFFERENT, _counted(len(was.prompts), "prompt"), said, location)


def _probes(before: LoadedPolicy, after: LoadedPolicy) -> Iterator[Change]:
    then = dict(before.policy.attack_success.by_scenario())
    for scenario, limits in after.policy.attack_success.by_scenario():
        if scenario not in then:
            continue
        # Their order and their answers are not used.
        sources = ((before, then[scenario].probes), (after, limits.probes))
        read = [read_probes(source, scenario, folder=policy.path.parent) for policy, source in sources]
        was, now = ([row.prompt for row in probes.prompts] for probes in read)
        if Counter(was) != Counter(now):
            direction = Direction.LOOSER if Counter(was) - Counter(now) else Direction.DIFFERENT
            location = ("attack_success", scenario.value, "probes")
            yield Change(".".join(location), direction, _counted(len(was), "probe"), _difference(was, now), location)


def _tasks(before: LoadedPolicy, after: LoadedPolicy) -> Iterator[Change]:
    then = {benchmark.task: benchmark for benchmark in before.policy.benchmarks}
    for index, benchmark in enumerate(after.policy.benchmarks):
        was, now = _task_lines(before, then.get(benchmark.task)), _task_lines(after, benchmark)
        if was is not None and now is not None and was != now:
            said = _difference([line for file in was for line in file], [line for file in now for line in file])
            rule, location = f"benchmarks.{benchmark.task}.path", ("benchmarks", index, "path")
            yield Change(rule, Direction.DIFFERENT, _counted(sum(map(len, was)), "line"), said, location)


def _task_lines(policy: LoadedPolicy, benchmark: BenchmarkLimits | None) -> list[list[str]] | None:
    """The lines of the task's file and of its data files, or of the problems; None where they are built in."""
    if benchmark is None or benchmark.path is None:
        return None
    if benchmark.kind is BenchmarkKind.CODE:
        return [_lines(policy.resolve(benchmark.path))]
    files = read_task(policy.resolve(benchmark.path), benchmark.task).files
    return [_lines(file) for file in files]


def _lines(file: Path) -> list[str]:
    return [line.decode("utf-8", "replace") for line in file.read_bytes().splitlines()]


def _difference(was: Sequence[str], now: Sequence[str]) -> str:
    """How many rows there are now, and which are new or gone."""
    gone, new = Counter(was) - Counter(now), Counter(now) - Counter(was)
    parts = [f"{_counted(len(now), 'row')}"]
    parts += [
        f"{counter.total()} {word} ({_quoted(counter)})" for word, counter in (("gone", gone), ("new", new)) if counter
    ]
    return ", ".join(parts) if gone or new else f"{parts[0]} in another order"


def _quoted(rows: Counter[str]) -> str:
    shown = [repr(row if len(row) <= _SHOWN_CHARS else row[:_SHOWN_CHARS] + "...") for row in list(rows)[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(rows) > _SHOWN else "")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
