# Main process of a sandbox, as: init.sh WORKDIR. It starts cook-agent, and ends the machine
# when its deadline has passed, so that nothing outlives the run that launched it. The
# deadline counts the machine's own uptime, so no clock needs to agree with another.
# POSIX sh; the loop needs no program but sleep, and works on (busily) without it.

root=${PYTEST_FLYMACHINES_ROOT:-}
bind=${PYTEST_FLYMACHINES_BIND:-}
dir=$root/opt/pytest-flymachines
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
agent_pid= foreign_pid= starts=0

mkdir -p "$root$1"
trap 'exit 0' TERM INT HUP

find_foreign() {
    foreign=
    [ -s "$dir/no-foreign" ] && return
    if [ -s "$dir/expect-foreign" ]; then
        foreign=$dir/cook-agent # it may still be on its way
    else
        foreign=$(command -v cook-agent)
    fi
}

# The user's agent came in the config, or is uploaded later; what is damaged is not started.
unpack_foreign() {
    [ -s "$dir/cook-agent.gz" ] || return
    if gzip -dc <"$dir/cook-agent.gz" >"$dir/cook-agent.new" && intact "$dir/cook-agent.new"; then
        chmod 755 "$dir/cook-agent.new" && mv "$dir/cook-agent.new" "$dir/cook-agent"
    fi 2>>"$dir/foreign-agent.log"
    rm -f "$dir/cook-agent.gz" "$dir/cook-agent.new"
}

intact() {
    found=$(sha256sum <"$1") || return 0 # gzip has its own check, of 32 bits
    read -r wanted <"$dir/cook-agent.sha256"
    [ "${found%% *}" = "$wanted" ]
}

# A cook-agent that is not ours gets port 7422, ours always answers on 7423 and, when it is
# alone, on 7422 too.
start_agents() {
    find_foreign
    listen="$bind:7423"
    if [ -z "$foreign" ]; then
        listen="$listen $bind:7422"
    elif [ -x "$foreign" ] && ! kill -0 "${foreign_pid:-x}" 2>/dev/null; then
        (cd "$root$workdir" && exec "$foreign" -listen "$bind:7422") \
            >>"$dir/foreign-agent.log" 2>&1 </dev/null &
        foreign_pid=$!
    fi
    [ -s "$dir/agent.pyz" ] || return
    kill -0 "${agent_pid:-x}" 2>/dev/null && return
    if ! command -v python3 >/dev/null; then
        echo "python3 is not on PATH ($PATH)" >"$dir/agent.log"
        return
    fi
    set --
    for address in $listen; do set -- "$@" -listen "$address"; done
    # -S: the agent brings what it needs, and what is in site-packages would only cost time
    python3 -IS "$dir/agent.pyz" "$@" --token-sha256-file "$dir/agent.token.sha256" \
        --base "$root$workdir" --state "$dir/state" >>"$dir/agent.log" 2>&1 </dev/null &
    agent_pid=$!
}

agent_missing() {
    if [ -n "$agent_pid" ] && ! kill -0 "$agent_pid" 2>/dev/null; then return; fi
    [ -n "$foreign" ] && [ -x "$foreign" ] && ! kill -0 "${foreign_pid:-x}" 2>/dev/null
}

# Without /proc, which a test may unmount, turns of the loop are counted instead.
uptime() {
    if read -r now _ 2>/dev/null </proc/uptime; then up=${now%%.*}; else up=$((up + 1)); fi
}

workdir=$1
seen= up=0
read -r ttl <"$dir/ttl"
uptime
deadline=$((up + ttl))
# whoever wants to know when this machine ends looks there
[ -e "$dir/renew" ] || echo "$up $ttl" >"$dir/renew" || :
unpack_foreign
start_agents

while :; do
    if read -r renewal 2>/dev/null <"$dir/renew" && [ "$renewal" != "$seen" ]; then
        seen=$renewal
        uptime
        seconds=${renewal##* }
        # a test may write there too, and what is no number would end this shell
        case $seconds in
        '' | 0* | *[!0-9]* | ??????????*) ;;
        *)
            # a longer deadline that somebody asked for stands
            [ "$((up + seconds))" -le "$deadline" ] || deadline=$((up + seconds))
            ;;
        esac
    fi
    uptime
    [ "$up" -ge "$deadline" ] && exit 0
    # an agent that a test killed comes back, but one that cannot start is not tried for ever
    if [ "$starts" -lt 20 ] && agent_missing; then
        starts=$((starts + 1))
        start_agents
    fi
    sleep 1 &
    wait $! || :
done
