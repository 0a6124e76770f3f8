#!/usr/bin/env bash
# Argo CD over Tiphys on three real Kubernetes API servers, and all that a user does with it, step by step:
#
#   hack/argocd.sh                                  run all steps, tear down
#   hack/argocd.sh --stay                           leave it running until Ctrl-C
#   TIPHYS=/path/to/tiphys REDIS_SERVER=redis-server hack/argocd.sh
#
# Argo CD comes from its published Go modules, see hack/argocd. The binary is kept outside the checkout, under a name
# that tells its sources, so that it is built again only when they change. The first build takes many minutes.
set -euo pipefail

hack=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$hack/argocd
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tiphys
hash=$(cd "$source" && printf '%s\0' go.mod go.sum "../${BASH_SOURCE[0]##*/}" ./*.go | grep -zv '_test\.go$' |
  xargs -0 sha256sum | sha256sum | cut -c1-16)
binary=$cache/argocd-$hash
module=github.com/argoproj/argo-cd/v3

build() {
  if ! command -v go >/dev/null; then
    echo "argocd.sh: go is missing; it is needed to build Argo CD (see the go line of hack/argocd/go.mod for the version)" >&2
    exit 1
  fi
  echo "argocd.sh: building Argo CD into $binary; this happens once" >&2
  local version
  version=$(cd "$source" && go list -m -f '{{.Version}}' $module)
  (cd "$source" && CGO_ENABLED=0 nice -n "${BUILD_NICE:-5}" go build -trimpath -buildvcs=false -o "$binary.new" \
    -ldflags "-s -w -X $module/common.version=${version#v}" .)
  # Argo CD's own definitions, of the same version.
  rm -rf "$binary.crds"
  mkdir "$binary.crds"
  cp "$(cd "$source" && go list -m -f '{{.Dir}}' $module)"/manifests/crds/*-crd.yaml "$binary.crds"
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

if [ -z "${TIPHYS:-}" ]; then
  (cd "$hack/.." && cargo build --quiet -p tiphys)
  TIPHYS=${CARGO_TARGET_DIR:-$hack/../target}/debug/tiphys
fi
exec "$hack/kube.sh" up --clusters 3 --pods --crds "$binary.crds" -- "$binary" run --tiphys "$TIPHYS" "$@"
