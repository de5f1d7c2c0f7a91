#!/bin/sh
# Gates a deployment on the three smoke checks of the conformance suite; it judges nothing itself.
set -eu
unset PYTHONDONTWRITEBYTECODE

usage() {
    cat <<'HELP'
usage: test_deployment.sh BASE_URL [OPTION...]

Three checks of a deployment, in seconds: get_environment_info, 2 + 3, list_preinstalled_packages.
BASE_URL is the address of the stage, or the whole endpoint that ends in /lambda/mcp/.
Options are those of the suite, such as --out DIR or --timeout S.
MCP_API_KEY (environment or .env) is sent as x-api-key. Sets up .venv the first time.

examples:
  ./test_deployment.sh https://ID.execute-api.us-east-1.amazonaws.com/prod
  MCP_API_KEY=... ./test_deployment.sh https://ID.execute-api.us-east-1.amazonaws.com/prod/lambda/mcp/

exit codes: 0 pass, 1 a check failed, 2 usage, 3 unreachable or key refused, 130 interrupted
HELP
}

case "${1:-}" in
-h | --help) usage; exit 0 ;;
http://* | https://*) ;;
*) echo "${1:-No BASE_URL}: give the address of a stage that starts with http:// or https://" >&2; exit 2 ;;
esac

base=${1%/}
shift
endpoint=${base%/lambda/mcp}/lambda/mcp/
cd "$(dirname "$0")"
make -s setup || exit 2
echo "Testing deployment at $endpoint"
echo "  get_environment_info; 2 + 3 printing 计算结果: 5; list_preinstalled_packages with numpy, pandas, matplotlib"
code=0
.venv/bin/python -m conformance "$endpoint" --smoke "$@" || code=$?
case $code in
0) echo "deployment test: passed" ;;
1) echo "deployment test: FAILED; report.html among the records shows what was sent and answered" ;;
*) echo "deployment test: not done (exit code $code)" ;;
esac
exit $code
