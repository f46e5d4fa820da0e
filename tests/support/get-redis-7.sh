#!/usr/bin/env bash
# Puts a Redis 7 that speaks TLS at the path given: the machine's own, or Debian's package, unpacked without root.
# No wheel has one. Where neither is to be had this says so and succeeds; the tests that need it are then skipped.
set -euo pipefail

program=$1
folder=$(dirname "$(realpath --canonicalize-missing "$program")")
root=$folder/root
lists=()  # options of apt: none for the machine's own package lists

give_up() {
  echo "no Redis 7: $1; the tests that need it are skipped" >&2
  rm -rf "$folder"
  exit 0
}

is_redis_7() { "$1" --version 2>/dev/null | grep -q '^Redis server v=7\.'; }

download() {
  # With the libraries that the package names, for a machine may lack them; libc is there, and must be the machine's.
  local libraries
  libraries=$(apt-cache "${lists[@]}" depends redis-tools | sed -n 's/^ *Depends: \(lib.*\)/\1/p' | grep -v '^libc6$') &&
    apt-get "${lists[@]}" --quiet=2 download redis-server redis-tools $libraries
}

own_lists() {
  mkdir -p "$folder"/apt/{lists,cache}/partial
  lists=(-o Dir::State::Lists="$folder/apt/lists" -o Dir::Cache="$folder/apt/cache" -o APT::Sandbox::User=)
  apt-get "${lists[@]}" --quiet=2 update
}

rm -rf "$folder"
mkdir -p "$root"
cd "$folder"

if own=$(command -v redis-server) && is_redis_7 "$own" && ldd "$own" 2>/dev/null | grep -q libssl; then
  ln -s "$own" redis-server
  exit 0
fi

command -v apt-get >/dev/null || give_up "none on PATH that speaks TLS, and no apt-get to fetch Debian's"
download 2>/dev/null || { own_lists && download; } || give_up "apt-get cannot fetch Debian's package"
for package in *.deb; do
  dpkg-deb --extract "$package" "$root"
done
rm -rf -- *.deb apt

libraries=$(find "$root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
cat >redis-server <<EOF
#!/bin/sh
LD_LIBRARY_PATH=$libraries exec $root/usr/bin/redis-server "\$@"
EOF
chmod +x redis-server
is_redis_7 ./redis-server || give_up "Debian's package is $(./redis-server --version 2>&1 | head -1)"
