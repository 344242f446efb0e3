"""The error tree. Every failure that a user can meet is one of these.

    QuantGuardError                     exit 2: could not tell
      UsageError                        exit 4: what was asked cannot be done as asked
        PolicyError                       the policy file is not a policy (file, line, key, what was expected)
        PromptsError                      a prompts JSONL is malformed (file, line)
        ProblemsError                     a JSONL of problems for generated programs is malformed (file, line)
        CheckoutError                     no git checkout, or one that lacks what it would be compared with
        KeyFileError                      a key file is none, is readable by others, or has run out
      NothingToGateError                exit 3: there is no model here
      CheckpointError                   the model directory cannot be read as a checkpoint
        HeaderError                       a safetensors header lies, is truncated or absurd
        ShardIndexError                   the shard index and the files disagree
        NonFiniteWeightsError             NaN or infinity in a weight
        UnsafeCheckpointError           exit 1: it holds what must never be loaded (pickle, auto_map, symlink, code)
      ModelLoadError                    transformers or bitsandbytes would not load the checkpoint
      HardenError                       the repair did not hold in the real quantizer
      RegistryError                     the model registry
        RegistryUnreachableError          no answer
        ModelNotFoundError                no such model or version
        RegistryDeniedError               the credential may not do this
        VersionChangedError               deleted, re-created or re-pointed since it was fetched
      JudgeError                        the language model that judges refusals
        JudgeUnreachableError             no answer, no TLS, or busy for too long
        JudgeDeniedError                  the key is refused
        JudgeReplyError                   what answers there is no such model: no JSON, another page, a redirect
      MachineError                      this machine lacks what the policy requires
      GitError                          git does not answer, or holds more than is read
      EvidenceError                     evidence cannot be written (disk full) or read back
        StaleWorkError                    the work directory belongs to another job
        ForgedEvidenceError             exit 1: signed by nobody who is trusted, or not what was signed
        NotAdmittedError                exit 1: evidence does not admit this use of a model, by the rule that it names
        LedgerError                     exit 1: the ledger is not the one that was written: cut, reordered or edited

Foreign exceptions are translated at the border of the room that owns the library, with `raise ... from`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from quantguard.core.verdict import ExitCode


class QuantGuardError(Exception):
    """A failure with a remedy.

    `message` says what is wrong and where; `remedy` says what to do next, in one sentence.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INCONCLUSIVE

    def __init__(self, message: str, *, remedy: str = "", path: Path | None = None) -> None:
        self.message = message
        self.remedy = remedy
        self.path = path
        super().__init__(message)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path is not None else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{self.message}{remedy}"


class UsageError(QuantGuardError):
    exit_code = ExitCode.USAGE


class PolicyError(UsageError):
    """`line` and `column` count from 1, 0 where unknown; `key` is the dotted path of the offending key."""

    def __init__(
        self, message: str, *, path: Path, line: int = 0, column: int = 0, key: str = "", remedy: str = ""
    ) -> None:
        self.line = line
        self.column = column
        self.key = key
        super().__init__(message, remedy=remedy, path=path)

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        line += f":{self.column}" if self.line and self.column else ""
        key = f" {self.key}:" if self.key else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.path}{line}:{key} {self.message}{remedy}"


class PromptsError(UsageError):
    pass


class ProblemsError(UsageError):
    pass


class CheckoutError(UsageError):
    pass


class KeyFileError(UsageError):
    pass


class NothingToGateError(QuantGuardError):
    exit_code = ExitCode.NOTHING_TO_GATE


class CheckpointError(QuantGuardError):
    pass


class HeaderError(CheckpointError):
    pass


class ShardIndexError(CheckpointError):
    pass


class NonFiniteWeightsError(CheckpointError):
    pass


class UnsafeCheckpointError(CheckpointError):
    exit_code = ExitCode.BLOCKED


class ModelLoadError(QuantGuardError):
    pass


class HardenError(QuantGuardError):
    pass


class RegistryError(QuantGuardError):
    pass


class RegistryUnreachableError(RegistryError):
    pass


class ModelNotFoundError(RegistryError):
    pass


class RegistryDeniedError(RegistryError):
    pass


class VersionChangedError(RegistryError):
    pass


class JudgeError(QuantGuardError):
    pass


class JudgeUnreachableError(JudgeError):
    pass


class JudgeDeniedError(JudgeError):
    pass


class JudgeReplyError(JudgeError):
    pass


class MachineError(QuantGuardError):
    pass


class GitError(QuantGuardError):
    pass


class EvidenceError(QuantGuardError):
    pass


class StaleWorkError(EvidenceError):
    pass


class ForgedEvidenceError(EvidenceError):
    exit_code = ExitCode.BLOCKED


class NotAdmittedError(EvidenceError):
    """`rule` is the one that refused, e.g. evidence.stale."""

    exit_code = ExitCode.BLOCKED

    def __init__(self, message: str, *, rule: str, remedy: str) -> None:
        self.rule = rule
        super().__init__(f"{rule}: {message}", remedy=remedy)


class LedgerError(EvidenceError):
    exit_code = ExitCode.BLOCKED
