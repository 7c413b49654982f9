# What a developer types. `make test` and `make cluster` install from Debian what is missing.

.PHONY: help build test rust e2e takeover jitter deploy-storm abuse fuzz openapi types deny audit check fmt cluster bench slow install

help:
	@echo 'make test      everything: cargo test, the end-to-end suites, the documents, types and fuzz targets'
	@echo 'make rust      cargo test only             (TESTS=name filters)'
	@echo 'make e2e       the end-to-end suites only  (SUITE=stream runs one)'
	@echo 'make takeover  kills the node that generates at 200 random tokens (KILLS=200 SEED=…) and says how long readers waited'
	@echo 'make jitter    2,000 clients that are cut off again and again, without and with a killed node (CLIENTS=… SESSIONS=… SEED=…)'
	@echo 'make deploy-storm  a rolling restart of three nodes under 5,000 clients and 100 answers (CLIENTS=… ANSWERS=… GRACE=…)'
	@echo 'make abuse     500 honest clients beside abuse of every kind, without and with it in turn (CLIENTS=… PHASE=… ROUNDS=… SCALE=…)'
	@echo 'make openapi   the OpenAPI document and its routes only'
	@echo 'make types     the AsyncAPI document and clients/typescript only (GENERATE=1 writes the types)'
	@echo 'make deny      licences, bans and sources of the crates; no network'
	@echo 'make audit     the same and the published advisories: needs the network'
	@echo 'make fuzz      the fuzz targets, 60 s each (TARGETS="decode …" FUZZ_SECONDS=… GROW=1 adds what reaches more to the corpus)'
	@echo 'make check     format, lints, documentation'
	@echo 'make cluster   three nodes behind nginx on this machine (CLUSTER_PORT=8080)'
	@echo 'make bench     how much later another node gets each chunk (ARGS="--runs 5"), and other load tests'
	@echo 'make slow      what slow readers cost the others and the nodes, and how fast late ones have a long answer'
	@echo 'make build     the program, optimised'
	@echo 'make install   what the tests need, from Debian'

build:
	cargo build --release --locked

install:
	@dev/install.sh

test: install
	@dev/services.sh dev/test.sh rust e2e openapi types deny fuzz

rust:
	@dev/install.sh minimal
	@dev/services.sh dev/test.sh rust

e2e: install
	@dev/services.sh dev/test.sh e2e

takeover: install
	@KILLS=$${KILLS:-200} SUITE=takeover dev/services.sh dev/test.sh e2e

jitter: install
	@dev/storm.sh jitter

deploy-storm: install
	@dev/storm.sh deploy-storm

abuse: install
	@dev/storm.sh abuse

fuzz:
	@dev/install.sh fuzz
	@dev/fuzz.sh $(TARGETS)

openapi:
	@dev/install.sh minimal openapi
	@dev/services.sh dev/test.sh openapi

types:
	@dev/install.sh minimal types
	@dev/services.sh dev/test.sh types

deny:
	@dev/install.sh deny
	@dev/deny.sh

audit:
	@dev/install.sh deny
	@dev/deny.sh advisories

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps

fmt:
	cargo fmt --all

cluster:
	@dev/cluster.sh

bench:
	@dev/bench.sh $(ARGS)

slow:
	@dev/bench.sh slow-and-late
