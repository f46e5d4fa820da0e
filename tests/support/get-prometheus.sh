#!/usr/bin/env bash
# Puts a Prometheus at the path given and promtool beside it: the machine's own, or Debian's package, unpacked without
# root. No wheel has one. Where neither is to be had this says so and succeeds.
name=Prometheus
source "$(dirname "$0")/debian.sh"

if own=$(command -v prometheus) && tool=$(command -v promtool); then
  wrap prometheus "$own"
  wrap promtool "$tool"
  exit 0
fi

unpack prometheus
rm -rf "$root/usr/share"  # the pages for people, whose scripts are other packages'
wrap prometheus "$root"/usr/bin/prometheus
wrap promtool "$root"/usr/bin/promtool
./prometheus --version >/dev/null 2>&1 || give_up "Debian's package does not start"
