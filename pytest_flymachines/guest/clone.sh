# Fill the workspace (the current directory) from a URL: clone.sh URL REF DEPTH SUBMODULES
# Empty words mean: default branch, whole history, no submodules.
set -e
url=$1 ref=$2 depth=$3 submodules=$4
dir=${PYTEST_FLYMACHINES_ROOT:-}/opt/pytest-flymachines
chmod 755 "$dir/askpass.sh"
export GIT_ASKPASS="$dir/askpass.sh" GIT_TERMINAL_PROMPT=0
command -v git >/dev/null || { echo "git is not in the image" >&2; exit 127; }

if [ -z "$depth" ]; then
    git clone --quiet --no-checkout -- "$url" .
    if [ -z "$ref" ]; then
        git checkout --quiet
    elif ! git checkout --quiet "$ref" -- 2>/dev/null; then
        git fetch --quiet origin "$ref"
        git checkout --quiet --detach FETCH_HEAD
    fi
else
    git init --quiet .
    git remote add origin "$url"
    git fetch --quiet --depth "$depth" origin "${ref:-HEAD}"
    if [ -n "$ref" ] && git ls-remote --exit-code --heads origin "refs/heads/$ref" >/dev/null; then
        git checkout --quiet -B "$ref" FETCH_HEAD
    else
        git checkout --quiet --detach FETCH_HEAD
    fi
fi
if [ -n "$submodules" ]; then
    git submodule --quiet update --init --recursive ${depth:+--depth "$depth"}
fi
