# shellcheck shell=sh
# QuantGuard itself, and the list of what is in the image.
set -eu
pip install --no-deps --no-build-isolation .
pip check
python -m venv listing
listing/bin/pip install --quiet --constraint constraints.txt 'cyclonedx-python-lib[json-validation]'
pip uninstall --quiet --yes pip setuptools
site=$(echo /opt/quantguard/lib/python3*/site-packages)
listing/bin/python sbom.py constraints.txt "$site" > sbom.cdx.json
sh compile.sh "$site/quantguard"
