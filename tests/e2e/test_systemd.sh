#!/bin/sh
# The systemd unit: systemd finds nothing to say about it, and rates its exposure 1.5 or better.
# builds: plain
set -eu
command -v systemd-analyze >/dev/null || { echo "SKIP: systemd-analyze is not installed"; exit 77; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
sed 's|@PREFIX@/bin/quantd|/bin/true|' docker/systemd/quantd.service.in >"$place/quantd.service"
systemd-analyze verify --man=no "$place/quantd.service"
rating=$(systemd-analyze security --offline=true --no-pager "$place/quantd.service" | tail -1)
echo "$rating"
echo "$rating" | awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+[.][0-9]+$/) { found = 1; exit !($i <= 1.5) } } END { if (!found) exit 1 }'
