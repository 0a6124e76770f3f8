#!/usr/bin/env bash
# Whether systemd understands the unit, and how exposed it finds it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Of 100; what is left is the network, which is what an agent is for.
limit=20
unit=tiphys-agent.service
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/etc/systemd/system" "$root/usr/local/bin"
cp "manifests/systemd/$unit" "$root/etc/systemd/system/"
# The program that the unit names has to be there.
printf '#!/bin/sh\n' >"$root/usr/local/bin/tiphys"
chmod +x "$root/usr/local/bin/tiphys"

said=$(systemd-analyze verify --recursive-errors=no --root="$root" "$root/etc/systemd/system/$unit" 2>&1) || {
  echo "unit: $said" >&2
  exit 1
}
[ -z "$said" ] || { echo "unit: $said" >&2; exit 1; }
systemd-analyze security --offline=yes --threshold="$limit" --no-pager "$PWD/manifests/systemd/$unit" | tail -n 1
