# Shared by the scripts in this folder, which source it: a temporary folder, free ports, and
# servers started as children, each stopped by its pid when the script ends, however it ends.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT

# Debian keeps these out of an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin

TMP=''
declare -A CHILDREN=() # pid → name
CHILD_ORDER=()

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# Makes TMP. Other users may pass through it: PostgreSQL and nginx' workers may be other users.
make_tmp() {
  TMP=$(mktemp -d "${TMPDIR:-/tmp}/tokencast.XXXXXX")
  chmod 711 "$TMP"
}

# A port on loopback that nobody listens on, below the range that outgoing connections use.
free_port() {
  local port
  for _ in {1..200}; do
    port=$((10100 + RANDOM % 19900)) # 10080 is refused by fetch()
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  die 'no free port found'
}

# start NAME CMD…: runs CMD in the background, out of reach of the terminal's Ctrl-C, with its
# output in $TMP/NAME.log. Sets STARTED to its pid.
start() {
  local name=$1
  shift
  setsid "$@" </dev/null >"$TMP/$name.log" 2>&1 &
  STARTED=$!
  CHILDREN[$STARTED]=$name
  CHILD_ORDER+=("$STARTED")
}

# ready NAME PID CMD…: waits up to 30 s until CMD succeeds; shows the log where it does not.
ready() {
  local name=$1 pid=$2
  shift 2
  for _ in {1..300}; do
    if "$@" >/dev/null 2>&1; then return; fi
    if ! kill -0 "$pid" 2>/dev/null; then break; fi
    sleep 0.1
  done
  tail -n 40 "$TMP/$name.log" >&2 || true
  die "$name did not start"
}

# Stops the children, the last one started first, and removes TMP. Safe to call again.
clean_up() {
  local index pid
  for ((index = ${#CHILD_ORDER[@]} - 1; index >= 0; index--)); do
    pid=${CHILD_ORDER[index]}
    # PostgreSQL waits for its clients on TERM; INT is its "fast" shutdown.
    if [[ ${CHILDREN[$pid]} == postgres ]]; then
      kill -INT "$pid" 2>/dev/null || continue
    else
      kill -TERM "$pid" 2>/dev/null || continue
    fi
  done
  for pid in "${CHILD_ORDER[@]}"; do
    for _ in {1..100}; do
      kill -0 "$pid" 2>/dev/null || continue 2
      sleep 0.1
    done
    say "${CHILDREN[$pid]} (pid $pid) does not stop: killed"
    kill -KILL "$pid" 2>/dev/null || true
  done
  CHILD_ORDER=()
  if [[ -n $TMP ]]; then rm -rf "$TMP"; fi
  TMP=''
}

# start_redis [PORT]: exports REDIS_URL. Keeps nothing on disk.
start_redis() {
  local port=${1:-$(free_port)}
  mkdir -p "$TMP/redis"
  start redis redis-server --port "$port" --bind 127.0.0.1 --dir "$TMP/redis" --save '' \
    --appendonly no --maxmemory-policy noeviction --daemonize no
  ready redis "$STARTED" redis-cli -p "$port" ping
  export REDIS_URL=redis://127.0.0.1:$port
}

# The folder of initdb and postgres, which Debian keeps out of PATH.
postgres_bin() {
  local found
  found=$(command -v initdb || true)
  if [[ -z $found ]]; then
    for found in /usr/lib/postgresql/*/bin/initdb; do :; done
  fi
  [[ -x $found ]] || die 'PostgreSQL is not installed: run dev/install.sh'
  dirname "$(readlink -f "$found")"
}

# start_postgres [PORT]: exports DATABASE_URL, whose user may do everything. Fast, not durable:
# for tests and demonstrations.
start_postgres() {
  local port=${1:-$(free_port)} bin data=$TMP/postgres
  local as=()
  bin=$(postgres_bin)
  mkdir -p "$data"
  if [[ $(id -u) == 0 ]]; then # PostgreSQL refuses to run as root
    chown postgres: "$data"
    as=(setpriv --reuid=postgres --regid=postgres --init-groups)
  fi
  chmod 700 "$data"
  "${as[@]}" "$bin/initdb" --pgdata="$data" --username=postgres --auth=trust --encoding=UTF8 \
    --locale=C.UTF-8 --no-sync >"$TMP/initdb.log" 2>&1 ||
    { cat "$TMP/initdb.log" >&2; die 'initdb failed'; }
  start postgres "${as[@]}" "$bin/postgres" -D "$data" -p "$port" -k "$data" \
    -c listen_addresses=127.0.0.1 -c max_connections=300 -c shared_buffers=64MB \
    -c fsync=off -c synchronous_commit=off -c full_page_writes=off
  ready postgres "$STARTED" "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -U postgres
  export DATABASE_URL=postgres://postgres@127.0.0.1:$port/postgres
}
