# shellcheck shell=sh
# compile.sh DIRECTORY: byte code that is checked by content and not by time, so that it is the same whenever it is made.
set -eu
# Some packages carry files for other versions of Python, which do not compile: exit code 1.
python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash "$1" > /dev/null || test $? -eq 1
