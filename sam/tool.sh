#!/bin/sh
# Makes .tools/NAME, the virtual environment of one tool that pins too much to share .venv, from requirements/NAME.txt
# on first use and when those pins change. Prints nothing when there is nothing to do.
# Usage: sam/tool.sh sam|checkov|ministack|pyarrow
set -eu
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE
name=$1
[ -x ".tools/$name/bin/python" ] && [ ! "requirements/$name.txt" -nt ".tools/$name/.ready" ] && exit 0
if [ ! -x .tools/uv/bin/uv ] || [ ! -x .venv/bin/python ]; then
    echo "$name: .venv is missing; run make setup first" >&2
    exit 2
fi
echo "$name: installing it into .tools/$name (once, up to a minute)" >&2
.tools/uv/bin/uv venv --quiet --no-project --clear --python .venv/bin/python ".tools/$name"
if ! said=$(.tools/uv/bin/uv pip sync --quiet --python ".tools/$name/bin/python" --require-hashes "requirements/$name.txt" 2>&1); then
    echo "$name: it could not be installed from requirements/$name.txt; is the package index within reach? $said" >&2
    exit 2
fi
touch ".tools/$name/.ready"
