#!/usr/bin/env bash
# Helm, for those who check or render the charts: builds the version that hack/helm/go.mod names, once, then runs it with
# the arguments given.
#
#   hack/helm.sh lint manifests/helm/tiphys-principal
#
# The binary is kept outside the checkout, under a name that tells its version. The first build takes some minutes.
set -euo pipefail

source=$(cd "$(dirname "${BASH_SOURCE[0]}")/helm" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tiphys
hash=$(cat "$source/go.mod" "$source/go.sum" | sha256sum | cut -c1-16)
binary=$cache/helm-$hash

build() {
  if ! command -v go >/dev/null; then
    echo "helm.sh: go is missing; it is needed to build Helm (see the go line of hack/helm/go.mod for the version)" >&2
    exit 1
  fi
  echo "helm.sh: building Helm into $binary; this happens once" >&2
  (cd "$source" && CGO_ENABLED=0 nice -n 5 go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$binary.new" \
    helm.sh/helm/v4/cmd/helm)
  mv "$binary.new" "$binary"
}

if [ ! -x "$binary" ]; then
  mkdir -p "$cache"
  # Whoever comes second waits here, and finds the binary made.
  exec {lock}>"$binary.lock"
  flock "$lock"
  [ -x "$binary" ] || build
  exec {lock}>&-
fi
# What a user has configured for Helm is not looked at, nor written to.
exec env HELM_CONFIG_HOME="$cache/helm" HELM_CACHE_HOME="$cache/helm" HELM_DATA_HOME="$cache/helm" "$binary" "$@"
