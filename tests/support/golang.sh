# For the get-*.sh beside it, which source this: programs that no wheel and no package of Debian has, built by a Go from
# their source. Each is called with the path that the program shall have.
set -euo pipefail

program=$1
folder=$(realpath --canonicalize-missing "$(dirname "$program")")  # emptied, so never where a link leads to
name=$(basename "$program")

# Says why there is no program, and succeeds: the tests and figures that need it are then skipped.
give_up() {
  echo "no $name: $1; what needs it is skipped" >&2
  rm -rf "$folder"
  exit 0
}

# Takes the machine's own program. A link would not do: it looks as old as the program, and make would do this again.
take() {
  printf '#!/bin/sh\nexec %s "$@"\n' "$1" >"$folder/$name"
  chmod +x "$folder/$name"
  exit 0
}

# Builds the module $1, with the linker's flags $2, and leaves nothing of the build behind.
build() {
  command -v go >/dev/null || give_up "none on PATH, and no Go to build it with"
  # Modules are read-only unless -modcacherw says otherwise, and could not be taken away again.
  GOBIN=$folder GOPATH=$folder/go GOCACHE=$folder/cache GOFLAGS="-modcacherw -trimpath" CGO_ENABLED=0 \
    go install -ldflags="-s -w ${2:-}" "$1" || give_up "Go cannot build it"
  rm -rf "$folder/go" "$folder/cache"
}

rm -rf "$folder"
mkdir -p "$folder"
