#!/usr/bin/env bash
# Puts Helm at the path given: the machine's own, or built from its source where there is a Go. Where neither is to be
# had this says so and succeeds.
source "$(dirname "$0")/golang.sh"

if own=$(command -v helm) && "$own" version --short 2>/dev/null | grep -q '^v3\.'; then
  take "$own"
fi
# A Helm that is not told takes clusters for Kubernetes 1.20, and refuses charts that want a newer one.
chartutil=helm.sh/helm/v3/pkg/chartutil
build helm.sh/helm/v3/cmd/helm@v3.22.0 "-X $chartutil.k8sVersionMajor=1 -X $chartutil.k8sVersionMinor=34"
