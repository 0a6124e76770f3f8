#!/usr/bin/env bash
# The manifests: charts are written by hand, and what kustomize builds on is rendered from them.
#
#   hack/manifests.sh write    renders manifests/kustomize anew; its values.yaml say how
#   hack/manifests.sh check    whether that is done, whether the charts refuse wrong values, and whether a real API server
#                              takes everything and finds each pod within the restricted standard; $KUBECONFIG names it
#
#   hack/kube.sh up --authorization RBAC -- hack/manifests.sh check
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
charts=manifests/helm

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "manifests: $*" >&2
  exit 1
}

# What a folder of manifests/kustomize is rendered to.
render() { # FOLDER OUTPUT
  local folder=$1 chart only=()
  case $folder in
    *principal*) chart=tiphys-principal ;;
    *) chart=tiphys-agent ;;
  esac
  case $folder in
    */components/*namespace-creation) only=(--show-only templates/namespace-creation.yaml) ;;
    */components/*resource-proxy*) only=(--show-only templates/resource-proxy.yaml) ;;
  esac
  {
    echo "# Rendered from $charts/$chart with the values.yaml beside: hack/manifests.sh write"
    hack/helm.sh template tiphys "$charts/$chart" --namespace argocd --values "$folder/values.yaml" \
      ${only[@]+"${only[@]}"} | grep -v '^# Source:' | cat -s
  } >"$2"
}

rendered() { # FOLDER: the file's name
  case $1 in
    */components/*) echo roles.yaml ;;
    *) echo install.yaml ;;
  esac
}

folders() { find manifests/kustomize -name values.yaml -printf '%h\n' | sort; }

write() {
  local folder
  for folder in $(folders); do render "$folder" "$folder/$(rendered "$folder")"; done
}

check_rendered() {
  local folder file
  for folder in $(folders); do
    file=$folder/$(rendered "$folder")
    render "$folder" "$scratch/rendered.yaml"
    diff -u "$file" "$scratch/rendered.yaml" >&2 || fail "$file is out of date: run hack/manifests.sh write"
  done
}

check_values() { # CHART
  local chart=$charts/$1 values expected said
  for values in "$chart"/ci/*.yaml; do
    hack/helm.sh lint --strict --quiet --namespace argocd --values "$values" "$chart" || fail "$1 with $values"
    hack/helm.sh template tiphys "$chart" --namespace argocd --values "$values" >"$scratch/chart.yaml"
    # Its comments say what has to be in it.
    while read -r expected; do
      grep -qF -- "$expected" "$scratch/chart.yaml" || fail "$1 with $values has no $expected"
    done < <(sed -n 's/^# renders: //p' "$values")
  done
  # Each says in its first line what has to be in the refusal.
  for values in "$chart"/ci/refused/*.yaml; do
    expected=$(sed -n '1s/^# //p' "$values")
    if said=$(hack/helm.sh template tiphys "$chart" --namespace argocd --values "$values" 2>&1 >"$scratch/taken.yaml"); then
      fail "$1 takes $values"
    fi
    [[ $said == *"$expected"* ]] || fail "$1 refuses $values, but does not say $expected: $said"
  done
}

# A real API server takes all of it, the pod as well, and has nothing to remark.
check_objects() { # NAME FILE
  local said pod
  said=$(kubectl apply --dry-run=server --validate=strict -f "$2" 2>&1 >"$scratch/applied.txt") || fail "$1: $said"
  [ -z "$said" ] || fail "$1: $said"
  pod=$(kubectl apply --dry-run=server -f "$2" --selector app.kubernetes.io/part-of=argocd-agent -o \
    jsonpath='{.items[?(@.kind=="Deployment")].spec.template.spec}')
  [ -n "$pod" ] || fail "$1 has no Deployment"
  said=$(pod "$pod" 2>&1 >"$scratch/applied.txt") || fail "the pod of $1: $said"
  [ -z "$said" ] || fail "the pod of $1: $said"
  # That something would be seen.
  if pod "${pod//'"runAsNonRoot":true'/'"runAsNonRoot":false'}" >"$scratch/applied.txt" 2>&1; then
    fail "the pod of $1 may be root in a namespace that forbids it"
  fi
  grep -q 'violates PodSecurity "restricted' "$scratch/applied.txt" || fail "the pod of $1 as root: $(cat "$scratch/applied.txt")"
}

pod() { # SPEC
  kubectl create --dry-run=server --validate=strict -f - <<<"{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"tried\",\"namespace\":\"argocd\"},\"spec\":$1}"
}

check() {
  [ -n "${KUBECONFIG:-}" ] || fail "KUBECONFIG names no API server to ask"
  check_rendered
  local chart folder component values name said
  for chart in tiphys-principal tiphys-agent; do check_values "$chart"; done
  for name in argocd edge-1 edge-2 team-a; do
    kubectl get namespace "$name" >"$scratch/applied.txt" 2>&1 || kubectl create namespace "$name" >"$scratch/applied.txt"
  done
  kubectl label --overwrite namespace argocd pod-security.kubernetes.io/{enforce,warn}=restricted >"$scratch/applied.txt"

  for chart in tiphys-principal tiphys-agent; do
    for values in "$charts/$chart"/ci/*.yaml; do
      hack/helm.sh template tiphys "$charts/$chart" --namespace argocd --values "$values" >"$scratch/chart.yaml"
      check_objects "$chart with $values" "$scratch/chart.yaml"
    done
  done
  for folder in manifests/kustomize/*/kustomization.yaml; do
    folder=${folder%/*}
    [ "${folder##*/}" = components ] && continue
    kubectl kustomize "$folder" >"$scratch/built.yaml"
    check_objects "$folder" "$scratch/built.yaml"
  done
  said=$(kubectl apply --dry-run=server --validate=strict -f manifests/admission 2>&1 >"$scratch/applied.txt") ||
    fail "manifests/admission: $said"
  [ -z "$said" ] || fail "manifests/admission: $said"
  # Components, each on a base that it is for.
  for component in manifests/kustomize/components/*; do
    mkdir -p "$scratch/overlay"
    case $component in
      *principal*) folder=principal ;;
      *) folder=agent-managed ;;
    esac
    printf 'resources: [%s]\ncomponents: [%s]\n' "$(realpath --relative-to "$scratch/overlay" "manifests/kustomize/$folder")" \
      "$(realpath --relative-to "$scratch/overlay" "$component")" >"$scratch/overlay/kustomization.yaml"
    kubectl kustomize "$scratch/overlay" >"$scratch/built.yaml"
    # A pod may name only a priority that is there.
    [ "${component##*/}" = priority ] && kubectl apply -f "$component/class.yaml" >"$scratch/applied.txt"
    check_objects "$component on $folder" "$scratch/built.yaml"
  done
  echo "manifests: ok"
}

case ${1:-} in
  write) write ;;
  check) check ;;
  *) fail "say write or check" ;;
esac
