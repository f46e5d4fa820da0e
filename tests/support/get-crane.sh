#!/usr/bin/env bash
# Puts crane, which has an OCI registry in it, at the path given: the machine's own, or built from its source where there
# is a Go. Debian has no package of it, and no wheel has one. Where neither is to be had this says so and succeeds.
source "$(dirname "$0")/golang.sh"

if own=$(command -v crane); then
  take "$own"
fi
build github.com/google/go-containerregistry/cmd/crane@v0.22.1
