#!/usr/bin/env bash
# Makes the protobuf code in bns/ and gslb/ from proto/, with pinned tools in a venv of their own
# (stubs made by grpcio-tools 1.75.1 import on protobuf 6.31 to 7.x; newer ones do not).
#   tools/gen.sh [OUT]     OUT: where to write (default: the repository itself)
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-.}
venv=.venv-gen
pins="grpcio-tools==1.75.1 mypy-protobuf==3.7.0 setuptools==80.9.0"
if [ "$(cat "$venv/pins" 2>/dev/null)" != "$pins" ]; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet --disable-pip-version-check $pins
    echo "$pins" >"$venv/pins"
fi
mkdir -p "$out"
PATH="$PWD/$venv/bin:$PATH" "$venv/bin/python" -m grpc_tools.protoc \
    -Iproto -Ibns/etcd/v3=proto/etcd -Iexamples/shakespeare/v1=examples/shakespeare \
    --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
    proto/bns/v1/*.proto proto/gslb/v1/*.proto bns/etcd/v3/rpc.proto examples/shakespeare/v1/shakespeare.proto
# The etcd mirror has messages only; an empty service file would be noise.
rm -f "$out"/bns/etcd/v3/rpc_pb2_grpc.py "$out"/bns/etcd/v3/rpc_pb2_grpc.pyi
for package in bns/v1 gslb/v1; do
    for name in "$out/$package"/*_pb2_grpc.py; do
        grep -q "class .*Stub" "$name" || rm -f "$name" "${name}i"
    done
done
