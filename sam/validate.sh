#!/bin/sh
# Everything that can be said about the templates without AWS. `sam validate` runs the translator's checks and `--lint`
# cfn-lint's, and they find different faults; checkov looks for what is insecure (each suppression has its reason in the
# template); sam/rules.py for what all of them let pass. The SnapStart variant, which `make apigw` derives, is judged too.
# Takes a minute of one core; asks AWS nothing.
# Usage: sam/validate.sh [TEMPLATE...]
set -eu
cd "$(dirname "$0")/.."
export SAM_CLI_TELEMETRY=0
export AWS_DEFAULT_REGION="${AWS_DEFAULT_REGION:-${AWS_REGION:-us-east-1}}"  # sam does not read AWS_REGION
# The translator asks for managed policies with credentials, if there are any; there need not be.
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_EC2_METADATA_DISABLED=true
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL || true

sh sam/tool.sh sam
sh sam/tool.sh checkov
if [ $# -eq 0 ]; then
    mkdir -p .aws-sam
    cp sam/openapi.yaml .aws-sam/openapi.yaml
    .venv/bin/python -c '
import sys
from sam.deploy import snap_started
print(snap_started(sys.stdin.read()))' <sam/template.yaml >.aws-sam/snap_start.yaml
    set -- sam/template.yaml sam/layer.yaml .aws-sam/snap_start.yaml
fi
failed=0
count=$#

check() { # NAME COMMAND...: its words only when it fails
    echo "validate: $1" >&2
    shift
    said=$("$@" 2>&1) || { failed=1; printf '%s\n' "$said" >&2; }
}

for template; do
    check "sam validate $template" .tools/sam/bin/sam validate -t "$template"
    check "sam validate --lint $template" .tools/sam/bin/sam validate --lint -t "$template"
    check "cfn-lint $template" .tools/sam/bin/cfn-lint --include-checks I -- "$template"
    check "checkov $template" .tools/checkov/bin/checkov --skip-download --framework cloudformation --compact --quiet -f "$template"
    set_to=""
    case $template in *snap_start.yaml) set_to="--parameter PIsolation=snap_start" ;; esac
    # shellcheck disable=SC2086  # an option and its value, or nothing
    check "our rules, $template" .venv/bin/python -m sam.rules --template "$template" $set_to
done
[ "$failed" -eq 0 ] && echo "validate: $count templates are valid" >&2
exit $failed
