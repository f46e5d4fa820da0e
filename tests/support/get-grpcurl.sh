#!/usr/bin/env bash
# Puts grpcurl at the path given: the machine's own, or built from its source where there is a Go. Where neither is to
# be had this says so and succeeds.
source "$(dirname "$0")/golang.sh"

if own=$(command -v grpcurl); then
  take "$own"
fi
build github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
