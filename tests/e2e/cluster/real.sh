#!/usr/bin/env bash
# Starts a Kubernetes of one node that runs real pods, in a network namespace that nothing leads out of. Needs root.
# Every *.oci.tar of $EXTAUTHZ_CLUSTER/img is an image of it. stop.sh real ends it; inside.sh runs commands in it.
source "$(dirname "$0")/common.sh"
directory=$home/real
source "$scripts/control-plane.sh"

node=real-1
# Not of 127.0.0.0/8, which the kubelet refuses.
node_ip=10.245.0.1
node_pods=10.244.0.0/24
dns_port=53
shares_of_pods=16384  # each process outside of them has 1024
# Where containerd and kubelet write whatever their configuration says.
fixed_folders=(/run/containerd /run/netns /var/lib/cni /var/lib/kubelet /var/log/containers)

enter_network() {
  ip netns add "$namespace"
  ip -n "$namespace" link set lo up
  ip -n "$namespace" address add "$node_ip/32" dev lo
  # Else the node itself would not reach services.
  ip -n "$namespace" route add "$services" dev lo src "$node_ip"
  EXTAUTHZ_CLUSTER_INSIDE=1 exec nsenter --net="/run/netns/$namespace" \
    unshare --mount --propagation private "$scripts/real.sh"
}

# Shows the kubelet a setting of the kernel as it wants it, for it would change the machine's.
pretend() {
  local file=$directory/kernel/$(basename "$1")
  echo "$2" >"$file"
  mount --bind "$file" "/proc/sys/$1"
}

hide_the_machine() {
  mkdir -p "$directory/kernel"
  pretend vm/overcommit_memory 1
  pretend vm/panic_on_oom 0
  pretend kernel/panic 10
  pretend kernel/panic_on_oops 1
  pretend kernel/keys/root_maxkeys 1000000
  pretend kernel/keys/root_maxbytes 25000000
  local folder
  for folder in "${fixed_folders[@]}"; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
  done
  echo 1 >/proc/sys/net/ipv4/ip_forward  # of this network namespace
}

# Gives pods their share of the processors whatever else the machine does: Envoy waits half a second for a decision.
favour_pods() {
  local group=/sys/fs/cgroup/cpu/k8s.io
  if [[ -e /sys/fs/cgroup/cpu/cpu.shares ]]; then
    mkdir -p "$group"
    echo "$shares_of_pods" >"$group/cpu.shares"
  fi
}

write_containerd_config() {
  mkdir -p "$directory/cni"
  cat >"$directory/cni/10-bridge.conflist" <<END
{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
 "hairpinMode": true, "ipam": {"type": "host-local", "dataDir": "$directory/ipam",
 "ranges": [[{"subnet": "$node_pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
  # Scores of the kernel's memory killer take a capability that root of a virtual machine may lack.
  cat >"$directory/containerd.toml" <<END
version = 2
root = "$directory/containerd"
state = "$directory/containerd-run"
[grpc]
  address = "$directory/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$directory/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$debian/root/usr/lib/cni"
    conf_dir = "$directory/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$debian/runc"
        SystemdCgroup = false
END
}

start_containerd() {
  local archive client=(ctr --address "$directory/containerd.sock" --namespace k8s.io)
  write_containerd_config
  start containerd containerd --config "$directory/containerd.toml"
  await "$ready_seconds" containerd "${client[@]}" version
  for archive in "$images"/*.oci.tar; do
    "${client[@]}" images import "$archive" >>"$directory/logs/images.log" 2>&1 || fail "$archive is no image: see images.log"
  done
}

write_kubelet_config() {
  # Limits of pods are real; a hierarchy of groups for kinds of pods is not, since the machine's may be mixed.
  cat >"$directory/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$directory/pki/ca.crt"}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://$directory/containerd.sock
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
clusterDNS: [$node_ip]
clusterDomain: cluster.local
healthzBindAddress: 127.0.0.1
podLogsDir: $directory/pod-logs
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
END
}

start_node() {
  write_kubelet_config
  start kubelet kubernetes kubelet --kubeconfig "$KUBECONFIG" --config "$directory/kubelet.yaml" \
    --root-dir "$directory/kubelet" --cert-dir "$directory/pki/kubelet" \
    --hostname-override "$node" --node-ip "$node_ip"
  # Settings of connection tracking are the machine's, and stay as they are.
  start kube-proxy kubernetes kube-proxy --kubeconfig "$KUBECONFIG" --proxy-mode iptables --cluster-cidr "$pods" \
    --hostname-override "$node" --healthz-bind-address 127.0.0.1:10256 --metrics-bind-address 127.0.0.1:10249 \
    --conntrack-max-per-core 0 --conntrack-min 0 \
    --conntrack-tcp-timeout-established 0s --conntrack-tcp-timeout-close-wait 0s
}

start_dns() {
  cat >"$directory/Corefile" <<END
.:$dns_port {
    bind $node_ip
    errors
    cache 2
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $KUBECONFIG
        pods insecure
    }
}
END
  start coredns coredns -conf "$directory/Corefile"
}

[[ $EUID == 0 ]] || fail "needs root, for namespaces and mounts"
if [[ -z ${EXTAUTHZ_CLUSTER_INSIDE:-} ]]; then
  need conntrack containerd containerd-shim-runc-v2 coredns ctr ip iptables nsenter runc unshare
  [[ -e $images/pause.oci.tar ]] || fail "no image of pause: build.sh builds it"
  fresh
  enter_network
fi
ln -s "/run/netns/$namespace" "$directory/network"
hide_the_machine
favour_pods
start_control_plane
start_containerd
start_dns
start_node
await "$ready_seconds" kubelet kubectl wait --for condition=Ready "node/$node" --timeout 5s
echo "$KUBECONFIG"
