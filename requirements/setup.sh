#!/bin/sh
# Makes .venv from the pins: finds a Python >= 3.12 that works (or lets uv fetch one), then installs
# requirements/dev.txt with its hashes and compiles bytecode. Needs any python3 with pip, and a package index.
set -eu
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE  # imports without bytecode cost about twice as much
VENV=.venv

say() { printf 'setup: %s\n' "$*" >&2; }

# A version manager's shim answers to the name and fails when run, so a candidate counts only once it has run.
works() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys, ssl, venv, ctypes, sqlite3; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1
}

find_python() {
    for candidate in "${PYTHON:-}" python3.12 python3 /usr/bin/python3.12 /usr/local/bin/python3.12 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12 "$HOME"/.local/share/uv/python/cpython-3.12*/bin/python3.12; do
        if [ -n "$candidate" ] && works "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

# uv comes from the package index at the version and hashes of requirements/uv.txt, by any Python at hand.
bootstrap_uv() {
    [ -x .tools/uv/bin/uv ] && return 0
    say "installing uv into .tools/uv"
    for any in "${1:-}" python3 python3.13 python3.12 python3.11; do
        if [ -n "$any" ] && "$any" -m venv .tools/uv >/dev/null 2>&1; then
            .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
            return 0
        fi
    done
    say "no Python that can make a virtual environment was found; install python3 with its venv module (Debian: apt-get install python3-venv)"
    exit 2
}

if python=$(find_python); then
    bootstrap_uv "$python"
else
    say "no working Python 3.12 here; asking uv for one"
    bootstrap_uv
    .tools/uv/bin/uv python install 3.12 >&2 || {
        say "no Python 3.12 could be had; install one, or name one in PYTHON, and run make again"
        exit 2
    }
    python=$(.tools/uv/bin/uv python find 3.12)
fi

if [ -x $VENV/bin/python ] && ! works $VENV/bin/python; then
    say "$VENV has lost its Python; making it anew"
    rm -rf $VENV
fi
[ -x $VENV/bin/python ] || .tools/uv/bin/uv venv --quiet --no-project --python "$python" $VENV
say "installing the pins with $python (about half a minute the first time)"
.tools/uv/bin/uv pip sync --quiet --python $VENV/bin/python --require-hashes --compile-bytecode requirements/dev.txt
$VENV/bin/python sam/dependencies/fontcache.py 2>/dev/null
touch $VENV/.ready
say "ready: $($VENV/bin/python -V)"
