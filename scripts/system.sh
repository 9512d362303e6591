#!/usr/bin/env bash
# Brings the system's own programs that the tests look at pages and wires with, where this user may.
# Without them those tests are skipped, loudly, and fail where CI is set.
set -euo pipefail

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v etcd >/dev/null || missing+=(etcd-server)
command -v redis-cli >/dev/null || missing+=(redis-tools)
[ "${#missing[@]}" -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo)
    else
        echo "Some tests are left out without ${missing[*]}. Type: sudo apt-get install -y ${missing[*]}" >&2
        exit 0
    fi
fi
if ! command -v apt-get >/dev/null; then
    echo "Some tests are left out without ${missing[*]}: install them with this system's package manager." >&2
    exit 0
fi
echo "installing ${missing[*]} for the tests" >&2
"${as_root[@]}" apt-get update -qq || true
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    echo "${missing[*]} could not be installed: some tests are left out" >&2
