#!/usr/bin/env bash
# Puts kube-score at the path given: the machine's own, or built from its source where there is a Go. Where neither is
# to be had this says so and succeeds.
source "$(dirname "$0")/golang.sh"

if own=$(command -v kube-score); then
  take "$own"
fi
build github.com/zegl/kube-score/cmd/kube-score@v1.20.0
