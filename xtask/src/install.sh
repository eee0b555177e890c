# Installs the Debian packages named as arguments, and lets none of their daemons start: not now, and not at the next boot.
# `cargo xtask setup` runs this as root and logs what it prints.
set -eu
export DEBIAN_FRONTEND=noninteractive

# Maintainers' scripts ask this file before they start a daemon; 101 forbids it.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    # Should this shell be killed before it can clean up, the file has no effect and goes at its first use.
    printf '#!/bin/sh\n[ -d /proc/%s ] && exit 101\nrm -f "$0"\n' "$$" > "$policy"
    chmod 755 "$policy"
fi

boot=/etc/systemd/system/multi-user.target.wants
enabled() { ls "$boot" 2>/dev/null || true; }

before=" $(enabled | tr '\n' ' ')"
# A source of the user's own that can't be reached is no reason to stop: if it matters, the next line fails.
apt-get update --quiet || echo "apt-get update failed"
apt-get install --quiet --yes --no-install-recommends --no-remove -o DPkg::Lock::Timeout=120 "$@"
if command -v systemctl; then
    for unit in $(enabled); do
        case "$before" in
            *" $unit "*) ;;
            *) systemctl disable "$unit" ;;
        esac
    done
fi
