# What ApiChannel keeps in the machine: functions of POSIX sh, sourced by each of its requests.
# Names begin with `_`, because a variable that the machine's environment has too would change
# for the commands. $_S is the state directory, $_V this file's version, $_T a temporary file.
#
# A process has a directory $_D: cmd (shell text that runs it), in (its stdin), at (uptime when it
# was last asked about), own (somebody waits for its end all the time), pid, sup (pid of
# its supervisor), o e i (FIFOs of stdout, stderr, stdin), orders (for the feeder of stdin), c
# (FIFO that wakes the feeder), done (FIFO that wakes whoever waits), o.out e.out (output), o.cut
# e.cut (output was dropped), timed, broken (nobody reads stdin), tty, key, dur (hundredths of a
# second) and at last code.
#
# An answer is on stdout. A failure is exit code 1 and, on stderr, `errno` and a number or word,
# or what the program that failed said.

_fail() {
    echo "errno $1" >&2
    exit 1
}

_request() { # VERSION MODE WORKDIR BASE VERB ARGUMENT...
    umask 077
    if [ "$2" = % ]; then # arguments that are not UTF-8 come as escapes of printf
        _n=$#
        for _a do
            _a=$(printf '%b.' "$_a")
            set -- "$@" "${_a%.}"
        done
        shift "$_n"
    fi
    _V=$1 _verb=$5
    # the machine's first request may come before its init has made the workspace
    if [ ! -e "$_S/tools" ] && [ -e "${_S%/*}/init.sh" ]; then
        (umask 022 && mkdir -p -- "${PYTEST_FLYMACHINES_ROOT:-}$3")
    fi
    case $4 in
    /*) ;;
    *) cd -- "${PYTEST_FLYMACHINES_ROOT:-}$3" 2>/dev/null || _fail base ;;
    esac
    cd -- "$4" 2>/dev/null || _fail base
    shift 5
    _T=$_S/t.$$
    trap 'rm -f "$_T"' EXIT
    [ -r "$_S/tools" ] || _find_tools
    read -r _tools <"$_S/tools"
    "_$_verb" "$@"
}

_find_tools() {
    _t=-
    for _x in base64:b gzip:g tar:t setsid:s script:c sha256sum:h; do
        command -v "${_x%:*}" >/dev/null && _t=$_t${_x#*:}
    done
    sleep 0.01 && _t=$_t.
    tar --version | grep -q GNU && _t=${_t}T
    [ "$(find / -maxdepth 0 -printf x)" = x ] && _t=${_t}f
    setpriv --help 2>&1 | grep -q reuid && _t=${_t}p
    echo "$_t" >"$_T"
    mv "$_T" "$_S/tools"
} 2>/dev/null

_has() { case $_tools in *"$1"*) ;; *) return 1 ;; esac; }

_hello() { echo "$_tools"; }

_nap() { if _has .; then sleep 0.1; else sleep 1; fi; }

# Bytes in: an argument that starts with its encoding, or with @ and the name of a staged file.
# Bytes out: the encoding, lines of text, a dot.

_data() {
    case $1 in
    t*) printf %s "${1#t}" | cat ;; # which says why it cannot write
    b*) printf %s "${1#b}" | base64 -d ;;
    z*) printf %s "${1#z}" | base64 -d | gzip -dc ;;
    p*) printf %b "${1#p}" | cat ;;
    @*) cat "$_S/s/${1#@}/data" ;;
    esac
}

_give() { # DATA FILE: like _data, but a staged file goes there itself
    case $1 in
    @*) mv "$_S/s/${1#@}/data" "$2" && rm -rf "$_S/s/${1#@}" || exit 1 ;;
    *) _data "$1" >"$2" || exit 1 ;;
    esac
}

_pack() { # BYTES: stdin, which has so many
    if _has b && _has g && [ "$1" -gt 1500 ]; then
        echo z
        gzip -1c | base64
    elif _has b; then
        echo b
        base64
    else
        echo x
        od -An -v -tx1
    fi
    echo .
}

_slice() { # FILE OFFSET SIZE
    if [ "$2" -eq 0 ]; then
        head -c "$3" <"$1"
    else
        dd bs=4096 skip=$(($2 / 4096)) 2>/dev/null <"$1" | tail -c +$(($2 % 4096 + 1)) | head -c "$3"
    fi
}

_size() {
    _bytes=0
    [ ! -e "$1" ] || _bytes=$(wc -c <"$1")
}

_new() { # DIRECTORY: makes DIRECTORY/$_N
    mkdir -p "$1" || exit 1
    if [ ! -s "$_S/boot" ]; then # names must not come again when the machine boots anew
        read -r _b </proc/sys/kernel/random/uuid
        (set -C && echo "${_b%%-*}" >"$_S/boot") 2>/dev/null
    fi
    read -r _b <"$_S/boot" || exit 1
    _N=1
    [ ! -s "$1/next" ] || read -r _N <"$1/next"
    # a name that was dropped must not be another's: requests that meet here may write `next` in
    # any order, so what is taken stays taken for a while
    until mkdir "$1/.$_N" 2>/dev/null; do
        [ -d "$1/.$_N" ] || mkdir "$1/.$_N" || exit 1
        _N=$((_N + 1))
    done
    echo $((_N + 1)) >"$1/.next.$$"
    mv "$1/.next.$$" "$1/next"
    rmdir "$1/.$((_N - 64))" 2>/dev/null
    _N=${1##*/}$_N-$_b
    mkdir "$1/$_N" || exit 1
}

# staging: what does not fit into one request comes ahead in pieces, to $_S/s/NAME/data; `at` has
# the uptime of its last use

_stage() { # NAME-OR-EMPTY OFFSET DATA [tree|pack], the last one for cassettes
    if [ -z "$1" ]; then
        _sweep
        _new "$_S/s"
        : >"$_S/s/$_N/data"
        set -- "$_N" 0 "$3"
    fi
    _use "$1"
    _size "$_S/s/$1/data"
    if [ "$_bytes" -gt "$2" ]; then # a piece that is sent again replaces itself
        _slice "$_S/s/$1/data" 0 "$2" >"$_T" && mv "$_T" "$_S/s/$1/data" || exit 1
    fi
    _data "$3" >>"$_S/s/$1/data" || exit 1
    _size "$_S/s/$1/data"
    echo "$1 $_bytes"
}

_drop() { rm -rf "$_S/s/$1"; }

_last() { # DATA: this request is the last to use it
    case $1 in @*) _s=$_S/s/${1#@} ;; esac
    # at its exit the shell has its own arguments again, so none of a function's stands here
    trap 'rm -rf "$_T" "$_t" "$_s"' EXIT
}

_use() { # NAME
    _uptime
    echo "$_up" >"$_S/s/$1/at"
}

_IDLE=90000 # hundredths of a second; a sender sends a piece each second or so

_sweep() { # what was sent ahead by somebody who was killed since, so that nobody will use it
    _uptime
    for _at in "$_S"/s/*/at "$_S"/aborted.*; do
        read -r _x <"$_at" || continue
        # what is from the future is of a boot before
        [ "$_x" -lt $((_up - _IDLE)) ] || [ "$_x" -gt $((_up + _IDLE)) ] || continue
        rm -rf "${_at%/at}"
    done 2>/dev/null
}

# processes

_start() { # WAIT FORGET KEY TIMEOUT USER PTY KEEP-STDIN DIRECTORY COMMAND STDIN
    _wait=$1 _forget=$2
    if [ ! -d "$8" ]; then
        LC_ALL=C stat -- "$8" >/dev/null || exit 1
        _fail 20
    fi
    if [ -n "$5" ]; then
        _find_user "$5" || _fail user
        _me=$(id -u)
        [ "$_me" = 0 ] || [ "$_me" = "$_uid" ] || _fail 1
    fi
    [ -z "$6" ] || _has c || _fail script
    _sweep_processes
    _new "$_S/p"
    _D=$_S/p/$_N
    echo "$_up" >"$_D/at"
    [ -z "$2" ] || : >"$_D/own"
    echo "$3" >"$_D/key"
    if [ -e "$_S/aborted.$3" ]; then # by a request that came first
        rm -rf "$_D" "$_S/aborted.$3"
        _fail aborted
    fi
    _give "$9" "$_D/cmd"
    [ -z "${10}" ] || _give "${10}" "$_D/in"
    : >"$_D/orders"
    mkfifo "$_D/o" "$_D/e" "$_D/i" "$_D/c" "$_D/done" || exit 1
    # a command of another user may open /dev/stdout, which is one of these
    chmod 666 "$_D/o" "$_D/e" "$_D/i"
    exec 8<>"$_D/done"
    _launch "$4" "$5" "$6" "${7-}"
    _what=code
    if [ "$_wait" -gt 0 ]; then _in_turn "$_wait"; else _what=pid _wait=200; fi
    if [ ! -s "$_D/$_what" ]; then
        _seconds=$((_wait / 100)).$((_wait % 100 / 10))
        _has . || _seconds=$(((_wait + 99) / 100))
        _alarm "$_seconds" &
        until [ -s "$_D/$_what" ]; do
            read -r _x <&8
            [ "$_x" != late ] || break
        done
        kill $! 2>/dev/null
    fi
    _tell 0 0
}

# While a request waits, Fly runs no other of any client, not even one that ends a command. So those
# that wait for a process share the time that one alone would wait.
_in_turn() { # SECONDS: sets _wait, in hundredths
    _uptime
    _n=0
    for _x in "$_S"/p/p*/at; do
        [ ! -e "${_x%at}code" ] && read -r _at <"$_x" || continue
        # asked about lately
        [ "$_at" -lt $((_up - 1000)) ] || _n=$((_n + 1))
    done 2>/dev/null
    _wait=$(($1 * 100))
    [ "$_n" -lt 2 ] || _wait=$((_wait / _n))
}

_KEEP=200 # ended processes

_sweep_processes() { # output that nobody will ask for: of clients that were killed, and the oldest
    _uptime
    _n=0
    for _D in "$_S"/p/p*; do
        _ended || continue
        _n=$((_n + 1))
        { [ -e "$_D/own" ] && read -r _x <"$_D/at"; } || continue
        # what is from the future is of a boot before
        [ "$_x" -lt $((_up - _IDLE)) ] || [ "$_x" -gt $((_up + _IDLE)) ] || continue
        rm -rf "$_D"
        _n=$((_n - 1))
    done
    [ "$_n" -gt "$_KEEP" ] || return 0
    for _x in $(ls -tr "$_S/p"); do
        [ -e "$_S/p/$_x/code" ] || continue
        rm -rf "$_S/p/$_x"
        _n=$((_n - 1))
        [ "$_n" -gt "$_KEEP" ] || break
    done
} 2>/dev/null

# A shell starts background jobs with SIGINT ignored, for ever. So the supervisor starts in the
# foreground, in a pipeline whose other end kills the shell that would wait for it.
_launch() { # TIMEOUT USER PTY KEEP-STDIN
    export _S _V _D _tools
    _s=env
    ! _has s || _s=setsid
    {
        /bin/sh -c '"$0" /bin/sh -c '\''. "$_S/$_V.sh"; _supervise "$@"'\'' fly "$@" \
            </dev/null >/dev/null 2>&1 8>&- | kill -KILL $$' "$_s" "$@"
    } >/dev/null 2>&1
}

_alarm() {
    sleep "$1" &
    trap 'kill $!; exit' TERM
    wait $!
    echo late >&8
} >/dev/null 2>&1

_supervise() { # TIMEOUT USER PTY KEEP-STDIN
    _uptime
    _began=$_up
    echo "$_began" >"$_D/began"
    echo $$ >"$_D/sup"
    _drain o &
    _out=$!
    _drain e &
    _err=$!
    _in=/dev/null
    [ ! -e "$_D/in" ] || _in=$_D/in
    if [ -n "$4" ]; then
        _in=$_D/i
        _feed &
    fi
    _timer=
    if [ -n "$1" ]; then
        _limit "$1" &
        _timer=$!
    fi
    _user=$2 _tty=$3
    export _user _tty
    _run='. "$_S/$_V.sh"; _become; . "$__D/cmd"'
    ( # dash redirects a simple command in itself, and would say "Killed" there
        exec <"$_in" >"$_D/o" 2>"$_D/e"
        [ -z "$3" ] || SHELL=/bin/sh exec script -qec "$_run" /dev/null
        _has s || exec /bin/sh -c "$_run"
        exec setsid /bin/sh -c "$_run"
    )
    _code=$?
    [ -z "$_timer" ] || kill "$_timer"
    [ -z "$4" ] || _order eof
    # what the command left running may keep its output open; what it wrote itself is there
    trap : USR1
    { _nap; _nap; _nap; kill -USR1 $$; } &
    wait "$_out" && wait "$_err"
    kill $!
    _uptime
    echo $((_up - _began)) >"$_D/dur"
    echo "$_code" >"$_D/code.new"
    mv "$_D/code.new" "$_D/code"
    exec 8<>"$_D/done"
    echo code >&8
}

_uptime() { # in hundredths of a second
    read -r _up _ </proc/uptime
    _up=$((${_up%.*} * 100 + 1${_up#*.} - 100))
}

_drain() { # o or e: from the FIFO to its file, and on to nowhere when that is full
    exec 7<"$_D/$1"
    (
        ulimit -f "${FLY_OUTPUT_BLOCKS:-2097152}"
        exec cat <&7 >"$_D/$1.out"
    ) &
    echo $! >"$_D/$1.pid"
    wait $!
    case $? in 0 | 143) ;; *) : >"$_D/$1.cut" ;; esac # 143: forgotten
    exec cat <&7 >/dev/null
}

_feed() { # stdin, then what _write orders; it holds the FIFO open, so that it has no end
    exec 8<>"$_D/c" # before the orders are read: no poke after that is lost
    exec 7<"$_D/orders" 9>"$_D/i"
    [ ! -e "$_D/in" ] || cat "$_D/in" >&9
    while :; do
        while read -r _x <&7; do
            [ "$_x" != eof ] || exit
            cat "$_D/$_x" >&9 || break 2
            rm -f "$_D/$_x"
        done
        read -r _ <&8
    done
    : >"$_D/broken"
}

_order() { # LINE for the feeder, which may not run yet
    echo "$1" >>"$_D/orders"
    exec 6<>"$_D/c" # both ends, so that nobody waits
    echo >&6
}

_limit() {
    _t=$1
    _has . || _t=$((${_t%.*} + 1))
    sleep "$_t" &
    trap 'kill $!; exit' TERM
    wait $!
    : >"$_D/timed"
    _send KILL group
}

_send() { # SIGNAL GROUP: GROUP is empty for the process alone
    _n=0
    until read -r _pid <"$_D/pid"; do
        _n=$((_n + 1))
        [ "$_n" -lt 20 ] || return 0
        _nap
    done 2>/dev/null
    if [ -z "$2" ]; then
        kill "-$1" "$_pid"
    elif _has s; then
        kill "-$1" "-$_pid" # dash and busybox take no --
    else
        for _pid in $(_family "$_pid"); do kill "-$1" "$_pid"; done
    fi 2>/dev/null
}

_family() { # PID and its descendants
    echo "$1"
    for _f in /proc/[0-9]*/stat; do
        read -r _line <"$_f" || continue
        _parent=${_line##*) ? }
        [ "${_parent%% *}" != "$1" ] || (_family "${_line%% *}")
    done 2>/dev/null
}

_find_user() { # NAME-OR-NUMBER: sets _name _uid _gid _home
    while IFS=: read -r _name _ _uid _gid _ _home _; do
        case $1 in
        *[!0-9]*) [ "$_name" != "$1" ] || return 0 ;;
        *) [ "$_uid" != "$1" ] || return 0 ;;
        esac
    done </etc/passwd
    case $1 in *[!0-9]*) return 1 ;; esac
    _name=$1 _uid=$1 _gid=$1 _home=/
}

# In the last shell before the command: makes `_fly ARGUMENT...` become it.
_become() {
    umask 022
    __D=$_D __user=$_user
    echo $$ >"$_D/pid"
    exec 8<>"$_D/done" # both ends, so that nobody waits
    echo pid >&8
    exec 8>&-
    if [ -n "$_tty" ]; then
        stty rows "${_tty%x*}" cols "${_tty#*x}"
        tty >"$_D/tty"
    fi
    __p=
    ! _has p || __p=setpriv
    unset _S _V _D _tools _user _tty
    _me=$(id -u)
    if [ "${HOME:-/}" = / ]; then
        _find_user "$_me"
        export HOME="$_home"
    fi
    _fly() { exec "$@"; }
    [ -n "$__user" ] || return 0
    _find_user "$__user"
    export HOME="$_home" USER="$_name" LOGNAME="$_name"
    [ "$_me" != "$_uid" ] || return 0
    [ ! -t 0 ] || chown "$_uid" "$(tty)"
    if [ -n "$__p" ]; then
        _groups=--clear-groups
        [ "$_name" = "$_uid" ] || _groups=--init-groups
        _fly() { exec setpriv --reuid "$_uid" --regid "$_gid" "$_groups" -- "$@"; }
    else
        _fly() { exec su -s /bin/sh -c 'exec "$@"' -- "$_name" sh "$@"; }
    fi
}

_here() { # NAME: sets _D
    _D=$_S/p/$1
    [ -d "$_D" ] || _fail process
}

_ended() {
    [ ! -e "$_D/code" ] || return 0
    # a supervisor that was killed leaves no code behind, and nobody who would end the rest
    read -r _sup <"$_D/sup" || return 1
    ! kill -0 "$_sup" || return 1
    [ ! -e "$_D/code" ] || return 0
    _send KILL group
    _order eof
    echo 137 >"$_D/code"
} 2>/dev/null

_poll() { # NAME STDOUT STDERR WAIT FORGET
    _here "$1"
    _uptime
    echo "$_up" >"$_D/at"
    _forget=$5
    _in_turn "$4"
    _turns=$((_wait / 100))
    ! _has . || _turns=$((_wait / 10))
    until _ended; do
        _size "$_D/o.out"
        [ "$_bytes" -le "$2" ] || break
        _size "$_D/e.out"
        [ "$_bytes" -le "$3" ] || break
        [ "$_turns" -gt 0 ] || break
        _turns=$((_turns - 1))
        _nap
    done
    _tell "$2" "$3"
}

_LIMIT=1048576 # bytes of a stream or file in one answer

_tell() { # STDOUT STDERR: the answer about $_D, with output from these offsets
    _code=- _dur=0 _pid=0 _flags=-
    if _ended; then
        read -r _code <"$_D/code"
        read -r _dur <"$_D/dur"
    elif read -r _began <"$_D/began"; then
        _uptime
        _dur=$((_up - _began))
    fi
    [ ! -e "$_D/timed" ] || _flags=${_flags}t
    [ ! -e "$_D/o.cut" ] || _flags=${_flags}o
    [ ! -e "$_D/e.cut" ] || _flags=${_flags}e
    read -r _pid <"$_D/pid"
    _size "$_D/o.out"
    _out=$_bytes
    _size "$_D/e.out"
    _err=$_bytes
    echo "${_D##*/} ${_pid:-0} $_code $_out $_err ${_dur:-0} $_flags $_tools"
    _piece "$_D/o.out" "$1" "$_out"
    _piece "$_D/e.out" "$2" "$_err"
    if [ -n "$_forget" ] && [ "$_code" != - ] && [ "$_out" -le $(($1 + _LIMIT)) ] &&
        [ "$_err" -le $(($2 + _LIMIT)) ]; then
        _discard
    fi
} 2>/dev/null

_piece() { # FILE OFFSET END
    if [ "$3" -le "$2" ]; then
        echo .
    else
        _n=$(($3 - $2))
        [ "$_n" -le "$_LIMIT" ] || _n=$_LIMIT
        _slice "$1" "$2" "$_n" | _pack "$_n"
    fi
}

_discard() { # forget $_D; what still writes goes on, to nowhere
    for _x in o e; do
        read -r _pid <"$_D/$_x.pid" && kill "$_pid"
    done 2>/dev/null
    _order eof
    _n=0
    until rm -rf "$_D" 2>/dev/null || [ "$_n" -ge 20 ]; do # the supervisor says its last words
        _n=$((_n + 1))
        _nap
    done
}

_write() { # NAME DATA EOF
    _here "$1"
    if _ended || [ -e "$_D/broken" ]; then _fail 32; fi
    _uptime
    _give "$2" "$_D/w.$$.$_up"
    if [ -n "$3" ] && [ -e "$_D/tty" ]; then # a terminal has a key for it
        printf '\004' >>"$_D/w.$$.$_up"
        set -- "$1" "$2" ''
    fi
    _order "w.$$.$_up"
    [ -z "$3" ] || _order eof
}

_signal() { # NAME SIGNAL GROUP
    _here "$1"
    _ended || _send "$2" "$3"
    :
}

_resize() { # NAME ROWS COLS
    _here "$1"
    read -r _tty <"$_D/tty" && stty -F "$_tty" rows "$2" cols "$3"
}

_forget() { # NAME
    _here "$1"
    _ended || _send KILL group
    _discard
}

_abort() { # KEY: kill what was started under it, or is yet to be
    _uptime
    echo "$_up" >"$_S/aborted.$1"
    for _D in "$_S"/p/*; do
        read -r _key <"$_D/key" && [ "$_key" = "$1" ] || continue
        _ended || _send KILL group
        _discard
        rm -f "$_S/aborted.$1"
    done 2>/dev/null
}

# files; what programs say about failures must be in the words of the C locale

_missing() { # PATH: fail as the system does for it, if it does
    LC_ALL=C stat -- "$1" >/dev/null || exit 1
}

_in_directory() { # PATH: fail as the system does if it has no parent; dash's words are vague
    case $1 in */*) _missing "${1%/*}/." ;; esac
}

_read() { # FILE OFFSET SIZE
    export LC_ALL=C
    [ ! -d "$1" ] || _fail 21
    _missing "$1"
    exec 5<"$1" 5<&- # the pipeline below would not say that it may not be read
    [ "$3" -le "$_LIMIT" ] || set -- "$1" "$2" "$_LIMIT"
    _text=$(_slice "$1" "$2" "$3" | _pack "$3") || exit 1
    if _has h && _has b; then # of what is sent, because the file may be changing
        _d=$(
            case $_text in z*) _cat='gzip -dc' ;; *) _cat=cat ;; esac
            printf '%s\n' "${_text#?}" | sed '$d' | base64 -d | $_cat | sha256sum
        )
    fi
    echo "${_d%% *}"
    printf '%s\n' "$_text"
}

_put() { # FILE DATA MODE PARENTS BYTES SHA256 [SECONDS]
    export LC_ALL=C
    _file=$1 _t=
    _last "$2"
    [ -z "$4" ] || _parents "$_file"
    [ ! -d "$_file" ] || _fail 21
    [ ! -L "$_file" ] || _resolve
    _in_directory "$_file"
    if [ -e "$_file" ] && [ ! -f "$_file" ]; then # a device, a FIFO
        _data "$2" >"$_file" || exit 1
        return
    fi
    case $_file in */*) _t=${_file%/*}/.flymachines-$$ ;; *) _t=.flymachines-$$ ;; esac
    if [ -e "$_file" ] && ! (: >"$_t") 2>/dev/null; then # /proc, a read-only directory
        _data "$2" >"$_file" || exit 1
        _set_time "$_file" "${7-}"
        return
    fi
    _data "$2" >"$_t" || exit 1
    _size "$_t"
    [ "$_bytes" = "$5" ] || _fail digest
    if _has h; then
        _d=$(sha256sum <"$_t")
        [ "${_d%% *}" = "$6" ] || _fail digest
    fi
    _mode=644
    if [ -e "$_file" ]; then
        _mode=$(stat -c %a -- "$_file")
        chown "$(stat -c %u:%g -- "$_file")" "$_t" 2>/dev/null
    fi
    chmod "${3:-$_mode}" "$_t" || exit 1
    _set_time "$_t" "${7-}"
    mv -f -- "$_t" "$_file" 2>/dev/null && return
    # a mount point cannot be renamed over
    cat "$_t" >"$_file" || exit 1
    _set_time "$_file" "$7"
}

_set_time() { # FILE SECONDS, or nothing; busybox's touch takes whole seconds only
    [ -z "$2" ] || touch -d "@$2" -- "$1" 2>/dev/null || touch -d "@${2%.*}" -- "$1" || exit 1
}

_resolve() { # the symlink $_file, to what it leads to
    _x=$(readlink -f -- "$_file" && echo .) || {
        stat -L -- "$_file" >/dev/null # which says why, where readlink does not
        exit 1
    }
    _file=${_x%??}
}

_parents() {
    case $1 in
    */*)
        (umask 022 && mkdir -p -- "${1%/*}") 2>"$_T" && return
        # mkdir says that a file in the way exists; the system, that it is no directory
        grep -q 'File exists' "$_T" && _fail 20
        cat "$_T" >&2
        exit 1
        ;;
    esac
}

_append() { # FILE DATA
    export LC_ALL=C
    _t=
    _last "$2"
    [ ! -d "$1" ] || _fail 21
    _in_directory "$1"
    umask 022
    _data "$2" >>"$1" || exit 1
}

# The facts of a file: GNU find has all of them and is asked once for a whole tree; elsewhere
# stat is asked for each. Fields: kind or raw mode in hex, permissions, size, time, owner, group.

_stat() { # PATH FOLLOW
    export LC_ALL=C
    _l=
    [ -z "$2" ] || _l=-L
    _f='%f - %s %Y %u %g'
    ! _has f || _f='%f - %s %.9Y %u %g'
    stat $_l -c "$_f" -- "$1" || exit 1
    if [ -z "$2" ] && [ -L "$1" ]; then
        _x=$(readlink -n -- "$1" && echo .)
        printf %s "${_x%.}" | _pack 0
    fi
}

_list() { # DIRECTORY DEPTH-OR-EMPTY
    export LC_ALL=C
    if [ ! -d "$1" ]; then
        _missing "$1"
        _fail 20
    fi
    # the trailing slash follows a symlink
    if _has f; then
        find "${1%/}/" -mindepth 1 ${2:+-maxdepth "$2"} \
            -printf '%y %m %s %T@ %U %G\0%P\0%l\0' 2>/dev/null >"$_T"
    else
        cd -- "$1" || exit 1
        find . ${2:+-maxdepth "$2"} -exec /bin/sh -c '
            for f do
                [ "$f" != . ] || continue
                stat -c "%f - %s %Y %u %g" -- "$f" | tr "\n" "\0"
                printf "%s\0" "${f#./}"
                [ ! -L "$f" ] || readlink -n -- "$f"
                printf "\0"
            done' sh {} + 2>/dev/null >"$_T"
    fi
    _size "$_T"
    echo "$_bytes"
    _pack "$_bytes" <"$_T"
}

_mkdir() { # PATH MODE PARENTS EXIST-OK
    export LC_ALL=C
    [ -z "$3" ] || _parents "$1"
    mkdir -m "$2" -- "$1" 2>"$_T" && return
    [ -z "$4" ] || [ ! -d "$1" ] || return 0
    cat "$_T" >&2
    exit 1
}

_remove() { # PATH RECURSIVE MISSING-OK
    export LC_ALL=C
    if [ ! -e "$1" ] && [ ! -L "$1" ]; then
        [ -n "$3" ] || _missing "$1"
    elif [ -L "$1" ] || [ ! -d "$1" ]; then
        rm -f -- "$1" || exit 1
    elif [ -n "$2" ]; then
        rm -rf -- "$1" || exit 1
    else
        rmdir -- "$1" || exit 1
    fi
}

_rename() { # SOURCE TARGET
    export LC_ALL=C
    [ -L "$1" ] || _missing "$1"
    if [ -d "$2" ] && [ ! -L "$2" ]; then # mv would move into it
        [ -d "$1" ] && [ ! -L "$1" ] || _fail 21
        rmdir -- "$2" || exit 1
    elif [ -e "$2" ] && [ -d "$1" ] && [ ! -L "$1" ]; then
        _fail 20
    elif [ -d "$2" ]; then # a symlink to a directory
        rm -f -- "$2" || exit 1
    fi
    mv -f -- "$1" "$2" || exit 1
}

_chmod() { LC_ALL=C chmod "$2" -- "$1" || exit 1; } # PATH MODE

_symlink() { # PATH TARGET
    if [ -e "$1" ] || [ -L "$1" ]; then _fail 17; fi
    LC_ALL=C ln -s -- "$2" "$1" || exit 1
}

_touch() { # PATH MODE EXIST-OK
    export LC_ALL=C
    if [ -e "$1" ]; then
        [ -n "$3" ] || _fail 17
        touch -- "$1" || exit 1
    else
        _in_directory "$1"
        : >"$1" || exit 1
        chmod "$2" -- "$1"
    fi
}

# trees: packed into, and unpacked from, a staged file

_pack_tree() { # PATH EXCLUDE...
    export LC_ALL=C
    _missing "$1"
    _top=$1 _what=.
    if [ ! -d "$1" ]; then
        _file=$1
        [ ! -L "$1" ] || _resolve
        _what=./${_file##*/} _top=${_file%/*}/
        case $_top in /proc/* | /sys/*) # whose files have sizes that say nothing: a copy of it
            trap 'rm -rf "$_T" "$_T.d"' EXIT
            mkdir "$_T.d" && cat <"$_file" >"$_T.d/${_file##*/}" || exit 1
            chmod "$(stat -c %a -- "$_file")" "$_T.d/${_file##*/}"
            _top=$_T.d
            ;;
        esac
    fi
    shift
    for _x do set -- "$@" --exclude="$_x" && shift; done
    ! _has T || set -- --format=pax --pax-option=delete=atime,delete=ctime --warning=no-file-ignored "$@"
    _sweep
    _new "$_S/s"
    _use "$_N"
    _f=$_S/s/$_N/data
    _zip=cat
    ! _has g || _zip='gzip -1c'
    { tar -C "$_top" "$@" -cf - -- "$_what" || echo $? >"$_T"; } | $_zip >"$_f" || exit 1
    # 1 is GNU tar's word for files that changed meanwhile
    if [ -e "$_T" ] && read -r _x <"$_T" && [ "$_x" != 1 ]; then exit 1; fi
    _size "$_f"
    _x=
    ! _has h || _x=$(sha256sum <"$_f")
    echo "$_N $_bytes ${_zip%% *} ${_x%% *}"
}

_spool() { # NAME OFFSET: a piece of a staged file, which is compressed already
    _tools=$(printf %s "$_tools" | tr -d g)
    _use "$1"
    _read "$_S/s/$1/data" "$2" "$_LIMIT"
}

_unpack_tree() { # DIRECTORY NAME BYTES SHA256 KIND MEANING, the last one for cassettes
    export LC_ALL=C
    _s=$_S/s/$2 _f=$_S/s/$2/data
    _size "$_f"
    [ "$_bytes" = "$3" ] || _fail digest
    if _has h; then
        _d=$(sha256sum <"$_f")
        [ "${_d%% *}" = "$4" ] || _fail digest
    fi
    if [ -e "$1" ] || [ -L "$1" ]; then [ -d "$1" ] || _fail 20; fi
    _parents "$1"
    _t=${1%/}/.flymachines-$$
    [ -d "$1" ] || _t=${1%/}.flymachines-$$
    (umask 022 && mkdir -- "$_t") || exit 1
    # at its exit the shell has its own arguments again, so none of the function's stands here
    trap 'rm -rf "$_T" "$_t" "$_s"' EXIT
    case $5 in
    # busybox's tar takes the umask off all modes, unless it is root's
    z) gzip -dc <"$_f" | (umask 0 && exec tar -xp -C "$_t" -f -) || exit 1 ;;
    t) (umask 0 && exec tar -xp -C "$_t" -f "$_f") || exit 1 ;;
    s) (umask 022 && cd -- "$_t" && . "$_f") || exit 1 ;;
    esac
    if [ -d "$1" ]; then
        _merge "$_t" "$1"
    else
        mv -- "$_t" "$1" || exit 1
    fi
}

_merge() { # SOURCE TARGET: directories
    for _e in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        [ -e "$_e" ] || [ -L "$_e" ] || continue
        _n=$2/${_e##*/}
        if [ -d "$_n" ] && [ ! -L "$_n" ]; then
            if [ -d "$_e" ] && [ ! -L "$_e" ]; then
                _like "$_e" # before its entries move away
                (_merge "$_e" "$_n") || exit 1
                _make_like "$_n"
                continue
            fi
            rm -rf -- "$_n"
        elif [ -d "$_e" ] || [ -L "$_n" ]; then
            rm -f -- "$_n"
        fi
        mv -f -- "$_e" "$_n" || exit 1
    done
}

_like() { # DIRECTORY: remember its permissions and time
    _mode=$(stat -c %a -- "$1")
    _time=$(stat -c %Y -- "$1")
    ! _has f || _time=$(stat -c %.9Y -- "$1")
}

_make_like() { # DIRECTORY: give it what was remembered
    chmod "$_mode" "$1"
    touch -d "@$_time" -- "$1"
}

# checkpoints of the workspace, and private copies of one

_copy() { # SOURCE TARGET: the content of one directory into another, empty one
    cp -a --reflink=auto -- "$1/." "$2/" 2>/dev/null || cp -a "$1/." "$2/" || exit 1
}

_checkpoint() { # NAME
    _t=$_S/checkpoints/.$$
    mkdir -p "$_S/checkpoints" && mkdir -m 755 "$_t" || exit 1
    trap 'rm -rf "$_T" "$_t"' EXIT
    _copy . "$_t"
    rm -rf "$_S/checkpoints/$1"
    mv "$_t" "$_S/checkpoints/$1" || exit 1
}

_saved() { # NAME: sets _from
    _from=$_S/checkpoints/$1
    [ -d "$_from" ] || _fail checkpoint
}

_checkpoints() {
    [ ! -d "$_S/checkpoints" ] || ls "$_S/checkpoints" | tr '\n' ' '
}

_restore() { # NAME: the directory itself stays, because processes may be in it
    _saved "$1"
    _t=./.flymachines-$$
    mkdir "$_t" "$_t/old" "$_t/new" || exit 1
    trap 'rm -rf "$_T" "$_t"' EXIT
    _copy "$_from" "$_t/new"
    for _x in old new; do
        _from=. _to=$_t/old
        [ "$_x" = old ] || _from=$_t/new _to=.
        find "$_from" -mindepth 1 -maxdepth 1 ! -path "$_t" -exec mv -f -- {} "$_to/" \; || exit 1
    done
    _like "$_S/checkpoints/$1"
    _make_like .
}

_delete() { # NAME
    _saved "$1"
    rm -rf "$_from"
}

# An overlay costs a mount, whatever the size of the checkpoint; not every machine may mount.
_workspace() { # CHECKPOINT
    _saved "$1"
    umask 022
    _new "${_S%/*}/w" # where any user may go
    _w=${_S%/*}/w/$_N
    mkdir "$_w/tree" || exit 1
    if ! _overlay "$_from" "$_w" 2>/dev/null; then
        rm -rf "$_w/upper" "$_w/work"
        _copy "$_from" "$_w/tree"
    fi
    cd "$_w/tree" && pwd -P
}

_overlay() { # LOWER DIRECTORY
    # a machine without a root of its own would mount for the whole computer, and leave it
    [ -z "${PYTEST_FLYMACHINES_ROOT:-}" ] || return 1
    [ ! -e "$_S/no-overlay" ] || return 1
    mkdir "$2/upper" "$2/work"
    if mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/tree"; then
        # a mount that cannot be written to is of no use
        mkdir "$2/tree/.flymachines-$$" && rmdir "$2/tree/.flymachines-$$" && return
        umount "$2/tree"
    fi
    : >"$_S/no-overlay"
    return 1
}

_unworkspace() { # PATH
    case $1 in */pytest-flymachines/w/*/tree) ;; *) _fail 22 ;; esac
    cd /
    # what was started in it and still runs keeps it busy
    { umount "$1" || umount -l "$1"; } 2>/dev/null
    rm -rf "${1%/tree}"
}
