#!/usr/bin/env bash
# The whole project on a laptop: `bash scripts/demo.sh [--fresh]`. No GPU, no download of models or data, about 12 minutes.
#
# Makes the environment, a data set and a cold start, improves that by GRPO through verl, Ray and vLLM, evaluates both on the
# same held-out items and writes runs/demo/report.html. A stage that is finished is not run again while its command, its code
# and the stages before it are the same; --fresh forgets all stages. VGR_DEMO_DIR names another folder than runs/demo.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DEMO=${VGR_DEMO_DIR:-$ROOT/runs/demo}
case $DEMO in /*) ;; *) DEMO=$PWD/$DEMO ;; esac
STAMPS=$DEMO/stages # a file a finished stage; line 1: what it was made from; line 2: the seconds it took
LOGS=$DEMO/logs
DATA=$DEMO/data
ORDER=(data cold_start grpo evaluate report)

# ---- What each stage runs: NAME, title, expected duration, output folder ('' when it is made elsewhere), stages and files it
# ---- depends on, command. -------------------------------------------------------------------------------------------------
world="pyproject.toml recipes/tiny vgr_rl/data vgr_rl/grounding vgr_rl/tiny vgr_rl/prepare.py"
training="$world requirements/cpu.lock rewards vgr_rl/config vgr_rl/cpu vgr_rl/training"
evaluation="$world rewards vgr_rl/benchmarks vgr_rl/config/evaluation vgr_rl/evaluate.py"

stages() {
    stage data "Data: pictures of coloured shapes, questions, true boxes" "20 s" "$DATA" "" "$world" \
        python -m vgr_rl.prepare tiny --out "$DATA"
    stage cold_start "Cold start: supervised training on noisy traces" "3 min" "$DEMO/sft" "data" "$training vgr_rl/sft.py" \
        python -m vgr_rl.sft recipe=tiny run_dir="$DEMO/sft" data.train_files="$DATA/sft_train.parquet" data.val_files="$DATA/sft_val.parquet"
    stage grpo "GRPO: rewards for answer, format and boxes" "8 min" "$DEMO/grpo" "cold_start" "$training vgr_rl/main.py vgr_rl/plugin.py vgr_rl/verl_patches.py" \
        python -m vgr_rl.main recipe=tiny run_dir="$DEMO/grpo" model.path="$DEMO/sft/model" data.train_files="$DATA/train.parquet" data.val_files="$DATA/val.parquet"
    stage evaluate "Evaluation of both models on the same held-out items" "2 min" "$DEMO/eval" "cold_start grpo" "$evaluation" \
        python -m vgr_rl.evaluate max_new_tokens=112 data="$DATA/heldout.parquet" \
        model="[$DEMO/sft/model,$DEMO/grpo/model]" out="[$DEMO/eval/cold_start,$DEMO/eval/grpo]"
    stage report "Report: curves, tables and traces" "20 s" "" "evaluate" "vgr_rl/viewer vgr_rl/report.py" \
        python -m vgr_rl.report "$DEMO"
}

# ---- How a stage is run ---------------------------------------------------------------------------------------------------
stage() { # NAME TITLE DURATION OUTPUT STAGES FILES COMMAND...
    local name=$1 title=$2 duration=$3 output=$4 before=$5 files=$6
    shift 6
    local key start=$SECONDS log=$LOGS/$name.log
    key=$(fingerprint "$before" "$files" "$*")
    if [ "$(head -n 1 "$STAMPS/$name" 2>/dev/null)" = "$key" ] && { [ -z "$output" ] || [ -d "$output" ]; }; then
        say "[$name] $title: done already, $(tail -n 1 "$STAMPS/$name") s"
        return
    fi
    say "[$name] $title (about $duration; log: $log)"
    rm -f "$STAMPS/$name"
    # what an interrupted stage has left is gone on from, when it was made by the same command and code
    if [ -n "$output" ] && [ "$(cat "$STAMPS/$name.started" 2>/dev/null)" != "$key" ]; then rm -rf "$output"; fi
    printf '%s\n' "$key" >"$STAMPS/$name.started"
    run_contained --log "$log" "$VENV/bin/$1" "${@:2}" || stage_failed "$name" "$log" $?
    printf '%s\n' "$key" "$((SECONDS - start))" >"$STAMPS/$name"
    write_seconds
    say "  finished in $((SECONDS - start)) s"
}

fingerprint() { # STAGES FILES COMMAND
    local name
    {
        printf '%s\n' "$3" "$VENV"
        for name in $1; do head -n 1 "$STAMPS/$name"; done
        # shellcheck disable=SC2086  # a list of paths without blanks
        { find $2 -type f -not -path '*/__pycache__/*' 2>/dev/null || true; } | LC_ALL=C sort | xargs sha256sum
    } | sha256sum | cut -d ' ' -f 1
}

stage_failed() { # NAME LOG STATUS
    [ "$3" -lt 128 ] || say "  ended by signal $(($3 - 128))"
    say "  the end of its log:"
    tail -n 30 "$2" | sed 's/^/  | /'
    fail "stage $1 failed with status $3; the whole log is $2. Run the same command again to go on from this stage."
}

write_seconds() { # every finished stage, also of earlier calls, and the install
    local name separator='' seconds
    {
        printf '{'
        for name in install "${ORDER[@]}"; do
            if [ "$name" = install ]; then seconds=$(install_seconds); else seconds=$(tail -n 1 "$STAMPS/$name" 2>/dev/null || true); fi
            if [ -n "$seconds" ]; then printf '%s"%s": %s' "$separator" "$name" "$seconds" && separator=', '; fi
        done
        printf '}\n'
    } >"$DEMO/seconds.json.part"
    mv "$DEMO/seconds.json.part" "$DEMO/seconds.json"
}

check_machine() {
    local memory_gib
    memory_gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
    if [ "$memory_gib" -lt 8 ]; then say "warning: $memory_gib GiB of memory are available, the demo needs 8"; fi
    if [ "$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')" -lt 1000000 ]; then
        say "warning: /dev/shm has less than 1 GB free (in Docker: --shm-size=2g)"
    fi
}

case ${1:-} in
--fresh) fresh=yes ;;
'') fresh=no ;;
*) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 2 ;;
esac
started=$SECONDS
mkdir -p "$STAMPS" "$LOGS"
exec 8>"$DEMO/lock"
flock --nonblock 8 || fail "another demo is writing to $DEMO; wait for it or set VGR_DEMO_DIR"
if [ "$fresh" = yes ]; then rm -f "$STAMPS"/*; fi
bash "$ROOT/scripts/install.sh" 8>&-
check_machine
cd "$ROOT"
stages
say ""
say "Done in $((SECONDS - started)) s. Look at:"
sed 's/^/  /' "$DEMO/table.md"
say "  $DEMO/report.html    the page: curves, cold start against GRPO, traces on their pictures"
say "  $DEMO/summary.json   the numbers"
say "  $DEMO/grpo           the run: config.yaml, metrics.jsonl, samples.jsonl, checkpoints, tensorboard"
