"""What `extends` finds where QuantGuard was installed: the presets inside the package, as they are in the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.test_house import ROOT

POLICY = "schema: quantguard.policy/1\nname: mine\nextends: strict\n"
ASK = """\
import sys
from pathlib import Path
from quantguard.core.bundled import bundled_folder
from quantguard.policy.load import load_policy
print(bundled_folder(), load_policy(Path(sys.argv[1])).digest)
"""


def asked(code: Path, policy: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(code)}
    command = [sys.executable, "-c", ASK, str(policy)]
    ran = subprocess.run(command, env=environment, cwd=policy.parent, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


def test_a_preset_is_the_same_policy_where_quantguard_is_installed(tmp_path: Path) -> None:
    built = tmp_path / "built"
    build = ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(built)]
    command = [sys.executable, "setup.py", "--quiet", *build]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    policy = tmp_path / "mine.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    installed, checkout = asked(built, policy), asked(ROOT, policy)
    assert [folder for folder, _ in (installed, checkout)] == [
        str(built / "quantguard" / "policies"),
        str(ROOT / "policies"),
    ]
    assert installed[1] == checkout[1]
