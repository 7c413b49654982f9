#!/usr/bin/env bash
# dev/fuzz.sh [TARGET…]: builds the targets of fuzz/ with the stable compiler, runs each on its corpus
# and then for FUZZ_SECONDS (60) on inputs of its own making, as many at the same time as there are
# cores. What crashes one is kept in fuzz/artifacts/TARGET/, and said. SEED=… repeats a run's
# choices, as far as time does not decide: FUZZ_RUNS=… ends each after so many inputs, if it is not
# late by then.
#
# New inputs are thrown away, unless GROW=1: then those that reach more are added to the corpus.
set -euo pipefail
# shellcheck source=dev/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

# Of one input: what a session's payload may have, about; seconds, which nothing here takes; and the
# memory of the process, which would show what keeps too much.
readonly INPUT_BYTES_MAX=8192 INPUT_SECONDS_MAX=10 MEMORY_MB_MAX=1024
readonly SECONDS_EACH=${FUZZ_SECONDS:-60} SEED=${SEED:-$((RANDOM * 32768 + RANDOM + 1))}

build() {
  RUSTC_WORKSPACE_WRAPPER=$ROOT/dev/instrument.sh cargo build --locked -p tokencast-fuzz --bins
}

# run TARGET: leaves its line in $TMP/TARGET.line, and its status in $TMP/TARGET.status.
run() {
  local target=$1 log=$TMP/$1.log new=$TMP/$1.new status=0 found='' common runs=0
  local bin=${CARGO_TARGET_DIR:-target}/debug/$target corpus=fuzz/corpus/$target
  local artifacts=fuzz/artifacts/$target/
  mkdir -p "$new" "$artifacts"
  common=(-artifact_prefix="$artifacts" -max_len="$INPUT_BYTES_MAX" -timeout="$INPUT_SECONDS_MAX"
    -rss_limit_mb="$MEMORY_MB_MAX" -print_final_stats=1)
  # What is committed goes first, whole: a bug that was found once is not left to chance.
  "$bin" "${common[@]}" -runs=0 "$corpus" >"$log" 2>&1 </dev/null || status=$?
  if ((status == 0 && SECONDS_EACH > 0)); then
    "$bin" "${common[@]}" -max_total_time="$SECONDS_EACH" -runs="${FUZZ_RUNS:--1}" -seed="$SEED" \
      -dict="fuzz/dict/$target.dict" "$new" "$corpus" >"$log" 2>&1 </dev/null || status=$?
  fi
  runs=$(awk '/^stat::number_of_executed_units:/ { n = $2 } END { print n + 0 }' "$log")
  if ((status)); then
    found="$(sed -n 's/^.*Test unit written to //p' "$log" | tail -n 1)"
    tail -n 40 "$log" >&2
    say "$target: ${found:-exit status $status}"
  elif [[ -n ${GROW:-} ]]; then
    "$bin" "${common[@]}" -merge=1 "$corpus" "$new" >>"$log" 2>&1 </dev/null || status=$?
  fi
  rmdir --ignore-fail-on-non-empty "$artifacts"
  printf '%-22s %8d runs, %6d/s, %5d edges, %3d MB%s\n' "$target" "$runs" \
    "$(figure average_exec_per_sec "$log")" "$(edges "$log")" "$(figure peak_rss_mb "$log")" \
    "${found:+, CRASH}" | tee "$TMP/$target.line" >&2
  echo "$status $runs" >"$TMP/$target.status"
}

figure() { awk -v name="stat::$1:" '$1 == name { n = $2 } END { print n + 0 }' "$2"; }

edges() { grep -o 'cov: [0-9]*' "$1" | awk '{ n = $2 } END { print n + 0 }'; }

trap clean_up EXIT
make_tmp
[[ $# -gt 0 ]] || set -- $(cd fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
build
say "SEED=$SEED"
running=0
for target; do
  [[ -d fuzz/corpus/$target ]] || die "no such target: $target"
  if ((running == $(nproc))); then
    wait -n || true
    running=$((running - 1))
  fi
  run "$target" &
  running=$((running + 1))
done
wait
crashes=$(cat "$TMP"/*.status | awk '$1 != 0 { n++ } END { print n + 0 }')
runs=$(cat "$TMP"/*.status | awk '{ n += $2 } END { print n + 0 }')
ended=$(cat "$TMP"/*.status | wc -l)
echo "$# targets, $runs runs, $crashes crashes"
((crashes == 0 && ended == $#))
