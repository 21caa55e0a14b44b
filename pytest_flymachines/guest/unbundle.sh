# Fill the workspace (the current directory) from a bundle made of a local work tree:
# unbundle.sh BUNDLE BRANCH ORIGIN SUBMODULES SHALLOW
# The bundle has HEAD, and refs/worktree when the tree had uncommitted changes. SHALLOW is
# the list of commits whose parents were not there, as in .git/shallow.
set -e
bundle=$1 branch=$2 origin=$3 submodules=$4 shallow=$5
command -v git >/dev/null || { echo "git is not in the image" >&2; exit 127; }

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
