#!/usr/bin/env bash
# Build the Go peer of tests/bench/bench_gateway.py: needs Go and its module proxy, once.
set -euo pipefail
cd "$(dirname "$0")"
root="$(cd ../../../.. && pwd)"
tools="$root/.tools/go-peer"
export CGO_ENABLED=0 GOBIN="$tools/bin"
mkdir -p peerpb "$GOBIN"
go install tool
packages="$("$root/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
PATH="$GOBIN:$PATH" "$root/.venv/bin/python" -m grpc_tools.protoc -I. -I"$packages" -I"$packages/grpc_tools/_proto" \
  --go_out=. --go_opt=module=kehu.example/peer \
  --go-grpc_out=. --go-grpc_opt=module=kehu.example/peer \
  --grpc-gateway_out=. --grpc-gateway_opt=module=kehu.example/peer peer.proto
go build -o "$GOBIN/peer" .
