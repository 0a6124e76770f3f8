#!/usr/bin/env bash
# Runs the fuzz targets of test/fuzz, one after the other: hack/fuzz.sh SECONDS [TARGET...]
#
# Needs cargo-fuzz (cargo install cargo-fuzz) and a C++ compiler; works with stable Rust. What is new and interesting
# goes into a temporary folder; input that breaks something is kept in test/fuzz/artifacts, and belongs into
# test/fuzz/corpus once it is mended, where the normal tests see it, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../test/fuzz"

if [[ ! ${1:-} =~ ^[0-9]+$ ]]; then
  echo "usage: hack/fuzz.sh SECONDS [TARGET...]: how long each target runs" >&2
  exit 2
fi
seconds=$1
shift
if ! cargo fuzz --version >/dev/null 2>&1; then
  echo "fuzz.sh: cargo-fuzz is missing: run cargo install cargo-fuzz" >&2
  exit 1
fi
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for file in src/bin/*.rs; do
    targets+=("$(basename "$file" .rs)")
  done
fi

found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
for target in "${targets[@]}"; do
  mkdir -p "$found/$target"
  echo "fuzz: $target: $seconds s"
  cargo fuzz run -s none --fuzz-dir . "$target" "$found/$target" "corpus/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=0 -verbosity=0
done
echo "fuzz: ${#targets[@]} targets, $seconds s each, nothing found"
