# Sourced by the checks: a free port, a process that ends with the check, and waiting for a state.

# A slow machine is given this long to get somewhere.
DEADLINE_SECONDS=30

# Ports are asked of the OS, which does not give the same one out again soon.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Runs a command until it succeeds.
eventually() {
    local deadline=$((SECONDS + DEADLINE_SECONDS))
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

started=
started_log=

# Starts the check's process, its output in LOG, and returns once URL answers, with whatever status.
start() {
    local log=$1 url=$2
    shift 2
    "$@" >"$log" 2>&1 </dev/null &
    started=$! started_log=$log
    trap end_started EXIT
    eventually answers_or_ended "$url"
    kill -0 "$started"
}

answers_or_ended() { curl -s -o /dev/null --max-time 5 "$1" || ! kill -0 "$started" 2>/dev/null; }

# Where the check fails, what its process said may tell why.
end_started() {
    local status=$?
    kill "$started" 2>/dev/null || true
    wait "$started" || true
    ((status == 0)) || cat "$started_log"
}
