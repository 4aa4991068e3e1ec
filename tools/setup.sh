#!/usr/bin/env bash
# Makes .venv with the exact versions of requirements.lock; does nothing when it is already there.
# Needs: Linux, Python >= 3.11 with venv and pip. No root.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "setup: $*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "this runs on Linux; this is $(uname -s)"
python=""
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "Python >= 3.11 is missing (looked for ${PYTHON:-python3 and python3.11 to 3.14}); install it or set PYTHON"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv/pip: install the package python3-venv (Debian, Ubuntu) or your system's equal of it"

want=$( { "$python" --version; sha256sum requirements.lock pyproject.toml; pwd; } | sha256sum )
if [ "$(cat .venv/.stamp 2>/dev/null)" != "$want" ]; then
    echo "setup: installing the exact versions of requirements.lock into .venv (a minute, once)" >&2
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock ||
        fail "pip could not install requirements.lock (see above); is the package index reachable?"
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . ||
        fail "pip could not install this checkout (see above)"
    echo "$want" >.venv/.stamp
fi

# The data plane of the DNS frontend, where there is a Rust compiler; without one Python answers everything.
if command -v cargo >/dev/null; then
    want=$( { cargo --version; find dns_frontend/dataplane \( -path '*/target' -o -path '*/fuzz' -o -name Cargo.lock \) -prune -o -type f -print0 |
        sort -z | xargs -0 sha256sum; } | sha256sum )
    if [ "$(cat .venv/.stamp-dataplane 2>/dev/null)" != "$want" ] || ! compgen -G 'dns_frontend/_dataplane*.so' >/dev/null; then
        echo "setup: building the DNS data plane with cargo (half a minute, once)" >&2
        rm -f dns_frontend/_dataplane*.so
        log=$(mktemp)
        .venv/bin/python -c 'from setuptools import setup; setup()' build_rust --inplace --release >"$log" 2>&1 || true
        if ! compgen -G 'dns_frontend/_dataplane*.so' >/dev/null; then
            cat "$log" >&2
            rm -f "$log"
            fail "cargo is there and could not build dns_frontend/dataplane (see above); without cargo on PATH, Python answers DNS"
        fi
        rm -f "$log"
        echo "$want" >.venv/.stamp-dataplane
    fi
fi
