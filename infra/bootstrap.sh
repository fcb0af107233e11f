#!/bin/sh
# Run uv with the given arguments; gets it from PyPI on a machine that has only python3.
set -eu
TOOLS=$(cd "$(dirname "$0")/.." && pwd)/.tools/uv
UV_VERSION=0.9.0

if command -v uv >/dev/null 2>&1; then
    exec uv "$@"
fi
if [ ! -x "$TOOLS/bin/uv" ]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "Kehu needs Python 3.11 or newer; python3 here is $(python3 --version)" >&2
        exit 1
    }
    if ! python3 -m venv "$TOOLS" >/dev/null 2>&1; then
        rm -rf "$TOOLS"
        sudo=""
        [ "$(id -u)" = 0 ] || sudo="sudo"
        if ! command -v apt-get >/dev/null 2>&1 || { [ -n "$sudo" ] && ! command -v sudo >/dev/null 2>&1; }; then
            echo "python3 cannot make virtual environments here: install its venv module, or uv, and repeat" >&2
            exit 1
        fi
        echo "python3's venv module is missing: installing Debian's package python3-venv (once)"
        $sudo apt-get update -q >/dev/null || true
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv >/dev/null
        python3 -m venv "$TOOLS"
    fi
    "$TOOLS/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=$UV_VERSION"
fi
exec "$TOOLS/bin/uv" "$@"
