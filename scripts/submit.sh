#!/usr/bin/env bash
# Runs a command of this checkout as a job of a Ray cluster, follows its log and ends with its exit status:
#   bash scripts/submit.sh --address http://HEAD:8265 [--need NAME]... [option of `ray job submit`]... -- python -m vgr_rl.main ...
# The checkout travels without what git ignores (data, runs); data and run_dir have to lie on storage that all nodes share.
# --need NAME: the job refuses to start where the environment of the nodes lacks NAME, such as WANDB_API_KEY: keys are
# exported where `ray start` runs and never travel with a job, whose description everybody on the cluster can read.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

options=()
guard=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    if [ "$1" = --need ]; then
        [[ ${2:-} =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || fail "--need takes the name of an environment variable, not '${2:-}'"
        guard+=("$2")
        shift 2
    else
        options+=("$1")
        shift
    fi
done
[ "${1:-}" = -- ] && [ $# -gt 1 ] || fail "the command is missing: bash scripts/submit.sh [option...] -- python -m vgr_rl.main ..."
shift

ray=$VENV/bin/ray
[ -x "$ray" ] || ray=$(command -v ray) || fail "there is no ray: run \`bash scripts/install.sh\`"
# A job that is stopped (`ray job stop`) finishes its step and writes a checkpoint; Ray would kill it after 3 s.
environment=$(mktemp)
trap 'rm -f "$environment"' EXIT
cat >"$environment" <<YAML
env_vars:
  RAY_JOB_STOP_WAIT_TIME_S: "${VGR_STOP_WAIT_S:-1800}"
excludes: [/.git, /.venv, /runs, /outputs]
YAML
check=""
for name in ${guard[@]+"${guard[@]}"}; do
    check+=": \"\${$name:?is not set on the cluster; export it where ray start runs}\"; "
done
[ -z "$check" ] || set -- bash -c "$check"'exec "$@"' job "$@"
"$ray" job submit --runtime-env "$environment" --working-dir "$ROOT" ${options[@]+"${options[@]}"} -- "$@"
