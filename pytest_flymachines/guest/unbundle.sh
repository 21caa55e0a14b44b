# Fill the workspace (the current directory) from a packed local work tree:
# unbundle.sh - - - SUBMODULES
# The pack is three lines (branch, URL of the remote, commits whose parents are missing, each
# may be empty) and a git bundle with refs/worktree/now if there were uncommitted changes.
set -e
submodules=$4
pack=${PYTEST_FLYMACHINES_ROOT:-}/opt/pytest-flymachines/repo.pack
bundle=${pack%pack}bundle
command -v git >/dev/null || { echo "git is not in the image" >&2; exit 127; }
{
    IFS= read -r branch
    IFS= read -r origin
    IFS= read -r shallow
    cat >"$bundle"
} <"$pack"
rm -f "$pack"

git init --quiet .
if [ -n "$shallow" ]; then printf '%s\n' $shallow >.git/shallow; fi
git fetch --quiet --update-head-ok "$bundle" \
    '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*' '+refs/worktree/*:refs/worktree/*'
rm -f "$bundle"
head=$(git rev-parse --verify --quiet refs/heads/pytest-flymachines-head)
if [ -n "$branch" ]; then
    git update-ref "refs/heads/$branch" "$head"
    git symbolic-ref HEAD "refs/heads/$branch"
else
    git update-ref --no-deref HEAD "$head"
fi
git update-ref -d refs/heads/pytest-flymachines-head
if git rev-parse --verify --quiet refs/worktree/now >/dev/null; then
    git read-tree --reset -u refs/worktree/now
    git update-ref -d refs/worktree/now
    git reset --quiet
else
    git reset --quiet --hard
fi
if [ -n "$origin" ]; then git remote add origin "$origin"; fi
if [ -n "$submodules" ]; then git submodule --quiet update --init --recursive; fi
