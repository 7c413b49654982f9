#!/usr/bin/env bash
# dev/instrument.sh RUSTC ARG…: RUSTC with what libfuzzer needs to see which code an input reaches.
# Cargo calls it by RUSTC_WORKSPACE_WRAPPER for this workspace's own crates: libraries stay as they
# are, and are not compiled a second time. The flags are those of cargo-fuzz, but for the sanitizer,
# which needs a nightly compiler and is not missed where nothing is unsafe.
set -euo pipefail

for argument; do
  case $argument in
    # Cargo asks what the compiler can do; a build script is no part of what is tested.
    ___ | build_script_*) exec "$@" ;;
    --crate-name) instrumented=yes ;;
  esac
done
[[ -n ${instrumented:-} ]] || exec "$@"
exec "$@" --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 \
  -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
