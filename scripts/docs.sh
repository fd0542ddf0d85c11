#!/usr/bin/env bash
# The documentation site: `bash scripts/docs.sh [FOLDER]` builds it into FOLDER (build/site); a warning is an error.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

bash "$ROOT/scripts/install.sh"
SITE=${1:-$ROOT/build/site}
case $SITE in /*) ;; *) SITE=$PWD/$SITE ;; esac
cd "$ROOT"
exec "$PYTHON" -m scripts.docs "$SITE"
