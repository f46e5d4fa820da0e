# For the get-*.sh beside it, which source this: Debian's packages in a folder of the tests', unpacked without root.
# Each is called with the path that the program shall have, and sets `name`, what the tests need.
set -euo pipefail

program=$1
folder=$(realpath --canonicalize-missing "$(dirname "$program")")  # emptied, so never where a link leads to
root=$folder/root
lists=()  # options of apt: none for the machine's own package lists

# Says why there is no program, and succeeds: the tests that need it are then skipped.
give_up() {
  echo "no $name: $1; the tests that need it are skipped" >&2
  rm -rf "$folder"
  exit 0
}

own_lists() {
  mkdir -p "$folder"/apt/{lists,cache}/partial
  lists=(-o Dir::State::Lists="$folder/apt/lists" -o Dir::Cache="$folder/apt/cache" -o APT::Sandbox::User=)
  apt-get "${lists[@]}" --quiet=2 update
}

# Prints the libraries that a package needs and this machine lacks, and what they need in turn. Never libc: it is there,
# and must be the machine's.
libraries_of() {
  local needed
  needed=$(apt-cache "${lists[@]}" depends "$1" | sed -n 's/^ *Depends: \(lib.*\)/\1/p') &&
    apt-get "${lists[@]}" --simulate --no-install-recommends --no-upgrade install $needed |
    sed -n 's/^Inst \([^ ]*\) .*/\1/p' | grep -v '^libc6$' || true
}

# Downloads packages, and the libraries of the last of them.
download() {
  apt-get "${lists[@]}" --quiet=2 download "$@" $(libraries_of "${!#}")
}

# Unpacks packages below $root, and the libraries of the last of them.
unpack() {
  local package
  command -v apt-get >/dev/null || give_up "none on PATH, and no apt-get to fetch Debian's"
  download "$@" 2>/dev/null || { own_lists && download "$@"; } || give_up "apt-get cannot fetch Debian's package"
  for package in *.deb; do
    dpkg-deb --extract "$package" "$root"
  done
  rm -rf -- *.deb apt
}

# Writes a script $1 that runs the program $2 with the libraries that are unpacked, and with variables as `NAME=value`.
# A link would not do: it looks as old as the program, and make would do all of this again.
wrap() {
  local file=$1 runs=$2 libraries
  shift 2
  libraries=$(find "$root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
  printf '#!/bin/sh\n%s exec %s "$@"\n' "${libraries:+LD_LIBRARY_PATH=$libraries }$*" "$runs" >"$file"
  chmod +x "$file"
}

rm -rf "$folder"
mkdir -p "$root"
cd "$folder"
