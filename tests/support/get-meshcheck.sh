#!/usr/bin/env bash
# Puts meshcheck at the path given, built from tests/support/meshcheck where there is a Go. It decodes objects of Istio,
# Envoy Gateway and the Gateway API by the types of their own programs. Without a Go this says so and succeeds.
source "$(dirname "$0")/golang.sh"

cd "$(dirname "$0")/meshcheck"
build .
