"""The registry that is a directory on this machine: it can be read, and there is nothing to write to."""

from __future__ import annotations

from pathlib import Path

from quantguard.core.errors import NothingToGateError, RegistryError, UsageError, VersionChangedError
from quantguard.core.model import LocalDirectory, ModelRef, VersionIdentity
from quantguard.core.progress import Progress, silent
from quantguard.registry.copying import appearing, copy_directory
from quantguard.registry.interface import Publication, Published

_NOTHING_WRITTEN = "no registry: verdict only"


class DirectoryRegistry:
    """`quantguard.registry.interface.Registry` over one local directory; publishing changes nothing and says so."""

    def identify(self, ref: ModelRef) -> VersionIdentity:
        if not isinstance(ref, LocalDirectory):
            raise UsageError(f"{ref} is not a directory", remedy="give --tracking-uri for a registered version")
        path = ref.path.resolve()
        if not path.is_dir():
            raise NothingToGateError("is not a directory", path=ref.path, remedy="name a model directory")
        return VersionIdentity(name=path.name, version="0", source=str(path), created=0)

    def download(self, identity: VersionIdentity, destination: Path, *, progress: Progress = silent) -> None:
        source = Path(identity.source)
        if not source.is_dir():
            raise VersionChangedError("was removed since it was read", path=source, remedy="run again")
        if destination.resolve().is_relative_to(source):
            raise UsageError(
                "the work directory lies inside the model", path=destination, remedy="use another --work directory"
            )
        try:
            with appearing(destination) as partial:
                copy_directory(source, partial, progress)
        except OSError as error:
            raise RegistryError(
                f"cannot copy the model: {error}", path=destination, remedy="free space or permissions, then run again"
            ) from error

    def promote(self, identity: VersionIdentity, *, alias: str, publication: Publication) -> Published:
        del alias, publication
        return Published(identity, (_NOTHING_WRITTEN,))

    def block(self, identity: VersionIdentity, *, alias: str, publication: Publication) -> Published:
        del alias, publication
        return Published(identity, (_NOTHING_WRITTEN,))

    def hold(self, identity: VersionIdentity, *, publication: Publication) -> Published:
        del publication
        return Published(identity, (_NOTHING_WRITTEN,))

    def register_derivative(
        self,
        identity: VersionIdentity,
        hardened: Path,
        *,
        publication: Publication,
        source_digest: str = "",
        progress: Progress = silent,
    ) -> VersionIdentity:
        """The hardened directory itself, as a version beside nothing."""
        del publication, source_digest, progress
        return VersionIdentity(name=identity.name, version="0", source=str(hardened.resolve()), created=0)
