#!/usr/bin/env bash
# Puts containerd at the path given, and beside it what else a node needs: Debian's packages, unpacked and not installed,
# so that a Docker of the machine stays what it is. Where they are not to be had this says so and succeeds.
name=containerd
source "$(dirname "$0")/../../support/debian.sh"

# Each by itself, so that each has its libraries.
for package in conntrack containerd containernetworking-plugins ethtool iproute2 iptables runc socat; do
  unpack "$package"
done

for program in usr/sbin/{conntrack,runc} usr/bin/{containerd,containerd-shim-runc-v2,ctr,socat} {bin/ip,sbin/ethtool}; do
  wrap "$(basename "$program")" "$root/$program"
done
for program in {iptables,ip6tables}{,-save,-restore}; do
  # The package's own script would make these links, between the two ways that there are into the kernel.
  wrap "$program" "$root/usr/sbin/${program/tables/tables-nft}" XTABLES_LIBDIR="$(echo "$root"/usr/lib/*/xtables)"
done
