# Shared by the scripts of this folder; sourced, never run. Sets ROOT (the checkout) and VENV (its environment).
# shellcheck shell=bash
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=${VGR_VENV:-$ROOT/.venv}
case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac
# shellcheck disable=SC2034  # used by the scripts that source this file
PYTHON=$VENV/bin/python
unset PYTHONDONTWRITEBYTECODE # byte-compiled packages halve the start of a run

say() { printf '%s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

python_version() { # PYTHON; prints for example 3.11, or nothing when it does not run
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

find_python() { # prints a Python 3.11; VGR_PYTHON names one
    local candidate version
    local how="install Python 3.11 or set VGR_PYTHON=/path/to/python3.11"
    if [ -n "${VGR_PYTHON:-}" ]; then
        version=$(python_version "$VGR_PYTHON")
        [ -n "$version" ] || fail "VGR_PYTHON=$VGR_PYTHON does not run; $how"
        [ "$version" = 3.11 ] || fail "VGR_PYTHON=$VGR_PYTHON is Python $version, expected 3.11; $how"
        command -v "$VGR_PYTHON"
        return
    fi
    for candidate in python3.11 python3 python; do
        if [ "$(python_version "$candidate")" = 3.11 ]; then
            command -v "$candidate"
            return
        fi
    done
    version=$(python_version python3)
    fail "the pinned packages need Python 3.11, found ${version:-none} on PATH; $how"
}

uv_index_arguments() { # PYTHON; fills UV_INDEX with uv's words for what pip is configured with
    local settings word
    settings=$("$1" -m pip config list 2>/dev/null || true)
    UV_INDEX=(--index-strategy unsafe-best-match) # pip's own rule: the indexes are equals
    for word in $(pip_setting "$settings" index-url); do UV_INDEX+=(--default-index "$word"); done
    for word in $(pip_setting "$settings" extra-index-url); do UV_INDEX+=(--index "$word"); done
    for word in $(pip_setting "$settings" find-links); do UV_INDEX+=(--find-links "$word"); done
    word=$(pip_setting "$settings" cert)
    if [ -n "$word" ]; then export SSL_CERT_FILE=${SSL_CERT_FILE:-$word}; fi
}

pip_setting() { # SETTINGS NAME; the environment's value wins over a configuration file's
    local section value
    for section in :env: install global; do
        value=$(sed -n "s/^$section\.$2='\(.*\)'\$/\1/p" <<<"$1" | head -n 1)
        if [ -n "$value" ]; then
            printf '%s\n' "${value//\\n/ }"
            return
        fi
    done
}

install_seconds() { # how long the environment took to make, or nothing
    tail -n 1 "$VENV/.vgr-rl-installed" 2>/dev/null || true
}

run_contained() { # ARGUMENT... of contained.py; INT and TERM to this script end the command and all it started
    local status=0 child
    "$PYTHON" "$ROOT/scripts/contained.py" "$@" 8>&- 9>&- &
    child=$!
    trap 'stop_contained '"$child"' 130' INT
    trap 'stop_contained '"$child"' 143' TERM HUP
    wait "$child" || status=$?
    trap - INT TERM HUP
    return "$status"
}

stop_contained() { # PROCESS STATUS
    trap '' INT TERM HUP
    say ""
    say "Stopping; this takes up to half a minute."
    kill -TERM "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    exit "$2"
}
