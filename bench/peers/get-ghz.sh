#!/usr/bin/env bash
# Puts ghz, a load generator that others know, at the path given: the machine's own, or built from its source where there
# is a Go. Where neither is to be had this says so and succeeds.
source "$(dirname "$0")/../../tests/support/golang.sh"

if own=$(command -v ghz); then
  take "$own"
fi
build github.com/bojand/ghz/cmd/ghz@v0.93.0
