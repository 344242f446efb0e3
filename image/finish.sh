# shellcheck shell=sh
# QuantGuard itself, byte code that does not depend on when it was made, and the list of what is in the image.
set -eu
pip install --no-deps --no-build-isolation .
pip check
python -m venv listing
listing/bin/pip install --quiet --constraint constraints.txt 'cyclonedx-python-lib[json-validation]'
pip uninstall --quiet --yes pip setuptools
listing/bin/python sbom.py constraints.txt /opt/quantguard/lib/python3*/site-packages > sbom.cdx.json
# Some packages carry files for other versions of Python, which do not compile: exit code 1.
python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/quantguard/lib > /dev/null || test $? -eq 1
