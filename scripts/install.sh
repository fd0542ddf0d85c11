#!/usr/bin/env bash
# Makes the Python environment of this checkout: `bash scripts/install.sh [cpu|gpu|peers]`; a second call returns at once.
#
#   VGR_VENV       where it lies (default: .venv at the root of the checkout)
#   VGR_PYTHON     the Python 3.11 to make it with (default: found on PATH)
#   VGR_INSTALLER  uv | pip (default: uv, and pip when uv fails); uv installs in seconds what takes pip minutes
#
# The packages are those of requirements/<stack>.lock, exactly. An install that was interrupted is started afresh.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

STACK=${1:-cpu}
LOCK=$ROOT/requirements/$STACK.lock
STAMP=$VENV/.vgr-rl-installed   # line 1: what was installed; line 2: the seconds it took
UNFINISHED=$VENV.installing       # beside the environment, which is wiped when this file is found
LOG=$VENV/install.log

wanted() { # one word for everything the environment is made from
    local python=${VGR_PYTHON:-}
    (
        printf '%s\n' "$STACK" "$ROOT" "$VENV" "$python"
        cat "$LOCK" "$ROOT"/pyproject.toml "$ROOT"/vgr_rl/cpu/_torchvision_cpu.py "$ROOT"/vgr_rl/cpu/torchvision_cpu.pth
    ) | sha256sum | cut -d ' ' -f 1
}

installed() {
    [ -x "$PYTHON" ] && [ -f "$STAMP" ] && [ "$(head -n 1 "$STAMP")" = "$(wanted)" ]
}

check_place() { # never turn a folder that holds something else into an environment
    local available_kib
    if [ -d "$VENV" ] && [ ! -f "$VENV/pyvenv.cfg" ] && [ ! -f "$UNFINISHED" ] && [ -n "$(ls -A "$VENV")" ]; then
        fail "VGR_VENV=$VENV holds files but is no Python environment; name another folder"
    fi
    mkdir -p "$VENV"
    available_kib=$(df -Pk "$VENV" | awk 'NR == 2 { print $4 }')
    if [ ! -f "$VENV/pyvenv.cfg" ] && [ "$available_kib" -lt 6000000 ]; then
        fail "$VENV has $((available_kib / 1000000)) GB free, expected 6; free some or set VGR_VENV to another disk"
    fi
}

check_libraries() { # what the packages load from the system, and no package brings
    [ "$STACK" = cpu ] || return 0
    "$(find_python)" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null ||
        fail "vLLM on CPUs needs libnuma.so.1, which is not here; on Debian and Ubuntu: apt install libnuma1"
}

make_environment() {
    local python
    if [ ! -f "$UNFINISHED" ] && [ "$(python_version "$PYTHON")" = 3.11 ]; then return; fi
    python=$(find_python)
    : >"$UNFINISHED"
    say "  environment $VENV, with $python"
    "$python" -m venv --clear "$VENV" ||
        fail "$python cannot make an environment (on Debian and Ubuntu: apt install python3.11-venv)"
}

uv_install() { # ARGUMENT...
    local uv=("$PYTHON" -m uv)
    if ! "${uv[@]}" --version; then
        "$PYTHON" -m pip install --quiet uv || return
    fi
    "${uv[@]}" pip install --python "$PYTHON" --no-deps "$@"
}

with_uv() { # REQUIREMENTS; torch's +cpu build is looked for where pip looks, then in PyTorch's own index, which uv knows
    [ "${VGR_INSTALLER:-uv}" = uv ] || return
    uv_index_arguments "$PYTHON"
    uv_install "${UV_INDEX[@]}" --requirement "$1" && return
    [ "$STACK" != gpu ] && uv_install --torch-backend cpu --requirement "$1"
}

with_pip() { # REQUIREMENTS
    "$PYTHON" -m pip install --no-deps --no-compile --requirement "$1"
}

install_packages() {
    local packages=$VENV/packages.txt
    grep -v '^flash-attn==' "$LOCK" >"$packages"
    with_uv "$packages" || with_pip "$packages" || return
    if grep -q '^flash-attn==' "$LOCK"; then # compiled here, against the torch that was just installed
        "$PYTHON" -m pip install --no-deps --no-build-isolation "$(grep '^flash-attn==' "$LOCK")"
    fi
}

compile_bytecode() { # without what no run imports; what is missing here is compiled when it is first imported
    local unused='site-packages/(.*/tests?/|ray/rllib/|pip/|sympy/.*benchmarks/|transformers/models/(?!auto|clip|qwen|siglip))'
    "$PYTHON" -m compileall -qq -j 0 -x "$unused" "$VENV"/lib/python3.11/site-packages || true # some files are templates
}

install_ourselves() {
    "$PYTHON" -m pip install --no-deps --editable "$ROOT"
}

logged() { # COMMAND...; on failure shows the end of the log and stops
    if ! "$@" >>"$LOG" 2>&1 </dev/null; then
        tail -n 25 "$LOG" >&2
        fail "the install failed at $1; the whole log is $LOG"
    fi
}

install() {
    local start=$SECONDS
    check_place
    check_libraries
    say "Installing $(grep -c '==' "$LOCK") packages ($STACK): 1 to 5 minutes, 3.5 GB (gpu: 15 GB, and flash-attn is compiled)."
    rm -f "$STAMP"
    make_environment
    : >"$UNFINISHED"
    : >"$LOG"
    say "  packages of requirements/$STACK.lock"
    logged install_packages
    say "  vgr-rl itself, as an editable install"
    logged install_ourselves
    logged "$PYTHON" -c 'import torch, torchvision, vgr_rl'
    say "  byte code, so that runs start in half the time"
    logged compile_bytecode
    printf '%s\n' "$(wanted)" "$((SECONDS - start))" >"$STAMP"
    rm -f "$UNFINISHED"
    say "  installed in $((SECONDS - start)) s"
}

[ "$(uname -s)" = Linux ] || fail "the pinned packages exist for Linux only, this is $(uname -s)"
[ -f "$LOCK" ] || fail "no stack named '$STACK'; expected cpu, gpu or peers"
if installed; then exit 0; fi
mkdir -p "$(dirname "$VENV")"
if command -v flock >/dev/null; then
    exec 9>"$VENV.lock"
    if ! flock --nonblock 9; then
        say "Another install into $VENV is going on; waiting for it."
        flock 9
    fi
fi
if ! installed; then install; fi
