# Sourced by tests/e2e/systemd and tests/e2e/install: builds packages, boots Debian in a container (systemd-nspawn) and runs commands in
# it. It has a loopback device only, and its changes are discarded.

stage=$(mktemp -d)
container=
init=

# A checkout with these packages. They have the release build of README's commands, or the development build if that is newer.
build_packages() {
    local clone=$E2E/clone/target tools=$E2E/tools
    [[ ! -e $clone/tools/bin/cargo-deb ]] || tools=$clone/tools
    git clone --quiet . "$stage/checkout"
    mkdir -p "$stage/checkout/target/release" "$tools"
    ln -s "$tools" "$stage/checkout/target/tools"
    if [[ $clone/release/refwatch -nt $REFWATCH ]]; then
        cp "$clone/release/refwatch" "$stage/checkout/target/release/"
    else
        strip -o "$stage/checkout/target/release/refwatch" "$REFWATCH"
    fi
    BUILT=yes "$stage/checkout/systemd/package" "$@" >"$stage/package.log" 2>&1 || { cat "$stage/package.log" && return 1; }
}

# Boots with DIRECTORY mounted at /mnt, and waits until systemd is running.
boot() {
    trap halt EXIT
    systemd-nspawn --quiet --register=no --keep-unit --ephemeral --private-network --machine="refwatch-e2e-$$" --hostname=refwatch-e2e \
        --directory="$DEBIAN" --bind-ro="$1:/mnt" --boot >"$stage/boot.log" 2>&1 </dev/null &
    container=$!
    eventually booted || { tail -n 40 "$stage/boot.log" && return 1; }
    # Runs a program of this machine on the container's network. Not a function, so that `kill` ends the program.
    on_network=(nsenter --target "$init" --net)
}

booted() {
    init=$(cat "/proc/$container/task/$container/children") && [[ -n $init ]] || return 1
    init=${init% }
    [[ $(inside systemctl is-system-running 2>&1) == running ]]
}

# Powers the container off. On failure prints the end of the journal.
halt() {
    local status=$?
    ((status == 0)) || [[ -z $init ]] || inside journalctl --no-pager --lines=40 --unit='refwatch*' || true
    # shellcheck disable=SC2046
    kill $(jobs -p) 2>/dev/null || true
    wait
    rm -r "$stage"
}

# Runs a command in the container, as root.
inside() {
    nsenter --target "$init" --all --root --wd env -i PATH=/usr/sbin:/usr/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"
}

# Starts an instance of the template unit with its own database, at port 10220.
start_second_instance() {
    inside install -d /etc/refwatch/second
    inside bash -c "sed -e 's|/var/lib/refwatch/|/var/lib/refwatch/second/|' -e 's|127.0.0.1:10210|127.0.0.1:10220|' \
        /etc/refwatch/refwatch.toml >/etc/refwatch/second/refwatch.toml"
    inside systemctl start refwatch@second
}

# Prints an expectation, runs its command, and exits if the command fails.
expect() {
    local expectation=$1
    shift
    echo "$expectation"
    "$@" >"$stage/output" 2>&1 && return
    cat "$stage/output"
    echo "failed: $expectation"
    exit 1
}

fails() { ! "$@"; }
