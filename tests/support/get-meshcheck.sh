#!/usr/bin/env bash
# Puts meshcheck at the path given, built from tests/support/meshcheck where there is a Go. It decodes objects of Istio,
# Envoy Gateway and the Gateway API by the types of their own programs. Without a Go this says so and succeeds.
set -euo pipefail

source=$(realpath "$(dirname "$0")")/meshcheck
program=$1
folder=$(realpath --canonicalize-missing "$(dirname "$program")")

# Says why there is no program, and succeeds: the tests that need it are then skipped.
give_up() {
  echo "no meshcheck: $1; the tests that need it are skipped" >&2
  rm -rf "$folder"
  exit 0
}

rm -rf "$folder"
mkdir -p "$folder"
command -v go >/dev/null || give_up "no Go to build it with"
cd "$source"
# Modules are read-only unless -modcacherw says otherwise, and could not be taken away again.
GOPATH=$folder/go GOCACHE=$folder/cache GOFLAGS="-modcacherw -trimpath" CGO_ENABLED=0 go build \
  -ldflags="-s -w" -o "$folder/meshcheck" . || give_up "Go cannot build it"
rm -rf "$folder/go" "$folder/cache"
