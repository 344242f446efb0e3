"""An admission that goes by a list, for tests of the plugin without keys and policies."""

from __future__ import annotations

from quantguard.registry.enforce.interface import Allowed, Candidate, Denied, Protection


class ListedAdmission:
    """`Admission` that admits the versions (name, number) in `listed`, which a test may change."""

    def __init__(
        self,
        *listed: tuple[str, str],
        aliases: tuple[str, ...] = ("champion",),
        stages: tuple[str, ...] = ("Production",),
    ) -> None:
        self.listed = set(listed)
        self.asked: list[Candidate] = []
        self._protection = Protection(aliases, stages)

    def protection(self) -> Protection:
        return self._protection

    def admit(self, candidate: Candidate) -> Allowed | Denied:
        self.asked.append(candidate)
        if (candidate.identity.name, candidate.identity.version) in self.listed:
            return Allowed("listed")
        return Denied("evidence.missing", "this version is not on the list", "put it there")
