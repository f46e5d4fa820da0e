#!/usr/bin/env bash
# Builds what the clusters are made of into $EXTAUTHZ_CLUSTER, by default .cache/cluster of the project: build.sh
# [tools|fake|real]. Each takes in the one before it. Without a word it builds what this machine can run, and says what
# is left out. What is there and up to date stays; all of it takes about a quarter of an hour on two cores.
source "$(dirname "$0")/common.sh"

# Kubernetes 1.34 is the last whose kubelet runs where control groups are of the first version.
kubernetes=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\)$/\1/p' "$scripts/go.mod")
kwok=sigs.k8s.io/kwok/cmd/kwok@v0.7.0
coredns=github.com/coredns/coredns@v1.15.0

tell() { echo "[$(date +%T)] $*"; }

# Tells whether the program $1 was made of what $2 describes.
is_made() { [[ -x $programs/$1 && $(cat "$programs/.$1" 2>/dev/null) == "$2" ]]; }

# Builds a package of the module beside this script as the program $1, with the linker's flags $3.
build() {
  local made
  made="$(cat "$scripts"/go.* "$scripts"/*/main.go | sha256sum | cut -d' ' -f1) ${3:-}"
  if is_made "$1" "$made"; then return; fi
  tell "building $1${4:+ (about $4)}"
  go -C "$scripts" build -ldflags="-s -w ${3:-}" -o "$programs/$1" "$2"
  echo "$made" >"$programs/.$1"
}

# Builds the program of a module of its own.
install() {
  local name
  name=$(basename "${1%@*}")
  if is_made "$name" "$1"; then return; fi
  tell "building $name (about $2)"
  GOBIN=$programs go install -ldflags="-s -w" "$1"
  echo "$1" >"$programs/.$name"
}

# Prints the linker's flags that tell Kubernetes its version. It would be 0.0.0, which charts refuse.
version_flags() {
  local library minor=${kubernetes#v1.}
  for library in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf -- '-X %s=%s ' "$library.gitVersion" "$kubernetes" "$library.gitMajor" 1 "$library.gitMinor" "${minor%.*}"
  done
}

build_tools() {
  [[ -x $project/.cache/helm/helm ]] || "$project/tests/support/get-helm.sh" "$project/.cache/helm/helm"
  ln -sf "$project/.cache/helm/helm" "$programs/helm"
  build kubectl k8s.io/kubernetes/cmd/kubectl "$(version_flags)" "1 minute"
}

build_fake() {
  build etcd go.etcd.io/etcd/server/v3 "" "30 seconds"
  build kubernetes ./kubernetes "$(version_flags)" "7 minutes"
  install "$kwok" "2 minutes"
}

build_real() {
  install "$coredns" "4 minutes"
  build pause ./pause
  if [[ ! -e $images/pause.oci.tar || $programs/pause -nt $images/pause.oci.tar ]]; then
    (cd "$project" && "$python" -m tests.e2e.cluster.pause_image "$programs/pause" "$images/pause.oci.tar")
  fi
  if [[ ! -x $debian/containerd || $scripts/get-containers.sh -nt $debian/containerd ]]; then
    tell "fetching containerd and what belongs to it"
    "$scripts/get-containers.sh" "$debian/containerd"
  fi
  ln -sf "$debian/ctr" "$programs/ctr"
}

# Says why something is not built, and succeeds: the tests that need it are then skipped.
leave_out() { echo "no $1: $2; the tests that need it are skipped" >&2; }

wanted=${1:-real}
if [[ $# == 0 && $EUID != 0 ]]; then
  leave_out "cluster of real pods" "needs root"
  wanted=fake
fi
if ! command -v go >/dev/null; then
  [[ $# == 0 ]] || fail "needs Go 1.24 or newer"
  leave_out "cluster" "needs Go 1.24 or newer to build it"
  exit 0
fi
case $wanted in
  tools) parts=(tools) ;;
  fake) parts=(tools fake) ;;
  real) parts=(tools fake real) ;;
  *) fail "usage: build.sh [tools|fake|real]" ;;
esac
python=$project/.venv/bin/python
[[ -x $python ]] || python=python3
mkdir -p "$programs" "$images"
# Of two who build, one waits for the other and finds it done.
exec {lock}>"$home/.lock"
flock "$lock"

export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false -modcacherw"
if [[ -z ${GOCACHE:-} ]]; then
  # Gigabytes that nobody needs afterwards. Who sets GOCACHE keeps them, and builds in seconds.
  export GOPATH=$home/go GOCACHE=$home/go/cache
  trap 'rm -rf "$home/go"' EXIT
fi
for part in "${parts[@]}"; do "build_$part"; done
