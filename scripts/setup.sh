#!/usr/bin/env bash
# One-time set-up of a Debian 12 machine for the tests and the local world. Idempotent: a second run takes a second.
#
#   scripts/setup.sh            system packages, Python environment, compiled bytecode
#   scripts/setup.sh packages   system packages only (needs root)
#   scripts/setup.sh python     the rest only
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(
    python3-venv ca-certificates curl procps util-linux iproute2
    mmdebstrap systemd-container nftables apt-utils   # machines and their network
    knot knot-dnsutils                                # authoritative name servers
    haproxy openssh-server                            # contract tests of the fast suite
    buildah                                           # the container image
    postgresql mariadb-server mariadb-backup          # drivers of databases
    pgbackrest rclone zstd                            # their backups
)
SERVICES=(knot haproxy ssh postgresql mariadb)
POLICY=/usr/sbin/policy-rc.d
STAMP=.venv/setup.sum

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

missing_packages() {
    local package
    for package in "${PACKAGES[@]}"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
    done
}

package_of() {
    case "$1" in ssh) echo openssh-server ;; mariadb) echo mariadb-server ;; *) echo "$1" ;; esac
}

# Packages must not start servers on the machine of whoever tries this: nothing runs but what the local world starts.
install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    [[ ${#missing[@]} -eq 0 ]] && return
    if [[ $EUID -ne 0 ]]; then
        echo "missing system packages: ${missing[*]}" >&2
        echo "run as root: scripts/setup.sh packages" >&2
        exit 1
    fi
    say "installing ${missing[*]}"
    if [[ ! -e $POLICY ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$POLICY"
        chmod +x "$POLICY"
        trap 'rm -f "$POLICY"' EXIT
    fi
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        install --no-install-recommends "${missing[@]}" >/dev/null
    local service
    for service in "${SERVICES[@]}"; do
        if [[ -d /run/systemd/system && " ${missing[*]} " == *" $(package_of "$service") "* ]]; then
            systemctl disable --quiet "$service" || true
        fi
    done
}

python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 or later is needed" >&2
    exit 1
}

make_environment() {
    local wanted
    wanted=$(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum)
    if [[ "$(cat "$STAMP" 2>/dev/null)" != "$wanted" ]]; then
        say "Python environment in .venv"
        [[ -x .venv/bin/python ]] || "$(python)" -m venv .venv
        .venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
        .venv/bin/uv pip install --quiet --python .venv/bin/python --constraint constraints.txt --group dev --editable .
        say "compiling bytecode (without it the operator takes ten times its memory to start)"
        .venv/bin/python -m compileall -q -j 0 -o 0 -o 2 .venv/lib/python*/site-packages || true
        echo "$wanted" >"$STAMP"
    fi
    .venv/bin/python -m compileall -q -o 0 -o 2 operator/hasite
}

case "${1:-all}" in
    packages) install_packages ;;
    python) make_environment ;;
    all) install_packages && make_environment ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
