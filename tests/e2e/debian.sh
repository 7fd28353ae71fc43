# Sourced by tests/e2e/systemd: a Debian of its own, booted in a container (systemd-nspawn), and commands in it. Its network is a
# loopback device and nothing else; what it changes goes with it.

# SUITE=trixie boots another Debian. The unit is written for bookworm's systemd and later.
readonly SUITE=${SUITE:-bookworm}
readonly ROOT=$E2E/$SUITE

stage=$(mktemp -d)
container=
init=

# Debian as its installer leaves it, less what nobody needs to see a service at work.
bootstrap() {
    [[ -e $ROOT/etc/os-release ]] && return
    rm -rf "$ROOT"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates,curl "$SUITE" "$ROOT.part" >"$stage/debootstrap.log" ||
        { tail -n 20 "$stage/debootstrap.log" && return 1; }
    # A boot without a console or timers is sooner done and says less.
    rm -f "$ROOT.part"/etc/systemd/system/{getty.target.wants,timers.target.wants}/*
    mv "$ROOT.part" "$ROOT"
}

# Boots it, with DIRECTORY under /mnt, and returns once its systemd is up.
boot() {
    trap halt EXIT
    systemd-nspawn --quiet --register=no --keep-unit --ephemeral --private-network --machine=refwatch-e2e --hostname=refwatch-e2e \
        --directory="$ROOT" --bind-ro="$1:/mnt" --boot >"$stage/boot.log" 2>&1 </dev/null &
    container=$!
    eventually booted || { tail -n 40 "$stage/boot.log" && return 1; }
}

booted() {
    init=$(cat "/proc/$container/task/$container/children") && [[ -n $init ]] || return 1
    init=${init% }
    [[ $(inside systemctl is-system-running 2>&1) == running ]]
}

# Asked to, it powers the container off and removes what was changed.
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

# Runs a program of this machine on the container's network.
beside() { nsenter --target "$init" --net "$@"; }

# Says what is expected, and ends the check where it is not so.
expect() {
    local what=$1
    shift
    echo "$what"
    "$@" >"$stage/said" 2>&1 && return
    cat "$stage/said"
    echo "Not so: $what"
    exit 1
}

fails() { ! "$@"; }
