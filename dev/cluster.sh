#!/usr/bin/env bash
# dev/cluster.sh: three nodes behind nginx on this machine, with a Redis and a PostgreSQL of their
# own, all on loopback. Ctrl-C stops everything; nothing is kept.
#
#   CLUSTER_PORT   nginx (8080)               CLUSTER_NODES   how many nodes (3)
#   NODE_PORT      the first node (3001)      NODE_METRICS_PORT   its metrics (9101)
#   TOKENCAST_BIN  use this program instead of building one
#
# Other variables of the server (AGENTS_FILE, OPENAI_API_KEY, RUST_LOG, …) reach the nodes as set.
set -euo pipefail
# shellcheck source=dev/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

trap clean_up EXIT
trap 'echo >&2; say stopping; exit 130' INT
trap 'exit 143' TERM HUP

port=${CLUSTER_PORT:-8080} nodes=${CLUSTER_NODES:-3}
node_port=${NODE_PORT:-3001} metrics_port=${NODE_METRICS_PORT:-9101}
url=http://127.0.0.1:$port

"$ROOT/dev/install.sh" minimal
bin=${TOKENCAST_BIN:-}
if [[ -z $bin ]]; then
  cargo build --release --locked --manifest-path "$ROOT/Cargo.toml" --bin tokencast
  bin=${CARGO_TARGET_DIR:-$ROOT/target}/release/tokencast
fi
bin=$(readlink -f "$bin")

make_tmp
start_redis
start_postgres

JWT_SECRET=${JWT_SECRET:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}
export JWT_SECRET REDIS_URL DATABASE_URL HOST=127.0.0.1
export DEV_AUTH=${DEV_AUTH:-true} DEMO_UI=${DEMO_UI:-true}
export CORS_ORIGIN=${CORS_ORIGIN:-$url,http://localhost:$port}

http_ok() { curl --fail --silent --max-time 2 --noproxy '*' --output /dev/null "$1"; }

addresses=() lines=()
for ((n = 1; n <= nodes; n++)); do
  at=$((node_port + n - 1)) metrics=$((metrics_port + n - 1))
  PORT=$at METRICS_PORT=$metrics start "node-$n" "$bin" serve
  addresses+=("127.0.0.1:$at")
  lines+=("  node-$n   http://127.0.0.1:$at   metrics http://127.0.0.1:$metrics/metrics   pid $STARTED")
done
for ((n = 1; n <= nodes; n++)); do
  ready "node-$n" "${CHILD_ORDER[n + 1]}" http_ok "http://${addresses[n - 1]}/readyz"
done
start nginx "$ROOT/dev/nginx.sh" "$TMP/nginx" "127.0.0.1:$port" "${addresses[@]}"
ready nginx "$STARTED" http_ok "$url/readyz"

cat <<TXT

tokencast is up: $url   (the demo page; open it in two tabs)
$(printf '%s\n' "${lines[@]}")
  Redis    $REDIS_URL
  Database $DATABASE_URL
  Logs     $TMP/*.log

A token for alice:      JWT_SECRET=$JWT_SECRET $bin token --sub alice
See a node's death:     kill -9 <pid of a node> while an answer streams
Stop:                   Ctrl-C
TXT

# Says which child died, and goes on: the others are meant to carry on without it.
while ((${#CHILDREN[@]})); do
  dead='' status=0
  wait -n -p dead "${!CHILDREN[@]}" || status=$?
  [[ -n $dead ]] || continue
  say "${CHILDREN[$dead]} (pid $dead) ended with status $status; its last lines:"
  tail -n 10 "$TMP/${CHILDREN[$dead]}.log" >&2 || true
  unset "CHILDREN[$dead]"
  left=()
  for pid in "${CHILD_ORDER[@]}"; do
    [[ $pid == "$dead" ]] || left+=("$pid")
  done
  CHILD_ORDER=("${left[@]}")
done
die 'nothing is left running'
