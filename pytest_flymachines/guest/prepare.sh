# Fill the workspace (the current directory) once, and print its absolute path:
# prepare.sh MODE SCRIPT A B C D [SETUP-COMMAND...]
# MODE `fill` does the work; `wait` waits for another process that does it. SCRIPT is
# clone.sh, unbundle.sh or empty, and gets A to D.
dir=${PYTEST_FLYMACHINES_ROOT:-}/opt/pytest-flymachines
mode=$1 script=$2
shift 2
# beside what it vouches for: a workspace on a volume outlives the root file system
ready=$dir/ready
[ -z "$script" ] || ready=.git/pytest-flymachines-ready

run_setup() {
    shift 4
    for command in "$@"; do
        sh -c "$command" || {
            code=$?
            echo "the setup command ended with exit code $code: $command" >&2
            exit "$code"
        }
    done
}

if [ "$mode" = wait ]; then
    while [ ! -e "$ready" ]; do sleep 1; done
elif [ ! -e "$ready" ]; then
    if [ -e .pytest-flymachines.pack ]; then mv .pytest-flymachines.pack "$dir/repo.pack"; fi
    if [ -n "$script" ]; then
        # what an earlier, interrupted attempt left; a volume's lost+found may stay
        rm -rf ./* ./.[!.]* ./..?* 2>/dev/null
        sh "$dir/$script" "$@" >&2 || exit
    fi
    run_setup "$@" >&2
    : >"$ready"
fi
: >"$dir/prepared" # a start that does not find it has lost the root file system
pwd
