#!/usr/bin/env bash
# Makes the isolated environment in .venv. Safe to repeat.
set -euo pipefail
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "FungiStor needs Python 3.11 or newer; '$PYTHON' is not. Type: make env PYTHON=python3.12" >&2
    exit 1
fi
if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    as_root=""
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root="sudo"; else
            echo "Python's venv module is missing. Type: sudo apt-get install -y python3-venv" >&2
            exit 1
        fi
    fi
    $as_root apt-get install -y -q python3-venv || {
        echo "Python's venv module could not be installed. Type: apt-get update && apt-get install python3-venv" >&2
        exit 1
    }
fi
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
