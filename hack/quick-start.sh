#!/usr/bin/env bash
# Does what the book's quick start says, command by command as it stands there, on real API servers, and fails if a
# command fails or if there are more than fifteen.
#
#   cargo build -p tiphys
#   hack/kube.sh up --clusters 2 --crds manifests/crds -- hack/quick-start.sh target/debug
#
# A comment before a block of the page says what kind it is: `terminals`, each paragraph goes on in one of its own;
# `until`, to be repeated until it works; `elsewhere`, not for here. Anything else is done once.
set -euo pipefail
programs=$(cd "${1:?which folder has the program}" && pwd)
page=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/docs/src/quick-start.md
limit=15

scratch=$(mktemp -d)
running=()
end() {
  local code=$?
  [ ${#running[@]} -eq 0 ] || kill "${running[@]}" 2>/dev/null || true
  wait
  [ $code -eq 0 ] || tail -n 20 "$scratch"/terminal-*.log >&2 || true
  rm -rf "$scratch"
}
trap end EXIT
export PATH=$programs:$PATH
cd "$scratch"

# Each block in a file of its own, its kind in the name.
awk -v folder="$scratch" '
  /^## / { inside = ($0 == "## On clusters of your own") }
  !inside { next }
  /^<!-- (terminals|until|elsewhere) -->$/ { kind = $2; next }
  /^```sh$/ { file = sprintf("%s/block-%02d-%s.sh", folder, ++blocks, kind ? kind : "once"); kind = ""; writing = 1; next }
  /^```$/ { writing = 0; next }
  writing { print > file }
' "$page"

# What a user types: neither the way into a folder nor a name for later is a command that counts.
commands=0
count() {
  case $BASH_COMMAND in
    cd\ * | mkdir\ * | [a-z]*=* | eval\ * | trap\ *) ;;
    *) commands=$((commands + 1)) ;;
  esac
}
for block in "$scratch"/block-*.sh; do
  case $block in
    *-elsewhere.sh) ;;
    *-terminals.sh)
      csplit --quiet --elide-empty-files --suppress-matched --prefix "$block." "$block" '/^$/' '{*}'
      for terminal in "$block".*; do
        commands=$((commands + 1))
        bash -euo pipefail "$terminal" >"$scratch/terminal-${#running[@]}.log" 2>&1 &
        running+=($!)
      done
      ;;
    *-until.sh)
      commands=$((commands + $(grep -cE '^[a-z]' "$block")))
      for attempt in {1..60}; do
        bash -euo pipefail "$block" && break
        [ "$attempt" -lt 60 ] || { echo "quick-start.sh: it never worked: $(cat "$block")" >&2; exit 1; }
        sleep 1
      done
      ;;
    *)
      cat "$block" >&2
      trap count DEBUG
      eval "$(cat "$block")"
      trap - DEBUG
      ;;
  esac
done
for terminal in "${running[@]}"; do
  kill -0 "$terminal" || { echo "quick-start.sh: a side has ended by itself" >&2; exit 1; }
done
[ "$commands" -ge 5 ] || { echo "quick-start.sh: only $commands commands found in $page" >&2; exit 1; }
[ "$commands" -le "$limit" ] || { echo "quick-start.sh: $commands commands, more than $limit" >&2; exit 1; }
echo "quick-start.sh: ok, $commands commands"
