# Sourced by the other scripts: makes $VENV (default .venv of this checkout) with this project
# and its $EXTRAS, and puts its programs first on PATH.
set -eu
# paths, names and output may have letters of all kinds, in whatever locale this is
export PYTHONUTF8=1
case $(locale charmap 2>/dev/null) in
UTF-8 | "") ;;
*) export LC_ALL=C.UTF-8 ;; # Python starts without its environment, too
esac
cd "$(dirname "$0")/.."
VENV=${VENV:-$PWD/.venv}

find_python() {
    for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "no Python 3.11 or newer on PATH; set PYTHON to one" >&2
    return 1
}

make_environment() {
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null && [ "$(id -u)" = 0 ] &&
        command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
    fi
    "$python" -m venv "$VENV" || {
        echo "$python cannot make a virtual environment: install its venv module" >&2
        echo "(Debian and Ubuntu: apt-get install python3-venv)" >&2
        return 1
    }
}

[ -x "$VENV/bin/python" ] || make_environment
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
    --editable ".[$EXTRAS]"
PATH=$VENV/bin:$PATH
export PATH
