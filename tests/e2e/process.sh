# Sourced by the checks: a free port, a process that ends with the check, waiting for a condition.

# Long enough for a slow machine.
DEADLINE_SECONDS=30

# The OS does not assign the same port again soon.
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

# Starts the check's process with its output in LOG. Returns when URL responds with any status.
start() {
    local log=$1 url=$2
    shift 2
    "$@" >"$log" 2>&1 </dev/null &
    started=$! started_log=$log
    trap end_started EXIT
    eventually responds_or_ended "$url"
    kill -0 "$started"
}

responds_or_ended() { curl -s -o /dev/null --max-time 5 "$1" || ! kill -0 "$started" 2>/dev/null; }

# If the check fails, prints the process's output.
end_started() {
    local status=$?
    kill "$started" 2>/dev/null || true
    wait "$started" || true
    ((status == 0)) || cat "$started_log"
}
