#!/usr/bin/env bash
# dev/bench.sh [TEST] [OPTION]…: builds the server and the load tests, optimised, and runs one of
# them (cross-node, the default; send; long-session; long; first-token; slow; late-join) with a
# Redis and a PostgreSQL of its own, all of it on two cores. Stops everything afterwards. Options are
# those of `tokencast-loadtest TEST`, such as --runs 5 --out result.json.
#
# `dev/bench.sh slow-and-late`: slow and then late-join, as they are; fails where one does.
#
#   BENCH_CPUS   the cores, as taskset(1) reads them (0,1)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dev/install.sh minimal
# Two builds: in one, features that the load tests choose would be in the server too.
cargo build --release --locked --bin tokencast
cargo build --release --locked --package tokencast-loadtest
bin=${CARGO_TARGET_DIR:-target}/release/tokencast-loadtest
if [[ $# == 0 || $1 == -* ]]; then set -- cross-node "$@"; fi
bench() { taskset --cpu-list "${BENCH_CPUS:-0,1}" dev/services.sh "$bin" "$@"; }
if [[ $1 != slow-and-late ]]; then bench "$@"; exit; fi
status=0
for test in slow late-join; do bench "$test" || status=1; done
exit "$status"
