#!/usr/bin/env bash
# Puts envoyproxy/ratelimit at the path given, built from its source where there is a Go; it has no releases, so this is
# the newest that the module proxy knows. Without a Go this says so and succeeds.
source "$(dirname "$0")/../../tests/support/golang.sh"

build github.com/envoyproxy/ratelimit/src/service_cmd@v1.4.1-0.20260122083618-3fb702589d36
