"""The two processes of one problem. Run as a script, with the standard library alone, by `quantguard.execute.runner`.

The *program* process runs what the model wrote, and answers calls of one function. The *tester* process runs the tests,
with a stand-in for that function that has it called there. Between them go plain values and nothing else (numbers,
text, bytes, lists, tuples, sets, dicts), through the runner. So a program never sees the tests, cannot end them, and
cannot hand over an object that compares equal to everything: all that it can do is give the right values, or fail.

Both read lines of JSON from standard input and write them to the standard output that they were started with.
"""

import builtins
import ctypes
import json
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

_NOTE = 300  # characters told of a failure
_PR_SET_DUMPABLE = 4


class UnplainError(Exception):
    """A value that does not pass between the two."""


class RaisedError(Exception):
    """The program raised something that is no built-in exception, or is gone."""


def encode(value: Any, depth: int = 0) -> Any:
    """A plain value as JSON types. Subclasses become what they are made of; int is written in hex, float exactly."""
    if depth > 100:
        raise UnplainError("a value nested too deep")
    if value is None or isinstance(value, bool):
        return value
    for kind, tag, plain in _SCALARS:
        if isinstance(value, kind):
            return [tag, plain(value)]
    for kind, tag in _SEQUENCES:
        if isinstance(value, kind):
            return [tag, [encode(item, depth + 1) for item in value]]
    if isinstance(value, dict):
        return ["d", [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in value.items()]]
    raise UnplainError(f"a value of type {type(value).__name__}")


_SCALARS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (int, "i", lambda value: hex(int(value))),
    (float, "f", lambda value: repr(float(value))),
    (complex, "c", lambda value: [repr(value.real), repr(value.imag)]),
    (str, "s", str),
    (bytes, "y", lambda value: bytes(value).hex()),
)
_SEQUENCES: tuple[tuple[Any, str], ...] = ((list, "l"), (tuple, "t"), (frozenset, "F"), (set, "S"))


def decode(plain: Any) -> Any:
    """The inverse; of bad input an UnplainError or what the constructors raise."""
    if plain is None or isinstance(plain, bool):
        return plain
    tag, held = plain
    if tag == "d":
        return {decode(key): decode(item) for key, item in held}
    if tag in _MADE:
        return _MADE[tag](held)
    raise UnplainError("a value of no known type")


_MADE: dict[str, Callable[[Any], Any]] = {
    "i": lambda held: int(held, 16),
    "f": float,
    "c": lambda held: complex(float(held[0]), float(held[1])),
    "s": str,
    "y": bytes.fromhex,
    "l": lambda held: [decode(item) for item in held],
    "t": lambda held: tuple(decode(item) for item in held),
    "F": lambda held: frozenset(decode(item) for item in held),
    "S": lambda held: {decode(item) for item in held},
}


class Channel:
    """Lines of JSON to and from the runner. What the process prints goes nowhere."""

    def __init__(self) -> None:
        self._in = os.fdopen(os.dup(0), "rb")
        self._out = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)

    def read(self) -> bytes:
        line = self._in.readline()
        if not line:
            os._exit(0)  # the runner is done with us
        return line

    def write(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.flush()


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_NOTE]


def limit(seconds: int, mebibytes: int) -> None:
    """Of this process and its children, for good."""
    limits = (
        (resource.RLIMIT_AS, mebibytes << 20),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 8 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    )
    for name, value in limits:
        resource.setrlimit(name, (value, value))


def run_program(channel: Channel, first: dict[str, Any]) -> None:
    """Run the source, then answer calls for as long as they come."""
    names: dict[str, Any] = {"__name__": "program"}
    problem: dict[str, Any] | None = None
    try:
        exec(compile(first["source"], "<program>", "exec"), names)  # noqa: S102  this is what the container is for
        function = names[first["entry"]]
    except BaseException as error:  # noqa: BLE001  SystemExit too
        problem = _raised(error)
    while True:
        call = json.loads(channel.read())["call"]
        try:
            reply = {"value": encode(function(*decode(call[0]), **decode(call[1])))} if problem is None else problem
        except BaseException as error:  # noqa: BLE001
            reply = _raised(error)
        channel.write(reply)


def _raised(error: BaseException) -> dict[str, Any]:
    return {"raised": [type(error).__name__, str(error)[:_NOTE]]}


def _returned(reply: bytes) -> Any:
    """What the program gave, or what it raised, raised here. The bytes are the program's own."""
    try:
        held = json.loads(reply)
        if "raised" not in held:
            return decode(held["value"])
        name, said = map(str, held["raised"])
    except Exception as error:  # noqa: BLE001
        raise RaisedError(f"an answer that is no plain value ({type(error).__name__})") from None
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        raise kind(said)
    raise RaisedError(f"{name}: {said}")


def run_tester(channel: Channel, first: dict[str, Any]) -> None:
    """Run the tests with the stand-in; the last message is the verdict."""
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        channel.write({"verdict": ["broken", "this process cannot be hidden from the program"]})
        return
    channel.write({"ready": True})
    calls = 0

    def candidate(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        channel.write({"call": [encode(args), encode(kwargs)]})
        return _returned(channel.read())

    names: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(first["setup"], "<setup>", "exec"), names)  # noqa: S102  the policy's own tests
        tests = compile(first["tests"], "<tests>", "exec")
        names[first["entry"]] = names["candidate"] = candidate
    except Exception as error:  # noqa: BLE001
        channel.write({"verdict": ["broken", told(error)]})
        return
    try:
        exec(tests, names)  # noqa: S102
    except UnplainError as error:
        verdict = ["broken", f"a test passes {error}"]
    except Exception as error:  # noqa: BLE001
        verdict = ["failed", told(error)]
    else:
        verdict = ["passed", ""] if calls else ["broken", "the tests never call the function"]
    channel.write({"verdict": verdict})


def main() -> None:
    channel = Channel()
    first = json.loads(channel.read())
    limit(first["seconds"], first["mebibytes"])
    {"program": run_program, "tester": run_tester}[first["role"]](channel, first)


if __name__ == "__main__":
    sys.setrecursionlimit(3000)
    main()
