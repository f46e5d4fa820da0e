#!/usr/bin/env bash
# Puts Helm at the path given: the machine's own, or built from its source where there is a Go. Debian has no package
# of it, and no wheel has one. Where neither is to be had this says so and succeeds.
set -euo pipefail

version=v3.22.0
# A Helm that was built without being told takes clusters for Kubernetes 1.20, and refuses charts that want a newer one.
kubernetes=34
program=$1
folder=$(realpath --canonicalize-missing "$(dirname "$program")")

# Says why there is no program, and succeeds: the tests that need it are then skipped.
give_up() {
  echo "no Helm: $1; the tests that need it are skipped" >&2
  rm -rf "$folder"
  exit 0
}

rm -rf "$folder"
mkdir -p "$folder"
if own=$(command -v helm) && "$own" version --short 2>/dev/null | grep -q '^v3\.'; then
  printf '#!/bin/sh\nexec %s "$@"\n' "$own" >"$folder/helm"
  chmod +x "$folder/helm"
  exit 0
fi

command -v go >/dev/null || give_up "none on PATH, and no Go to build it with"
chartutil=helm.sh/helm/v3/pkg/chartutil
# Modules are read-only unless -modcacherw says otherwise, and could not be taken away again.
GOBIN=$folder GOPATH=$folder/go GOCACHE=$folder/cache GOFLAGS=-modcacherw CGO_ENABLED=0 go install \
  -ldflags="-s -w -X $chartutil.k8sVersionMajor=1 -X $chartutil.k8sVersionMinor=$kubernetes" \
  "helm.sh/helm/v3/cmd/helm@$version" || give_up "Go cannot build it"
rm -rf "$folder/go" "$folder/cache"
