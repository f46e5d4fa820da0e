#!/usr/bin/env bash
# Ends a cluster that fake.sh or real.sh started, or was starting, and removes all of it: stop.sh fake|real. Where none
# is, it does nothing.
source "$(dirname "$0")/common.sh"

end_seconds=10

case ${1:-} in
  fake | real) directory=$home/$1 ;;
  *) fail "usage: stop.sh fake|real" ;;
esac

# Tells whether a process is one of this cluster's: its number may be somebody else's by now. All name the folder.
is_ours() {
  tr '\0' '\n' <"/proc/$1/cmdline" 2>/dev/null | grep --quiet --fixed-strings "$directory"
}

# Ends processes, each in its turn.
end() {
  local pid deadline
  for pid; do
    deadline=$((SECONDS + end_seconds))
    while is_ours "$pid" && ((SECONDS < deadline)); do
      kill "$pid" 2>/dev/null || true
      sleep 0.1
    done
    if is_ours "$pid"; then kill -9 "$pid" 2>/dev/null || true; fi
  done
}

end_server() {
  if [[ -f $directory/$1.pid ]]; then
    end "$(cat "$directory/$1.pid")"
    rm -f "$directory/$1.pid"
  fi
}

# Ends every container of our containerd; their processes would outlive it.
end_containers() {
  local task tell=(timeout "$end_seconds" ctr --address "$directory/containerd.sock" --namespace k8s.io)
  if [[ ! -S $directory/containerd.sock ]]; then return; fi
  for task in $("${tell[@]}" tasks list --quiet 2>/dev/null); do
    "${tell[@]}" tasks kill --signal SIGKILL --all "$task" || true
    "${tell[@]}" tasks delete --force "$task" || true
  done >/dev/null 2>&1
}

# Ends what holds containers, each of which is a process of its own.
end_shims() {
  local pid
  for pid in $(pgrep --full -- "-address $directory/containerd.sock" || true); do end "$pid"; done
}

# Takes away what the cluster mounted here, the last mount first, and the network.
leave_network() {
  local mount
  for mount in $(cut -d' ' -f2 /proc/mounts | grep --fixed-strings "$directory/" | tac); do umount "$mount"; done
  if [[ -e /run/netns/$namespace ]]; then ip netns delete "$namespace"; fi
  # Of containers that ended; a folder with a process in it stays.
  find /sys/fs/cgroup/*/k8s.io -depth -type d -exec rmdir {} \; 2>/dev/null || true
}

for name in kube-proxy kubelet; do end_server "$name"; done
if [[ $1 == real ]]; then
  end_containers
  end_server containerd
  end_shims
fi
for name in coredns kwok kube-scheduler kube-controller-manager kube-apiserver etcd; do end_server "$name"; done
if [[ $1 == real && $EUID == 0 ]]; then leave_network; fi
rm -rf "$directory"
