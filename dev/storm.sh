#!/usr/bin/env bash
# dev/storm.sh jitter|deploy-storm|abuse: that suite of tests/e2e/ with thousands of clients, on an optimised
# build, its times held against their limits. Needs a machine that does nothing else. The suite's own
# variables (tests/e2e/README.md) go before what stands here; TOKENCAST_BIN names another program.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "dev/storm.sh: $*" >&2; exit 1; }

case ${1:-} in
  jitter)
    export CLIENTS=${CLIENTS:-2000} BROADCASTS=${BROADCASTS:-120} RATE=${RATE:-2}
    export CUT_EVERY=${CUT_EVERY:-15} AWAY=${AWAY:-2}
    ;;
  deploy-storm)
    export CLIENTS=${CLIENTS:-5000} ANSWERS=${ANSWERS:-100} GRACE=${GRACE:-25}
    export TOKENS=${TOKENS:-400}
    ;;
  abuse)
    # An hour: ROUNDS=30.
    export CLIENTS=${CLIENTS:-500} PHASE=${PHASE:-60} ROUNDS=${ROUNDS:-5}
    ;;
  *) echo 'usage: dev/storm.sh jitter|deploy-storm|abuse' >&2; exit 2 ;;
esac
export SUITE=$1 STORM=1

# All clients may be on one node while others restart, and on one of nginx' workers, which has two
# connections for each.
files=$((CLIENTS * 2 + 2000))
[[ $1 == abuse ]] || ((files <= 16384)) || die "$CLIENTS clients: nginx/nginx.conf has worker_connections for about 7000"
[[ $(ulimit -n) == unlimited ]] || (($(ulimit -n) >= files)) || ulimit -n "$files" 2>/dev/null ||
  die "$CLIENTS clients need $files open files in one process, and 'ulimit -Hn' is $(ulimit -Hn)"
# From nginx to the nodes and to nginx: each connection has a port of its own.
read -r first last </proc/sys/net/ipv4/ip_local_port_range
((last - first >= CLIENTS * 3)) || die "$CLIENTS clients need $((CLIENTS * 3)) ports, see net.ipv4.ip_local_port_range"

if [[ -z ${TOKENCAST_BIN:-} ]]; then
  cargo build --release --locked --bin tokencast
  export TOKENCAST_BIN=${CARGO_TARGET_DIR:-target}/release/tokencast
fi
exec dev/services.sh dev/test.sh e2e
