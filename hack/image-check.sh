#!/usr/bin/env bash
# Whether the image's steps work, and whether the image runs as the manifests run it: as user 999, without a capability, on
# a root that nobody may write to, and here without a network as well.
#
#   hack/image-check.sh            builds and packs the image first: all of the Dockerfile but what it takes from a registry
#   hack/image-check.sh IMAGE      takes one that is there
#
# Needs podman or docker; ENGINE says which if there are both. Without IMAGE also what hack/image.sh needs; PROFILE=dev
# builds faster. Nothing is pulled.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "image-check.sh: $*" >&2
  exit 1
}

engine=${ENGINE:-}
for candidate in podman docker; do
  [ -n "$engine" ] || ! command -v "$candidate" >/dev/null || engine=$candidate
done
[ -n "$engine" ] || fail "neither podman nor docker is there"

scratch=$(mktemp -d)
containers=() images=()
end() {
  local code=$?
  for container in ${containers[@]+"${containers[@]}"}; do
    [ $code -eq 0 ] || "$engine" logs --tail 20 "$container" >&2 || true
    "$engine" rm --force "$container" >"$scratch/said" 2>&1 || cat "$scratch/said" >&2
  done
  for made in ${images[@]+"${images[@]}"}; do
    "$engine" rmi --force "$made" >"$scratch/said" 2>&1 || cat "$scratch/said" >&2
  done
  rm -rf "$scratch"
}
trap end EXIT

# The files of an image, as a container would see them.
unpack() { # IMAGE: a tar archive on stdout
  local container
  container=$("$engine" create --network none "$1" none)
  containers+=("$container")
  "$engine" export "$container"
}

build() { # IMAGE
  local arch context=tiphys-context:$$
  case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) fail "there are no images for $(uname -m)" ;;
  esac
  # What the stage "build" has, .dockerignore applied: that has to be enough to build from.
  printf 'FROM scratch\nCOPY . /\n' >"$scratch/Context"
  images+=("$context")
  "$engine" build --network none --file "$scratch/Context" --tag "$context" .
  mkdir "$scratch/source"
  unpack "$context" >"$scratch/source.tar"
  tar --extract --file "$scratch/source.tar" --directory "$scratch/source"
  "$scratch/source/hack/image.sh" "$scratch/dist/$arch"

  images+=("$1")
  "$engine" build --network none --file Dockerfile --platform "linux/$arch" --build-arg SOURCE=prebuilt --tag "$1" \
    "$scratch/dist"
}

image=${1:-}
if [ -z "$image" ]; then
  image=tiphys-check:$$
  # cargo goes by the folder in which it is called.
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
  build "$image"
fi

restricted=(--network none --read-only --user 999:999 --cap-drop all --security-opt no-new-privileges)
# podman puts writable folders into a root that is read-only, Kubernetes does not.
[ "${engine##*/}" != podman ] || restricted+=(--read-only-tmpfs=false)
run() { "$engine" run --rm "${restricted[@]}" "$@"; }

# Nothing is in it but the program under its names, and a name for its user. The rest is what engines add.
unpack "$image" >"$scratch/image.tar"
tar --list --file "$scratch/image.tar" | sed 's|^\./||' | grep -vE '/$|^(dev|proc|run|sys)/|^etc/(hostname|hosts|mtab|resolv\.conf)$|^\.dockerenv$' |
  sort >"$scratch/files"
printf '%s\n' etc/group etc/passwd usr/local/bin/{argocd-agent,argocd-agentctl,tiphys} | diff -u - "$scratch/files" >&2 ||
  fail "that is not what belongs into the image"
user=$("$engine" image inspect --format '{{.Config.User}}' "$image")
[ "$user" = 999:999 ] || fail "it would run as '$user'"

run "$image" version
run "$image" --help >"$scratch/help"
grep -q '^Usage: tiphys' "$scratch/help" || fail "--help says: $(cat "$scratch/help")"
for name in argocd-agent argocd-agentctl; do
  said=$(run --entrypoint "/usr/local/bin/$name" "$image" version)
  [[ $said == "$name "* ]] || fail "as $name it says: $said"
done
# Whoever starts it without an option that it needs is told so; that is 2, not a crash.
code=0
run "$image" agent >"$scratch/said" 2>&1 || code=$?
[ "$code" -eq 2 ] || fail "an agent without options ends with $code: $(cat "$scratch/said")"

# API servers, principal and agents over mutual TLS: whatever a static binary may lack would be missed here.
run --tmpfs /tmp:rw,mode=1777,size=64m "$image" demo --once --agents 2 --apps 5

# A control plane of its own, in the only folder that can be written to.
principal=$("$engine" run --detach "${restricted[@]}" --tmpfs /data:rw,mode=1777,size=64m "$image" principal \
  --embedded /data/control-plane)
containers+=("$principal")
inside() { "$engine" exec "$principal" /usr/local/bin/tiphys "$@"; }
for attempt in {1..100}; do
  # The page answers 503 until it is ready.
  ! inside status --metrics-url http://127.0.0.1:8003/readyz >"$scratch/said" 2>&1 || break
  [ "$attempt" -lt 100 ] || fail "the principal is not ready: $(cat "$scratch/said")"
  sleep 0.2
done
inside agent token create --name edge-1 --kubeconfig /data/control-plane/kubeconfig >"$scratch/token"
grep -q '^tiphys1\.edge-1\.' "$scratch/token" || fail "that is no token: $(cat "$scratch/token")"
"$engine" stop -t 20 "$principal" >"$scratch/said"
code=$("$engine" inspect --format '{{.State.ExitCode}}' "$principal")
[ "$code" -eq 0 ] || fail "the principal ended with $code when it was stopped"
echo "image-check.sh: ok"
