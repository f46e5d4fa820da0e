#!/usr/bin/env bash
# Runs a command in the network of the cluster of real pods, with its kubeconfig: inside.sh kubectl get pods. kubectl and
# helm are those of build.sh; ctr speaks to the cluster's containerd.
source "$(dirname "$0")/common.sh"

[[ $# -gt 0 ]] || fail "usage: inside.sh COMMAND [ARGUMENT]…"
[[ -e /run/netns/$namespace ]] || fail "no cluster: real.sh starts it"
export KUBECONFIG=$home/real/kubeconfig
export CONTAINERD_ADDRESS=$home/real/containerd.sock CONTAINERD_NAMESPACE=k8s.io
exec nsenter --net="/run/netns/$namespace" "$@"
