#!/bin/sh
# Builds localhost/quantd:dev. With docker or podman and a registry: the whole of docker/Dockerfile. Without a registry
# (or with PREBUILT=1): its second stage alone, by buildah, around the static binary made on this machine.
set -eu
cd "$(dirname "$0")/.."
version=$(sed -n 's/^#define QD_VERSION "\(.*\)".*/\1/p' base/version.h)
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
image=${IMAGE:-localhost/quantd:dev}

if [ -z "${PREBUILT:-}" ]; then
    for tool in docker podman; do
        command -v $tool >/dev/null || continue
        $tool build -f docker/Dockerfile --build-arg VERSION="$version" --build-arg REVISION="$revision" -t "$image" . && exit 0
        echo "docker/build.sh: $tool could not build it (no registry?)" >&2
    done
fi
command -v buildah >/dev/null || { echo "docker/build.sh: neither a registry nor buildah is at hand" >&2; exit 1; }
make --no-print-directory static
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp build/static/quantd-stripped "$context/quantd"
# The second stage word for word, with the binary copied from the context instead of the first stage.
sed -n '/^FROM scratch/,$p' docker/Dockerfile | sed 's|^COPY --from=build .* /quantd|COPY quantd /quantd|' >"$context/Containerfile"
buildah ${STORAGE_DRIVER:+--storage-driver "$STORAGE_DRIVER"} bud --isolation chroot --format docker --timestamp 0 \
    --build-arg VERSION="$version" --build-arg REVISION="$revision" -t "$image" -f "$context/Containerfile" "$context"
