#!/usr/bin/env bash
# dev/test.sh [rust] [e2e] [openapi] [types] [deny] [fuzz]: the tests, and their counts at the end. Needs the
# services of dev/services.sh. SUITE=stream runs tests/e2e/stream.test.mjs only; TESTS=… filters cargo's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ -n ${TEST_REDIS_URL:-} && -n ${TEST_DATABASE_URL:-} ]] ||
  { echo 'dev/test.sh: run it through dev/services.sh' >&2; exit 2; }
[[ $# -gt 0 ]] || set -- rust e2e openapi types deny fuzz

logs=$(mktemp -d "${TMPDIR:-/tmp}/tokencast-test.XXXXXX")
trap 'rm -rf "$logs"' EXIT
status=0 summary=()

# Builds target/debug/tokencast as well: integration tests need the program. A `cargo build` before
# it would compile the dependencies twice, since the tests add features to some.
build() {
  cargo test --locked --no-run
}

rust() {
  local filter=()
  [[ -z ${TESTS:-} ]] || filter=("$TESTS")
  build
  # One binary's failure does not hide the others'.
  cargo test --locked --no-fail-fast "${filter[@]}" 2>&1 | tee "$logs/rust" || status=1
  summary+=("$(awk '/^test result:/ { p += $4; f += $6; i += $8 }
    END { printf "Rust:        %d passed, %d failed, %d ignored", p, f, i }' "$logs/rust")")
}

# The program to test: TOKENCAST_BIN, or the one built here.
program() {
  local bin=${TOKENCAST_BIN:-}
  if [[ -z $bin ]]; then
    build >&2
    bin=${CARGO_TARGET_DIR:-target}/debug/tokencast
  fi
  [[ -x $bin ]] || { echo "dev/test.sh: no program at $bin" >&2; exit 2; }
  readlink -f "$bin"
}

e2e() {
  local bin files=(tests/e2e/*.test.mjs)
  bin=$(program)
  [[ -z ${SUITE:-} ]] || files=("tests/e2e/$SUITE.test.mjs")
  # Each test has a limit of its own; this one is for a runner that hangs.
  TOKENCAST_BIN=$bin timeout --foreground 50m node --test --test-concurrency=1 \
    --test-reporter=spec --test-reporter-destination=stdout \
    --test-reporter=tap --test-reporter-destination="$logs/e2e" "${files[@]}" || status=1
  summary+=("$(awk '/^# pass / { p = $3 } /^# fail / { f = $3 } /^# cancelled / { c = $3 } /^# skipped / { s = $3 }
    END { printf "End to end:  %d passed, %d failed, %d skipped", p, f + c, s }' "$logs/e2e")")
}

openapi() {
  local bin
  bin=$(program)
  dev/openapi.sh "$bin" >"$logs/openapi" || status=1
  summary+=("OpenAPI:     $(tail -n 1 "$logs/openapi")")
}

types() {
  local bin
  bin=$(program)
  dev/types.sh "$bin" >"$logs/types" || status=1
  summary+=("Types:       $(tail -n 1 "$logs/types")")
}

deny() {
  dev/deny.sh 2>&1 | tee "$logs/deny" || status=1
  summary+=("Crates:      $(tail -n 1 "$logs/deny")")
}

# Shorter than `make fuzz`: the corpus first, which holds what was found before, then the same few
# inputs each time, so that a change fails by what it did, and not by chance.
fuzz() {
  FUZZ_SECONDS=${FUZZ_SECONDS:-60} FUZZ_RUNS=${FUZZ_RUNS:-15000} SEED=${SEED:-1} dev/fuzz.sh >"$logs/fuzz" || status=1
  summary+=("Fuzz:        $(tail -n 1 "$logs/fuzz")")
}

for part; do
  case $part in
    rust | e2e | openapi | types | deny | fuzz) "$part" ;;
    *) echo "dev/test.sh: unknown part: $part" >&2; exit 2 ;;
  esac
done

printf '\n%s\n' '──────── tests'
printf '%s\n' "${summary[@]}"
if ((status)); then echo 'FAILED'; else echo 'passed'; fi
exit "$status"
