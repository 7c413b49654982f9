#!/usr/bin/env bash
# dev/services.sh CMD…: runs CMD with a Redis and a PostgreSQL of its own, on free ports and in a
# temporary folder; TEST_REDIS_URL and TEST_DATABASE_URL say where. Stops them afterwards, also on
# Ctrl-C, and exits with CMD's status. Without CMD it prints the variables and waits for Ctrl-C.
set -euo pipefail
# shellcheck source=dev/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

make_tmp
start_redis
start_postgres
export TEST_REDIS_URL=$REDIS_URL TEST_DATABASE_URL=$DATABASE_URL
# A program under test must not take these for its own settings.
export -n REDIS_URL DATABASE_URL

if [[ $# == 0 ]]; then
  echo "export TEST_REDIS_URL=$TEST_REDIS_URL TEST_DATABASE_URL=$TEST_DATABASE_URL"
  say 'Ctrl-C stops both'
  wait
  exit
fi

# CMD is a background job with a process group of its own, since bash runs a trap only when no
# foreground command runs; what ends this script is passed on to the whole group.
set -m
"$@" </dev/null &
command=$!
set +m
pass_on() {
  trap '' INT TERM HUP
  kill -"$1" -- -"$command" 2>/dev/null || true
  for _ in {1..100}; do
    kill -0 -- -"$command" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL -- -"$command" 2>/dev/null || true
  exit "$2"
}
trap 'pass_on INT 130' INT
trap 'pass_on TERM 143' TERM HUP
status=0
wait "$command" || status=$?
exit "$status"
