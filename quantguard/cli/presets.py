"""Policies as the command line names them: a file, or a preset by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class _Policy(click.Path):
    """A file, or the preset of that name where there is no such file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from quantguard.core.bundled import bundled_folder
        from quantguard.policy.extends import PRESETS

        preset = str(value) in PRESETS and not Path(value).exists()
        return super().convert(bundled_folder() / f"{value}.yaml" if preset else value, param, ctx)


POLICY = _Policy(path_type=Path, dir_okay=False)
