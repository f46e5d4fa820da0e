#!/usr/bin/env bash
# Puts a Redis 7 that speaks TLS at the path given: the machine's own, or Debian's package, unpacked without root.
# No wheel has one. Where neither is to be had this says so and succeeds.
name="Redis 7"
source "$(dirname "$0")/debian.sh"

is_redis_7() { "$1" --version 2>/dev/null | grep -q '^Redis server v=7\.'; }

if own=$(command -v redis-server) && is_redis_7 "$own" && ldd "$own" 2>/dev/null | grep -q libssl; then
  wrap redis-server "$own"
  exit 0
fi

unpack redis-server redis-tools
wrap redis-server "$root"/usr/bin/redis-server
is_redis_7 ./redis-server || give_up "Debian's package is $(./redis-server --version 2>&1 | head -1)"
