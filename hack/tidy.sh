#!/usr/bin/env bash
# What neither compiler nor linter holds: the shape of the source tree. Prints what is wrong, with its rule.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wrong=0
complain() { # RULE LINES
  [ -z "$2" ] && return
  printf 'tidy: %s\n' "$1" >&2
  printf '%s\n' "$2" | sed 's/^/  /' >&2
  wrong=1
}

mapfile -t sources < <(find proto shared principal agent cli apiserver test -name '*.rs' -not -path '*/target/*' | sort)
if [ "${#sources[@]}" -eq 0 ]; then
  echo "tidy: no Rust sources found, so nothing was checked" >&2
  exit 1
fi
found() { grep -nE "$1" "${@:2}" /dev/null || [ $? -eq 1 ]; }

# A file that no mod line names is not compiled, and its tests do not run.
orphans=
for file in "${sources[@]}"; do
  folder=$(dirname "$file") name=$(basename "$file" .rs)
  case $file in
    */src/lib.rs | */src/main.rs | */src/bin/*.rs | */build.rs) continue ;;
  esac
  # Each of these is a root of its own; a folder of tests inside a module is not.
  [[ $folder =~ ^[^/]+/(tests|benches|examples)$ || $name = main ]] && continue
  parents=()
  for parent in "$folder.rs" "$folder/lib.rs" "$folder/main.rs"; do
    [ -f "$parent" ] && parents+=("$parent")
  done
  if [ ${#parents[@]} -eq 0 ] || ! grep -qE "^\s*(pub(\([a-z ]+\))? )?mod (r#)?$name;|#\[path = \".*$name\.rs\"\]" "${parents[@]}"; then
    orphans+="$file"$'\n'
  fi
done
complain 'every file is named by a mod line' "${orphans%$'\n'}"

names='mod|utils?|common|helpers?|types|managers?|errors'
complain 'a module is named by what it keeps' "$(printf '%s\n' "${sources[@]}" | grep -E "/($names)\.rs$" || true)"

complain 'nothing unfinished lands' "$(found '\b(todo|unimplemented)!\(|\b(TODO|FIXME|XXX)\b|#\[ignore' "${sources[@]}")"

# The rooms of shared, and which other rooms each may not know.
edge() { # ROOM FORBIDDEN
  local files=()
  for file in "${sources[@]}"; do
    case $file in shared/src/"$1".rs | shared/src/"$1"/*) files+=("$file") ;; esac
  done
  if [ ${#files[@]} -gt 0 ]; then
    complain "shared::$1 knows nothing of $2" "$(found "\bcrate::($2)\b" "${files[@]}")"
  fi
}
edge model 'protocol|wire|kube|security|process'
edge protocol 'wire|kube|security|process'
edge security 'protocol|wire|kube|process'
edge wire 'kube'
edge kube 'wire'
edge process 'protocol|wire'

inner=() outer=()
for file in "${sources[@]}"; do
  case $file in
    shared/src/model* | shared/src/protocol*) inner+=("$file") ;;
  esac
  case $file in
    shared/src/wire/codec* | shared/tests/* | test/*) ;;
    *) outer+=("$file") ;;
  esac
done
if [ ${#inner[@]} -gt 0 ]; then
  complain 'model and protocol do no I/O and know neither clients nor gRPC' \
    "$(found '\bkube::(client|runtime|api|Client|Api)\b|\b(k8s_openapi|tonic|tiphys_proto|cloudevents)::|\btokio::' "${inner[@]}")"
fi
complain 'only the codec, and tests that speak raw protobuf, name cloudevents' "$(found '\bcloudevents::' "${outer[@]}")"

exit "$wrong"
