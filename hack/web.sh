#!/usr/bin/env bash
# The principal's page in a real browser, over a real principal and real agents, and all that it is to show:
#
#   hack/web.sh                               run all checks
#   hack/web.sh --pictures docs/src/images    and take the book's pictures anew
#   hack/web.sh --stay                        leave it running until Ctrl-C, for a browser of your own
#   TIPHYS=/path/to/tiphys CHROMIUM=google-chrome hack/web.sh
#
# Needs Chromium (or Chrome), Node.js 20 and kubectl. What drives the browser comes from npm, as hack/web/package-lock.json
# names it, and is kept outside the checkout. Not a part of .ci/run, which is for machines without a browser, too.
set -euo pipefail

hack=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$hack/web

missing() { # WHAT REMEDY
  echo "web.sh: $1 is missing: $2" >&2
  exit 1
}
for name in ${CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
  CHROMIUM=$(command -v "$name") && break
done
[ -x "${CHROMIUM:-}" ] || missing chromium "install it (apt install chromium), or name another by CHROMIUM=/path/to/browser"
export CHROMIUM
command -v npm >/dev/null || missing npm "install Node.js 20 or newer (apt install nodejs npm)"
command -v kubectl >/dev/null || missing kubectl "see https://kubernetes.io/docs/tasks/tools"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || missing "Node.js 20" "this one is $(node --version)"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tiphys
TIPHYS_WEB_PACKAGES=$cache/web-$(sha256sum <"$source/package-lock.json" | cut -c1-16)
export TIPHYS_WEB_PACKAGES
if [ ! -d "$TIPHYS_WEB_PACKAGES" ]; then
  mkdir -p "$cache"
  new=$(mktemp -d "$TIPHYS_WEB_PACKAGES.XXXX")
  cp "$source"/package*.json "$new"
  (cd "$new" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
  # Whoever was quicker has made the same.
  mv --no-target-directory "$new" "$TIPHYS_WEB_PACKAGES" 2>/dev/null || rm -rf "$new"
fi

if [ -z "${TIPHYS:-}" ]; then
  (cd "$hack/.." && cargo build --quiet -p tiphys)
  TIPHYS=${CARGO_TARGET_DIR:-$hack/../target}/debug/tiphys
fi
export TIPHYS
exec node "$source/main.mjs" "$@"
