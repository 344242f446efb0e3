#!/usr/bin/env bash
# bootstrap.sh LOCK [ARGUMENT...]: a virtual environment that holds exactly what LOCK names, below $RUNNER_TEMP; then its
# Python, with the ARGUMENTs, in place of this process: signals reach it. Without ARGUMENTs it only makes the environment,
# so that pip never runs beside a credential.
set -euo pipefail

fail() {
    printf '::error title=QuantGuard::%s\n' "$1"
    exit 2
}

# -I: nothing in the workspace (a venv.py, a pip/) and nothing of the user's is imported.
usable() { "$1" -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

lock=$1
shift
[ -n "${RUNNER_TEMP:-}" ] || fail 'RUNNER_TEMP is not set: this runs as a step of a workflow'
[ -r "$lock" ] || fail "$lock cannot be read: check the action out whole"

python=
for candidate in python3.14 python3.13 python3.12 python3.11 python3; do
    if usable "$candidate"; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail 'no Python 3.11 or later with the venv module on PATH: install one on the runner (Debian and Ubuntu: python3 and python3-venv), or put actions/setup-python before this step'

# The same packages for the same interpreter are the same environment; a new release or a new Python gets one of its own.
key=$({ cat -- "$lock"; "$python" -I -c 'import sys; print(sys.executable, sys.version)'; } | sha256sum)
environment=$RUNNER_TEMP/quantguard-python-${key:0:16}

if [ ! -d "$environment" ]; then
    making=$(mktemp -d "$RUNNER_TEMP/quantguard-making-XXXXXXXX") || fail "nothing can be written below RUNNER_TEMP ($RUNNER_TEMP)"
    trap 'rm -rf -- "$making"' EXIT
    "$python" -I -m venv -- "$making" >&2 || fail "$python cannot make a virtual environment below RUNNER_TEMP ($RUNNER_TEMP): see the lines above"
    "$making/bin/python" -I -m pip install --quiet --no-input --disable-pip-version-check \
        --require-hashes --no-deps --only-binary :all: --requirement "$lock" >&2 ||
        fail 'pip could not install what the launcher needs: see the lines above (without access to a package index, name a mirror in the pip configuration of the runner)'
    # It appears whole or not at all; where another job was faster, its environment is as good as ours.
    mv -T -- "$making" "$environment" 2>/dev/null || [ -d "$environment" ] || fail "$environment cannot be made"
    rm -rf -- "$making"
    trap - EXIT
fi

[ $# -gt 0 ] || exit 0
PYTHONPATH=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
export PYTHONPATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
unset PYTHONHOME PYTHONSTARTUP
exec "$environment/bin/python" "$@"
