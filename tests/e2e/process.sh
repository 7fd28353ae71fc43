# Sourced by the checks that start a process: a free port, and processes that end with the check.

# Ports are asked of the OS, which does not give the same one out again soon.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

started=()
trap end_started EXIT

# Starts a process that ends with this check, its output in LOG.
start() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    started+=($!)
}

end_started() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" || true
    done
}

# Returns once URL answers, with whatever status; gives up where the process has ended, or after 30 s.
await_answer() {
    local url=$1 log=$2 deadline=$((SECONDS + 30))
    until curl -s -o /dev/null --max-time 5 "$url"; do
        if ! kill -0 "${started[-1]}" 2>/dev/null || ((SECONDS > deadline)); then
            echo "$url does not answer; the process said:" >&2
            cat "$log" >&2
            return 1
        fi
        sleep 0.1
    done
}
