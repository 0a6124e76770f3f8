#!/usr/bin/env bash
# What a release has of manifests: the charts, packed, and the kustomize bases with the custom resource definitions, all
# naming the image that was pushed.
#
#   hack/release-manifests.sh ghcr.io/example/tiphys sha256:… dist
set -euo pipefail
image=${1:?which image} digest=${2:?which digest} out=$(mkdir -p "${3:?where to}" && cd "$3" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "release-manifests.sh: $digest is no digest" >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r manifests "$scratch/manifests"
for chart in tiphys-principal tiphys-agent; do
  sed -i -e "s|^  repository: tiphys$|  repository: $image|" -e "s|^  digest: \"\"$|  digest: $digest|" \
    "$scratch/manifests/helm/$chart/values.yaml"
  hack/helm.sh package --destination "$out" "$scratch/manifests/helm/$chart"
  hack/helm.sh show values "$out/$chart"-*.tgz | grep -qF "digest: $digest"
done
version=$(sed -n 's/^appVersion: //p' manifests/helm/tiphys-agent/Chart.yaml)
find "$scratch/manifests/kustomize" -name install.yaml -exec sed -i "s|image: tiphys:$version$|image: $image@$digest|" {} +
! grep -rq "image: tiphys:" "$scratch/manifests/kustomize" || { echo "release-manifests.sh: an image has no digest" >&2; exit 1; }
tar --create --gzip --owner 0 --group 0 --sort name --exclude helm --file "$out/tiphys-manifests-$version.tar.gz" \
  --directory "$scratch" manifests
