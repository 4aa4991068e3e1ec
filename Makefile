# make demo    a small planet on this machine, with Shakespeare served through it
# make test    the tests
# make help    the rest
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help setup texts demo test test-dns-dataplane fuzz check lint types imports drift collected rust gen lock bench bench-balancer bench-dns bench-rpc clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: ## .venv with the exact versions of requirements.lock
	@tools/setup.sh

texts: setup ## the works of Shakespeare, downloaded once and verified
	@$(BIN)/python -m examples.shakespeare.texts

demo: setup texts ## start a small planet on this machine and show it (Ctrl-C ends it)
	@$(BIN)/gslb demo

# Two tests run side by side, on real processes: what fails then is tried once more alone, and what fails twice is red.
test: setup texts ## every test, on real parts
	$(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder || \
	    { echo "once more, alone: what failed above" >&2; $(BIN)/pytest --last-failed --last-failed-no-failures none; }

test-dns-dataplane: setup ## a million random messages through both DNS responders
	GSLB_DIFFERENTIAL=1000000 $(BIN)/pytest -q -s --timeout 1800 tests/property/test_dns_dataplane.py

FUZZ_S ?= 60
fuzz: setup ## each fuzz target of the DNS data plane for FUZZ_S seconds (60), and the cost of hostile messages
	GSLB_FUZZ_S=$(FUZZ_S) $(BIN)/pytest -q -s -m fuzz tests/fuzz

check: setup lint types imports drift collected rust ## ruff, mypy strict, import-linter, generated-code drift, every test importable, clippy

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

rust: setup ## the data plane: format, clippy, its own tests; nothing where there is no cargo
	@command -v cargo >/dev/null || { echo "no cargo: the data plane is not checked"; exit 0; }; \
	cd dns_frontend/dataplane && cargo fmt --all --check && \
	cargo clippy --quiet --release --all-targets && cargo test --quiet --release

imports: setup
	$(BIN)/lint-imports

drift: setup
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && tools/gen.sh "$$out" && status=0 && \
	for d in bns/v1 gslb/v1 bns/etcd/v3 examples/shakespeare/v1; do \
	    diff -r --exclude=__init__.py --exclude=__pycache__ "$$out/$$d" "$$d" || status=1; \
	done; \
	[ $$status = 0 ] && echo "generated code is what proto/ says" || { echo "generated code drifted: run 'make gen'" >&2; exit 1; }

collected: setup
	@out=$$($(BIN)/pytest --collect-only -q 2>&1) || { echo "$$out" | tail -40 >&2; exit 1; }; echo "$$out" | tail -1

gen: ## make the protobuf code anew from proto/
	tools/gen.sh

lock: setup ## resolve requirements.lock anew
	$(BIN)/pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --strip-extras --generate-hashes --unsafe-package gslb \
	    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	    --extra dev --output-file requirements.lock pyproject.toml
	sed -i '/^# WARNING: The following packages were not pinned/,$$d' requirements.lock

bench: setup texts ## every benchmark: prints tables, writes bench/out/*.json
	$(BIN)/python -m bench

bench-balancer: setup ## the balancer beside simpler ways: cost, movement, time, quietness
	$(BIN)/python -m bench balancer

bench-dns: setup ## the DNS frontend beside other servers: queries per second of CPU
	$(BIN)/python -m bench dns

bench-rpc: setup ## the RPC library's rules beside others: tails, errors, overload, connections
	$(BIN)/python -m bench rpc

clean: ## forget everything that setup made
	rm -rf .venv .venv-gen .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info bench/out
