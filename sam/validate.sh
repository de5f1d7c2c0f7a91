#!/bin/sh
# Both validations of both templates: `sam validate` runs the translator's checks, `--lint` cfn-lint's, and they find
# different faults. Makes .tools/sam from requirements/sam.txt on first use. Takes about a minute; asks AWS nothing.
# Usage: sam/validate.sh [TEMPLATE...]
set -eu
cd "$(dirname "$0")/.."
export SAM_CLI_TELEMETRY=0
export AWS_DEFAULT_REGION="${AWS_DEFAULT_REGION:-${AWS_REGION:-us-east-1}}"  # sam does not read AWS_REGION
# The translator asks for managed policies with credentials, if there are any; there need not be.
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_EC2_METADATA_DISABLED=true
unset AWS_PROFILE AWS_SESSION_TOKEN || true

if [ ! -x .tools/sam/bin/sam ] || [ requirements/sam.txt -nt .tools/sam/.ready ]; then
    [ -x .tools/uv/bin/uv ] || { echo "validate: .tools/uv is missing; run make setup first" >&2; exit 2; }
    echo "validate: installing the AWS SAM CLI into .tools/sam (once, about a minute)" >&2
    .tools/uv/bin/uv venv --quiet --no-project --clear --python .venv/bin/python .tools/sam
    .tools/uv/bin/uv pip sync --quiet --python .tools/sam/bin/python --require-hashes requirements/sam.txt
    touch .tools/sam/.ready
fi

[ $# -gt 0 ] || set -- sam/template.yaml sam/layer.yaml
failed=0
for template; do
    for check in "" --lint; do
        echo "validate: sam validate $check -t $template" >&2
        said=$(.tools/sam/bin/sam validate $check -t "$template" 2>&1) || { failed=1; printf '%s\n' "$said" >&2; }
    done
done
[ $failed -eq 0 ] && echo "validate: $# templates are valid" >&2
exit $failed
