#!/usr/bin/env bash
# dev/types.sh PROGRAM: starts one node (a SQLite file, no Redis), has its /asyncapi.json checked by AsyncAPI's own
# parser, and makes clients/typescript of it once more: what is committed has to be the same, and
# to pass the compiler with its tests. GENERATE=1 writes the files there.
set -euo pipefail
# shellcheck source=dev/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

program=${1:?dev/types.sh PROGRAM}
package=$ROOT/clients/typescript
[[ -d $package/node_modules ]] || die 'its packages are missing: run dev/install.sh types'

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
make_tmp

port=$(free_port)
url=http://127.0.0.1:$port
start node env -i "PATH=$PATH" HOST=127.0.0.1 "PORT=$port" METRICS_PORT=0 DEMO_UI=false DEV_AUTH=true \
  "DATABASE_URL=sqlite://$TMP/tokencast.db" "JWT_SECRET=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" \
  NO_COLOR=1 "$program" serve
ready node "$STARTED" curl -fsS "$url/readyz"
curl -fsS "$url/asyncapi.json" >"$TMP/asyncapi.json"

status=0 passed=0 failed=0
# try NAME CMD…
try() {
  say "──────── $1"
  if "${@:2}" >&2; then passed=$((passed + 1)); else status=1 failed=$((failed + 1)); fi
}

same() {
  local file
  mkdir "$TMP/types"
  node "$package/tools/generate.mjs" "$TMP/asyncapi.json" "$TMP/types" || return
  if [[ -n ${GENERATE:-} ]]; then cp "$TMP/types"/*.d.ts "$package/"; fi
  for file in "$TMP/types"/*.d.ts; do
    diff -u "$package/$(basename "$file")" "$file" || { say 'run: GENERATE=1 make types'; return 1; }
  done
}

try 'the document' node "$package/tools/validate.mjs" "$TMP/asyncapi.json"
try 'the committed types are of this document' same
try 'the types and their tests' "$package/node_modules/.bin/tsc" --project "$package"
echo "$passed passed, $failed failed"
exit "$status"
