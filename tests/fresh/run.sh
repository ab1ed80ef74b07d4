#!/bin/sh
# Both commands of quickstart.sh in a fresh Debian 12 with nothing else in it. Made by hand or `make fresh`, as root:
#   sh tests/fresh/run.sh [once|test|both]     KEEP=1 keeps the root; FRESH_DIR=folder says where to make it
# The root is made from Debian's packages by mmdebstrap (or debootstrap), holds a clean clone of the committed state
# (WORKTREE=1: of the work tree), and gets nothing of this machine but its way to the network: name servers, proxies, the
# certificates and pip's settings.
set -eu
cd "$(dirname "$0")/../.."
what=${1:-both}
[ "$(id -u)" -eq 0 ] || { echo "tests/fresh/run.sh: needs root"; exit 1; }
place=${FRESH_DIR:-$(mktemp -d)}
root=$place/root
mkdir -p "$place"

cleanup() {
    umount -l "$root/dev" 2>/dev/null || true
    [ -n "${KEEP:-}" ] || rm -rf --one-file-system "$root"
}
trap cleanup EXIT

echo "== a fresh Debian 12 in $root"
if [ ! -x "$root/bin/sh" ]; then
    sources=/etc/apt/sources.list.d/debian.sources
    if command -v mmdebstrap >/dev/null; then
        # minbase: apt and the essential packages.
        if [ -r $sources ] && grep -q bookworm $sources; then
            mmdebstrap --quiet --mode=root --variant=minbase bookworm "$root" $sources
        else
            mmdebstrap --quiet --mode=root --variant=minbase bookworm "$root"
        fi
    elif command -v debootstrap >/dev/null; then
        debootstrap --variant=minbase bookworm "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$place/debootstrap.log"
    else
        echo "tests/fresh/run.sh: neither mmdebstrap nor debootstrap is installed"
        exit 1
    fi
fi
echo "$(chroot "$root" dpkg-query -W | wc -l) packages"

cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp -L /etc/hosts "$root/etc/hosts"
for file in /etc/pip.conf /etc/apt/apt.conf.d/*proxy*; do
    [ ! -r "$file" ] || { mkdir -p "$root$(dirname "$file")"; cp -L "$file" "$root$file"; }
done
# Installing ca-certificates writes its own bundle, so the machine's lies elsewhere.
mkdir -p "$root/usr/local/share/quantd-fresh"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/usr/local/share/quantd-fresh/ca.crt" 2>/dev/null || true

rm -rf "$root/srv/quantd"
if [ -n "${WORKTREE:-}" ]; then
    mkdir -p "$root/srv/quantd"
    git ls-files -z --cached --others --exclude-standard | xargs -0 tar -c --ignore-failed-read | tar -x -C "$root/srv/quantd"
else
    git clone --quiet --no-hardlinks . "$root/srv/quantd"
fi

# A namespace of its own for mounts and processes: what is left running at the end goes with it.
cat >"$place/inside.sh" <<INSIDE
set -eu
mount --rbind /dev $root/dev
mount -t tmpfs tmpfs $root/tmp
exec chroot $root /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/srv TERM=dumb CI=true \
    PIP_CERT=/usr/local/share/quantd-fresh/ca.crt ${http_proxy:+http_proxy=$http_proxy} ${https_proxy:+https_proxy=$https_proxy} \
    sh -c "cd /srv/quantd && \$*"
INSIDE

run() {
    echo "== $* (in the fresh root)"
    unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" sh "$place/inside.sh" "$@"
}

case $what in
once) run ./quickstart.sh --once ;;
test) run ./quickstart.sh test ;;
both) run ./quickstart.sh --once && run ./quickstart.sh test ;;
*) echo "usage: sh tests/fresh/run.sh [once|test|both]"; exit 2 ;;
esac
echo "== fresh: passed"
