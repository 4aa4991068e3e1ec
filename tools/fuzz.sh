#!/usr/bin/env bash
# Fuzzing of the DNS data plane with libFuzzer, on the toolchain that is there (docs/adr/0012).
#
#   tools/fuzz.sh build                       builds every target; prints the directory that they are in
#   tools/fuzz.sh run TARGET SECONDS [RUNS]   from our corpus: until the time or, if given, the executions are over
#
# What a run adds to the corpus stays in .cache/fuzz; an input that fails is kept there too, and named.
set -euo pipefail
cd "$(dirname "$0")/.."
cannot() { echo "fuzz: $*" >&2; exit 3; }

export CARGO_TARGET_DIR="$PWD/.cache/fuzz/target"
host=$(rustc -vV | sed -n 's/^host: //p')
built="$CARGO_TARGET_DIR/$host/release"

case "${1:-}" in
build)
    command -v c++ >/dev/null || cannot "libFuzzer needs a C++ compiler (c++), and there is none"
    cargo fetch --quiet --target "$host" --manifest-path dns_frontend/dataplane/fuzz/Cargo.toml ||
        cannot "the crates of dns_frontend/dataplane/fuzz cannot be fetched (see above): is the crate registry reachable?"
    # What cargo-fuzz passes too: blocks and comparisons are reported to libFuzzer. No sanitizer: the core has no unsafe code.
    export RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
        -Cllvm-args=-sanitizer-coverage-trace-compares"
    # A target is named so that flags are for it alone, and not for build scripts.
    cargo build --quiet --release --target "$host" --manifest-path dns_frontend/dataplane/fuzz/Cargo.toml
    echo "$built"
    ;;
run)
    target=$2 seconds=$3 runs=${4:--1}
    kept=".cache/fuzz/$target"
    mkdir -p "$kept/corpus" "$kept/failed"
    # libFuzzer's stop-watch would take a machine that stands still for an endless loop; those outlast 20 minutes.
    exec nice -n 19 "$built/$target" -max_total_time="$seconds" -runs="$runs" -timeout=1200 -rss_limit_mb=1024 -max_len=4096 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="$kept/failed/" "$kept/corpus" "dns_frontend/dataplane/fuzz/corpus/$target"
    ;;
*)
    sed -n '4,5s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
