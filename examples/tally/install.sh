#!/bin/sh
# Build the program into one file and install it below PREFIX.
set -eu
cd "$(dirname "$0")"
PREFIX=${PREFIX:-/usr/local}
mkdir -p "$PREFIX/bin"
python3 -m zipapp . --python '/usr/bin/env python3' --main tally.__main__:main \
    --output "$PREFIX/bin/tally"
echo "installed $PREFIX/bin/tally"
