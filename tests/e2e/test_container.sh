#!/bin/sh
# The container: built by buildah around the static binary, run by podman as hardened as docker/compose.yml says. Tests that
# it serves, learns, is healthy by its own health check, is not root, has no capability, and stops cleanly.
# builds: plain
# timeout: 400
set -eu
driver=vfs
name=quantd-test-$$
image=localhost/quantd:test-$$
podman="podman --storage-driver $driver --cgroup-manager=cgroupfs --runtime=runc"

skip() { echo "SKIP: $*"; exit 77; }
fail() { echo "FAIL: $*"; $podman logs "$name" 2>&1 | tail -20; exit 1; }
for tool in buildah podman runc curl; do
    command -v $tool >/dev/null || skip "no container was built: $tool is not installed"
done
[ "$(id -u)" -eq 0 ] || skip "no container was built: not root"

cleanup() {
    $podman rm -f -t 1 "$name" >/dev/null 2>&1 || true
    $podman rmi -f "$image" >/dev/null 2>&1 || true
}
trap cleanup EXIT
PREBUILT=1 STORAGE_DRIVER=$driver IMAGE=$image sh docker/build.sh >build/container.log 2>&1 || {
    # A machine that lets nobody make containers is no fault of ours; an image that can't be built from our files is.
    if grep -qiE 'operation not permitted|permission denied|mount .*: |unshare' build/container.log; then
        skip "no container can be built here: $(tail -1 build/container.log)"
    fi
    tail -30 build/container.log
    echo "FAIL: the image was not built"
    exit 1
}
port=18080
while curl -s -o /dev/null "http://127.0.0.1:$port/" || [ $? -ne 7 ]; do port=$((port + 1)); done
url=http://127.0.0.1:$port
$podman run -d --name "$name" --network=host --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 --memory=128m --read-only \
    --cap-drop=ALL --security-opt=no-new-privileges "$image" serve --listen "127.0.0.1:$port" >build/container.run 2>&1 || {
    if grep -qiE 'operation not permitted|permission denied|cgroup|not supported' build/container.run; then
        skip "no container can be run here: $(tail -1 build/container.run)"
    fi
    fail "podman run: $(cat build/container.run)"
}
tries=0
until curl -s -f -o /dev/null "$url/v2/health/ready"; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || fail "not ready after 10 s"
    sleep 0.1
done
echo "ok: serves on $url"

$podman exec "$name" /quantd healthcheck "$url/v2/health/live" || fail "quantd healthcheck says it is not healthy"
if $podman exec "$name" /quantd healthcheck "http://127.0.0.1:1/v2/health/live"; then
    fail "quantd healthcheck finds nobody healthy"
fi
$podman image inspect "$image" | grep -A4 '"Healthcheck"' | grep -q '"healthcheck"' || fail "the image has no health check"
echo "ok: health check"

pid=$($podman inspect -f '{{.State.Pid}}' "$name")
status=/proc/$pid/status
grep -q '^Uid:	65532	65532' "$status" || fail "runs as $(grep ^Uid "$status")"
grep -q '^CapEff:	0000000000000000' "$status" || fail "has capabilities: $(grep ^CapEff "$status")"
grep -q '^NoNewPrivs:	1' "$status" || fail "may gain privileges"
grep -q '^Seccomp:	2' "$status" || fail "no seccomp filter"
echo "ok: uid 65532, no capability, no new privileges, seccomp filter, read-only root"

data=$(awk 'BEGIN { for (i = 0; i < 784; i++) printf "%s%.3f", (i ? "," : ""), (i % 29) / 28 }')
printf '{"inputs":[{"name":"image","datatype":"FP32","shape":[1,1,28,28],"data":[%s]}]}' "$data" >build/container.request
curl -s -f --data-binary @build/container.request "$url/v2/models/digits/infer" | grep -q '"probabilities"' || fail "no answer to a request"
curl -s -f "$url/v2/models/digits/ranges" | grep -q '"observations": *1[,}]' || fail "the request was not learned from"
echo "ok: answers and learns"

bytes=$($podman inspect -f '{{.Size}}' "$image")
[ "$bytes" -lt 5000000 ] || fail "the image has $bytes bytes, 5,000,000 are allowed"
echo "ok: the image has $bytes bytes"

$podman stop -t 30 "$name" >/dev/null
code=$($podman inspect -f '{{.State.ExitCode}}' "$name")
[ "$code" = 0 ] || fail "stopped with exit status $code"
echo "ok: stops with exit status 0"
