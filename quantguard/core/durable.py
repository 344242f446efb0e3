"""What makes a new name in a directory outlive a crash of the machine."""

from __future__ import annotations

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Write the names in `directory` to the disk: a file that was synced alone may be nameless afterwards.

    Raises:
        OSError: there is no such directory, or the disk fails.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
