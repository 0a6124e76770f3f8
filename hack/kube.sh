#!/usr/bin/env bash
# Real Kubernetes API servers for tests: builds hack/kube once, then runs it with the arguments given.
#
#   hack/kube.sh up --clusters 3 --crds manifests/crds -- kubectl --context cluster-1 get namespaces
#
# The binary is kept outside the checkout, under a name that tells its sources, so that it is built again only
# when they change. The first build takes some minutes.
set -euo pipefail

source=$(cd "$(dirname "${BASH_SOURCE[0]}")/kube" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tiphys
hash=$(cd "$source" && printf '%s\0' go.mod go.sum "../${BASH_SOURCE[0]##*/}" ./*.go | grep -zv '_test\.go$' |
  xargs -0 sha256sum | sha256sum | cut -c1-16)
binary=$cache/kube-$hash

build() {
  if ! command -v go >/dev/null; then
    echo "kube.sh: go is missing; it is needed to build the test clusters (see the go line of hack/kube/go.mod for the version)" >&2
    exit 1
  fi
  echo "kube.sh: building kube-apiserver and etcd into $binary; this happens once" >&2
  # What the API server says at /version, as the Kubernetes release scripts set it.
  local version rest
  version=$(cd "$source" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
  rest=${version#v*.}
  local name=k8s.io/component-base/version
  (cd "$source" && CGO_ENABLED=0 nice -n 5 go build -trimpath -buildvcs=false -o "$binary.new" -ldflags "-s -w \
    -X $name.gitVersion=$version -X $name.gitMajor=1 -X $name.gitMinor=${rest%%.*}" .)
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
exec "$binary" "$@"
