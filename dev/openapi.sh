#!/usr/bin/env bash
# dev/openapi.sh PROGRAM: starts one node (a SQLite file, no Redis), has its /openapi.json checked by
# openapi-spec-validator, and lets schemathesis try every route: no server error, and no answer that
# the document does not hold. SEED=… (7) makes up other requests; EXAMPLES=… is how many requests it makes up for
# each route in a pass.
set -euo pipefail
# shellcheck source=dev/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

program=${1:?dev/openapi.sh PROGRAM}
tools=$ROOT/tests/openapi/.venv/bin
[[ -x $tools/schemathesis ]] || die 'schemathesis is missing: run dev/install.sh openapi'
seed=${SEED:-7}
say "SEED=$seed"

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
make_tmp

port=$(free_port)
url=http://127.0.0.1:$port
# No limit is to stand between schemathesis and the handlers.
actions=(read message:send message:edit message:delete message:reaction session:create session:update
  session:delete member:add member:remove attachment:add attachment:delete stream:request stream:init)
limits=$(printf '%s=1000000/60s,' "${actions[@]}")
JWT_SECRET=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export JWT_SECRET
start node env -i "PATH=$PATH" HOST=127.0.0.1 "PORT=$port" METRICS_PORT=0 DEMO_UI=false DEV_AUTH=true \
  "DATABASE_URL=sqlite://$TMP/tokencast.db" "JWT_SECRET=$JWT_SECRET" "RATE_LIMITS=${limits%,}" \
  WS_THROTTLE_LIMIT=1000000 MAX_CONCURRENT_STREAMS=0 MAX_NODE_STREAMS=0 NO_COLOR=1 "$program" serve
ready node "$STARTED" curl -fsS "$url/readyz"

curl -fsS "$url/openapi.json" >"$TMP/openapi.json"
"$tools/openapi-spec-validator" "$TMP/openapi.json" >&2

ask() { # METHOD PATH BODY
  curl -fsS -X "$1" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' -d "$3" "$url$2"
}
field() { "$tools/python" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
token=$(curl -fsS -H 'Content-Type: application/json' -d '{"sub":"ada"}' "$url/dev/token" | field token)

# Ids of what exists, so that requests get past "no such thing"; a second pass makes them up.
SESSION_ID=$(ask POST /api/chat/sessions '{"id":"holidays"}' | field id)
MESSAGE_ID=$(ask POST /api/chat/messages '{"sessionId":"holidays","content":"Where to?"}' | field id)
ATTACHMENT_ID=$(ask POST "/api/chat/messages/$MESSAGE_ID/attachments" \
  '{"fileName":"a","fileUrl":"/a","mimeType":"text/plain","fileSize":1}' | field id)
STREAM_ID=$(ask POST /api/chat/streams '{"sessionId":"holidays","prompt":"Where to?"}' | field streamId)
export SESSION_ID MESSAGE_ID ATTACHMENT_ID STREAM_ID

# The event streams have no end, which every request would be waited for: tests/e2e/sse.test.mjs asks for them.
endless='^/(chat/stream|stream/ai|ai/chat)(/|$)'

status=0 passes=0 failed=0
# try NAME CONFIG OPTIONS…
try() {
  say "──────── $1"
  passes=$((passes + 1))
  timeout --foreground 5m "$tools/schemathesis" --config-file "$2" run "$url/openapi.json" \
    --header "Authorization: Bearer $token" --checks all --max-examples "${EXAMPLES:-20}" \
    --seed "$seed" --generation-database none --continue-on-failure --request-timeout 10 \
    --no-color --warnings off --exclude-path-regex "$endless" "${@:3}" >&2 || { status=1 failed=$((failed + 1)); }
}

# What would take away the things that the others are asked about is left to the second pass.
kept=()
for id in deleteSession deleteMessage deleteAttachment; do kept+=(--exclude-operation-id "$id"); done
try 'of things that exist' "$ROOT/tests/openapi/known.toml" "${kept[@]}"
try 'of things made up' "$ROOT/tests/openapi/unknown.toml"

if ! kill -0 "$STARTED" 2>/dev/null; then
  tail -n 40 "$TMP/node.log" >&2
  status=1
fi
if grep -n 'panicked' "$TMP/node.log" >&2; then status=1; fi
echo "$((passes - failed)) passed, $failed failed"
exit "$status"
