#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the autograder's image. Choose its newest Ubuntu.
set -euo pipefail
cd "${AUTOGRADER_ROOT:-/autograder}/source/course"
python="${PYTHON:-python3}"
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "This course needs Python 3.11 or later; choose a newer base image." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    apt-get update -q && apt-get install -y -q python3-venv
fi
"$python" -m venv ../venv
../venv/bin/python -m pip install --quiet -c constraints.txt .
