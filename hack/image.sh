#!/usr/bin/env bash
# The root folder of the image for this machine's architecture: builds the static binary and puts it under all its names.
# Needs a C compiler for musl (Debian: musl-tools) and cmake. PROFILE=dev builds faster, for trials. hack/image-check.sh
# does this and the rest of the Dockerfile, and tries the image.
#
#   hack/image.sh dist/amd64
set -euo pipefail
out=$(mkdir -p "${1:?say where to}" && cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "image.sh: $*" >&2
  exit 1
}

profile=${PROFILE:-release}
target=$(uname -m)-unknown-linux-musl
if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
  rustup target add "$target" || fail "this Rust has no standard library for $target; rustup would bring it"
fi
cargo build --locked --profile "$profile" --target "$target" -p tiphys
folder=${profile/#dev/debug}
install -D -m 755 "${CARGO_TARGET_DIR:-target}/$target/$folder/tiphys" "$out/usr/local/bin/tiphys"
for name in argocd-agent argocd-agentctl; do ln -sf tiphys "$out/usr/local/bin/$name"; done
# So that people who look see a name.
install -d "$out/etc"
printf 'tiphys:x:999:999:Tiphys:/:/sbin/nologin\n' >"$out/etc/passwd"
printf 'tiphys:x:999:\n' >"$out/etc/group"

# With nothing around it, whatever would be loaded from elsewhere is not there.
if headers=$(readelf --program-headers "$out/usr/local/bin/tiphys"); then
  [[ $headers != *INTERP* ]] || fail "the binary is not static"
else
  fail "readelf cannot read the binary"
fi
"$out/usr/local/bin/tiphys" version
"$out/usr/local/bin/argocd-agent" version
