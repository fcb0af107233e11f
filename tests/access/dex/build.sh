#!/usr/bin/env bash
# Build dex, an OpenID Connect provider, for tests/access/test_dex.py: needs Go and its module proxy, once.
set -euo pipefail
cd "$(dirname "$0")"
tools="$(cd ../../.. && pwd)/.tools"
CGO_ENABLED=0 GOBIN="$tools/bin" go install .
rm -rf "$tools/dex-web"
cp -r "$(go list -m -f '{{.Dir}}' github.com/dexidp/dex)/web" "$tools/dex-web"
chmod -R u+w "$tools/dex-web"
