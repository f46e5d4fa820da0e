#!/usr/bin/env bash
# Starts a Kubernetes whose nodes kwok makes up: everything is real but the containers, which do not run. Their pods are
# ready at once. Needs no root. stop.sh fake ends it; the kubeconfig is $EXTAUTHZ_CLUSTER/fake/kubeconfig.
source "$(dirname "$0")/common.sh"
directory=$home/fake
source "$scripts/control-plane.sh"

nodes=3

# Prints node $1, in a zone of its own.
node() {
  cat <<END
apiVersion: v1
kind: Node
metadata:
  name: fake-$1
  labels:
    type: fake
    kubernetes.io/arch: amd64
    kubernetes.io/hostname: fake-$1
    kubernetes.io/os: linux
    topology.kubernetes.io/zone: zone-$1
status:
  allocatable: {cpu: "8", memory: 16Gi, pods: "110", ephemeral-storage: 100Gi}
  capacity: {cpu: "8", memory: 16Gi, pods: "110", ephemeral-storage: 100Gi}
---
END
}

need kwok
fresh
start_control_plane
start kwok kwok --kubeconfig "$KUBECONFIG" --manage-nodes-with-label-selector type=fake --cidr "$pods" \
  --node-ip 127.0.0.1 --server-address "127.0.0.1:$kwok_port" --node-lease-duration-seconds 40
for number in $(seq "$nodes"); do node "$number"; done | kubectl apply --filename - >/dev/null
await "$ready_seconds" kwok kubectl wait --for condition=Ready node --selector type=fake --timeout 5s
echo "$KUBECONFIG"
