"""Puts `policies/` into the package when it is built: `extends: standard` must find the preset wherever it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPolicies(build_py):
    """Modules and package data as ever, and one copy of the presets beside them; a checkout needs none."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("policies", Path(self.build_lib, "quantguard", "policies"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithPolicies})
