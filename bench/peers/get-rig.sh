#!/usr/bin/env bash
# Puts the rig at the path given, built from bench/peers/rig where there is a Go: the load generator, the mock upstream
# and the empty Check. Without a Go this says so and succeeds.
source "$(dirname "$0")/../../tests/support/golang.sh"

cd "$(dirname "$0")/rig"
build .
