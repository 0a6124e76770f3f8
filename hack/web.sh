#!/usr/bin/env bash
# The page about the fleet in a real browser: a principal without Kubernetes, agents of both modes on clusters of their own,
# one of which is killed, one of which has a certificate that ends soon, and one of which refuses an Application. The browser
# logs in as a person would; what must be there is looked for, and nothing may be asked of anybody else.
#
#   cargo build -p tiphys
#   hack/web.sh target/debug                    checks
#   hack/web.sh target/debug docs/src/images    and keeps the pictures
#   BROWSER=/usr/bin/chromium hack/web.sh target/debug
#
# Needs Chromium or Chrome, and Python for talking to it.
set -euo pipefail
hack=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=$(cd "${1:?which folder has the program}" && pwd)/tiphys
pictures=${2:-}
[ -z "$pictures" ] || pictures=$(mkdir -p "$pictures" && cd "$pictures" && pwd)

fail() {
  echo "web.sh: $*" >&2
  exit 1
}

browser=${BROWSER:-}
for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
  [ -n "$browser" ] || browser=$(command -v "$name" || true)
done
[ -n "$browser" ] || fail "no Chromium or Chrome found: install one, or name it with BROWSER"
command -v "$browser" >/dev/null || fail "there is no browser $browser: name another with BROWSER"
command -v python3 >/dev/null || fail "python3 is missing; it talks to the browser"
[ -x "$program" ] || fail "there is no $program: cargo build -p tiphys"

scratch=$(mktemp -d)
running=()
end() {
  local code=$?
  [ ${#running[@]} -eq 0 ] || kill "${running[@]}" 2>/dev/null || true
  wait
  [ $code -eq 0 ] || tail -n 5 "$scratch"/*.log >&2 || true
  rm -rf "$scratch"
}
trap end EXIT
cd "$scratch"
# Options that somebody has set for other runs are not for these.
for name in $(compgen -e | grep -E '^(ARGOCD_|TIPHYS_)' || true); do unset "$name"; done
unset KUBECONFIG

start() { # NAME COMMAND…
  local name=$1
  shift
  "$@" >"$name.log" 2>&1 &
  running+=($!)
}

until_so() { # WHAT COMMAND…
  local what=$1
  shift
  for _ in {1..300}; do
    "$@" >/dev/null 2>&1 && return
    sleep 0.2
  done
  fail "it never came: $what"
}

# Free a moment ago, which is as good as it gets for options that take a number.
ports() {
  python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
PYTHON
}
read -r web grpc proxy <<<"$(ports 3)"

quiet=(--metrics-port 0 --healthz-port 0 --log-level warn)
start principal "$program" principal --embedded control-plane --embedded-listen-port 0 --listen-host 127.0.0.1 \
  --listen-port "$grpc" --resource-proxy-listen-port "$proxy" --web-port "$web" "${quiet[@]}"
control=$scratch/control-plane/kubeconfig
until_so "the page" python3 -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$web/')"

# A cluster is an embedded API server, too; that a principal of its own comes with it does not matter.
cluster() { # NAME
  start "cluster-$1" "$program" principal --embedded "cluster-$1" --embedded-listen-port 0 --listen-host 127.0.0.1 \
    --listen-port 0 --enable-resource-proxy false "${quiet[@]}"
  until_so "the cluster $1" kubectl --kubeconfig "cluster-$1/kubeconfig" --namespace argocd get appproject default
}

agent() { # NAME MODE DAYS OPTION…
  local name=$1 mode=$2 days=$3
  shift 3
  "$program" agent create "$name" --kubeconfig "$control" --resource-proxy-server "localhost:$proxy" >/dev/null
  "$program" pki issue agent "$name" --days "$days" --upsert --kubeconfig "$control" \
    --agent-kubeconfig "cluster-$name/kubeconfig" >/dev/null
  start "agent-$name" "$program" agent --kubeconfig "cluster-$name/kubeconfig" --namespace argocd --agent-mode "$mode" \
    --creds mtls:any --server-address localhost --server-port "$grpc" --redis-addr none "${quiet[@]}" "$@"
}

application() { # NAME PATH
  cat <<YAML
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: $1}
spec:
  project: default
  source: {repoURL: https://github.com/argoproj/argocd-example-apps, path: $2, targetRevision: HEAD}
  destination: {server: https://kubernetes.default.svc, namespace: shop}
YAML
}

for name in berlin lisbon oslo harbour; do
  cluster "$name"
  kubectl --kubeconfig "$control" create namespace "$name" >/dev/null
done
application guestbook theirs | kubectl --kubeconfig cluster-lisbon/kubeconfig --namespace argocd create --filename - >/dev/null
agent berlin managed 90
agent lisbon managed 10 --adoption-policy never
agent oslo managed 90
gone=${running[-1]}
agent harbour autonomous 90
for name in berlin lisbon oslo; do
  application guestbook ours | kubectl --kubeconfig "$control" --namespace "$name" create --filename - >/dev/null
done
copied() { kubectl --kubeconfig "cluster-$1/kubeconfig" --namespace argocd get application guestbook; }
until_so "the copy at berlin" copied berlin
until_so "the copy at oslo" copied oslo
kill -9 "$gone"
# What oslo does not hear of any more.
kubectl --kubeconfig "$control" --namespace oslo delete application guestbook --wait=false >/dev/null

token=$(kubectl --kubeconfig "$control" config view --raw --output 'jsonpath={.users[0].user.token}')
TOKEN=$token python3 "$hack/web/look.py" "$browser" "http://127.0.0.1:$web/" ${pictures:+"$pictures"}
