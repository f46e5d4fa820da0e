# For the scripts beside it, which source this: where everything is, and how servers are started and waited for.
set -euo pipefail
umask 022  # what is made here is seen by users inside of containers, too

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$scripts/../../.." && pwd)
home=$(realpath --canonicalize-missing "${EXTAUTHZ_CLUSTER:-$project/.cache/cluster}")
programs=$home/bin
images=$home/img
debian=$home/debian
export PATH=$programs:$debian:$PATH

# A cluster of real pods has a network namespace of its own. Its name is that of the folder, for each has one cluster.
namespace=extauthz-$(cksum <<<"$home" | cut -d' ' -f1)

fail() {
  echo "$(basename "$0"): $1" >&2
  exit 1
}

# Fails unless each of the programs is there.
need() {
  local program
  for program; do
    command -v "$program" >/dev/null || fail "needs $program: build.sh builds or fetches it, or the machine has it"
  done
}

# Starts a server that outlives this script, with its output and its process id in $directory.
start() {
  local name=$1
  shift
  setsid nohup "$@" >"$directory/logs/$name.log" 2>&1 </dev/null &
  echo $! >"$directory/$name.pid"
}

# Runs a command until it succeeds: at most $1 seconds, and while the server $2 lives, whose last words are shown else.
await() {
  local deadline=$((SECONDS + $1)) name=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)) || ! kill -0 "$(cat "$directory/$name.pid")" 2>/dev/null; then
      tail -n 5 "$directory/logs/$name.log" >&2
      fail "$name is not ready: this went wrong until the end: $*"
    fi
    sleep 0.2
  done
}

# Starts a folder for the files of a cluster, without what an earlier run left.
fresh() {
  "$scripts/stop.sh" "$(basename "$directory")"
  mkdir -p "$home"
  mkdir -m 0700 "$directory"  # it has keys in it
  mkdir "$directory"/{logs,pki}
}
