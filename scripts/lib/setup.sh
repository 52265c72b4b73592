# Sourced by scripts/run and scripts/test: a virtual environment in the checkout, as the lock files say. Shell: POSIX.

fail() {
    echo "$0: $*" >&2
    exit 1
}

find_python() { # prints the first Python that is new enough
    for name in python3.11 python3.12 python3.13 python3.14 python3; do
        if command -v "$name" > /dev/null \
            && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            echo "$name"
            return
        fi
    done
    fail "no Python 3.11 or newer found; on Debian and Ubuntu: apt install python3 python3-venv"
}

is_set_up() { # as the lock file says, in this place
    [ "$(cat "$stamp" 2> /dev/null)" = "$want" ] && [ "$(cat .venv/.made-in 2> /dev/null)" = "$(pwd)" ] \
        && .venv/bin/python -c '' 2> /dev/null
}

why_not() { # <folder>: what a write to it fails with, as words
    if [ ! -w "$1" ]; then
        echo "it is read-only, or isn't yours"
    elif [ "$(df -P "$1" | awk 'NR == 2 { print $4 }')" -lt 1024 ]; then
        echo "the disk is full"
    else
        echo "see above"
    fi
}

set_up() { # <lock file>: installs it and this checkout into .venv, unless that was done before
    lock=$1
    want=$(cat "$lock" pyproject.toml | cksum)
    stamp=.venv/.installed-$lock
    if is_set_up; then # a checkout that can't be written to is enough for that
        return
    fi
    { mkdir -p .cache && echo yes > .cache/.writable; } 2> /dev/null || fail "can't write to $(pwd): $(why_not .)"
    rm -f .cache/.writable
    if command -v flock > /dev/null; then # two at a time would tread on each other
        exec 9> .cache/setup.lock
        flock 9
    fi
    if [ -e .venv ] && ! .venv/bin/python -c '' 2> /dev/null; then
        echo "The virtual environment's Python is gone; making it anew" >&2
        rm -rf .venv
    elif [ "$(cat .venv/.made-in 2> /dev/null || pwd)" != "$(pwd)" ]; then # its programs begin with their place
        echo "The checkout was moved; making its virtual environment anew" >&2
        rm -rf .venv
    fi
    if [ "$(cat "$stamp" 2> /dev/null)" != "$want" ]; then
        python=$(find_python)
        if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
            echo "Making a virtual environment in .venv ($python)" >&2
            rm -rf .venv
            "$python" -m venv .venv > .cache/venv.log 2>&1 || {
                cat .cache/venv.log >&2
                rm -rf .venv
                [ "$(why_not .)" = "see above" ] || fail "can't make a virtual environment in $(pwd): $(why_not .)"
                fail "$python can't make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
            }
            pwd > .venv/.made-in
        fi
        echo "Installing what $lock lists" >&2
        # Without dependency resolution: the list is complete, and every file of it has its hash.
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$lock" \
            || fail "the packages could not be installed ($(why_not .)); the next run tries again"
        # As a path, which type checkers understand and which is quicker to start than an import hook.
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
            --config-settings editable_mode=compat --editable . > .cache/install.log 2>&1 || {
            cat .cache/install.log >&2
            fail "this checkout could not be installed into .venv (see above)"
        }
        echo "$want" > "$stamp"
    fi
    [ ! -e .cache/setup.lock ] || exec 9>&-
}

set_up_packet_filter() { # what loses packets in tests/lossy_network.py, where it may be installed; without it tests are skipped
    if command -v nft > /dev/null || command -v iptables > /dev/null; then
        return
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null && command -v unshare > /dev/null && unshare --net true 2> /dev/null; then
        echo "Installing nftables for the tests that lose packets" >&2
        { apt-get update && DEBIAN_FRONTEND=noninteractive timeout 120 apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends nftables; } \
            > .cache/nftables.log 2>&1 || echo "nftables could not be installed; these tests are skipped" >&2
    fi
}

set_up_prometheus() { # for the tests of metrics and alert rules: Debian's package, unpacked into .cache; without it tests are skipped
    if [ -x .cache/prometheus/usr/bin/promtool ] || ! command -v apt-get > /dev/null || ! command -v dpkg > /dev/null; then
        return
    fi
    echo "Unpacking Debian's Prometheus for the tests of metrics and alerts" >&2
    rm -rf .cache/prometheus.new
    mkdir -p .cache/prometheus.new
    (
        # Lists may be missing; only root may fetch them.
        apt-cache show prometheus > /dev/null 2>&1 || [ "$(id -u)" != 0 ] || apt-get update
        cd .cache/prometheus.new && timeout 120 apt-get -o APT::Sandbox::User=root download prometheus \
            && dpkg -x prometheus_*.deb . && rm prometheus_*.deb && cd .. && rm -rf prometheus && mv prometheus.new prometheus
    ) > .cache/prometheus.log 2>&1 || echo "Prometheus could not be fetched; these tests are skipped" >&2
}
