#!/usr/bin/env bash
# Puts crane, which has an OCI registry in it, at the path given: the machine's own, or built from its source where there is a Go. Debian has no package
# of it, and no wheel has one. Where neither is to be had this says so and succeeds.
set -euo pipefail

module=github.com/google/go-containerregistry/cmd/crane@v0.22.1
program=$1
folder=$(realpath --canonicalize-missing "$(dirname "$program")")

# Says why there is no program, and succeeds: the tests that need it are then skipped.
give_up() {
  echo "no crane: $1; the tests that need it are skipped" >&2
  rm -rf "$folder"
  exit 0
}

rm -rf "$folder"
mkdir -p "$folder"
if own=$(command -v crane); then
  printf '#!/bin/sh\nexec %s "$@"\n' "$own" >"$folder/crane"
  chmod +x "$folder/crane"
  exit 0
fi

command -v go >/dev/null || give_up "none on PATH, and no Go to build it with"
# Modules are read-only unless -modcacherw says otherwise, and could not be taken away again.
GOBIN=$folder GOPATH=$folder/go GOCACHE=$folder/cache GOFLAGS=-modcacherw go install "$module" ||
  give_up "Go cannot build it"
rm -rf "$folder/go" "$folder/cache"
