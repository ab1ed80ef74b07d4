#!/bin/sh
# From nothing to a served model, and from nothing to a finished test run; made for a fresh Debian 12.
#   ./quickstart.sh          install what is missing, build, serve the built-in model, ask it real digits, show what it
#                            learned, and leave the daemon running
#   ./quickstart.sh --once   the same, and stop the daemon at the end
#   ./quickstart.sh test     install what the tests need, and run every check and test (plain and under sanitizers)
# Python is needed by the tests only. PORT=N asks for a port; otherwise the first free one from 8080 is taken.
set -eu
cd "$(dirname "$0")"
export LC_ALL=C # numbers with points

RUN_PACKAGES='gcc libc6-dev make pkg-config libmicrohttpd-dev libuv1-dev libjansson-dev curl'
TEST_PACKAGES='libcmocka-dev clang-14 libclang-rt-14-dev clang-format-14 binutils git python3 python3-venv ca-certificates'
CONTAINER_PACKAGES='buildah podman runc' # a test of the container, skipped where they can't run
JOBS=$(nproc 2>/dev/null || echo 2)

say() { printf '\n== %s\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

# ---------------------------------------------------------------- packages
installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

missing_of() {
    for package in "$@"; do
        installed "$package" || printf '%s ' "$package"
    done
}

is_debian() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null && grep -qx 'ID=debian' /etc/os-release
}

apt_install() {
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "as root, please run: apt-get install $*"
        as_root=sudo
    fi
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@"
}

# On another system all that counts is whether the tools answer.
have_run_tools() {
    command -v gcc && command -v make && command -v curl && pkg-config --exists libmicrohttpd libuv jansson
}
have_test_tools() {
    have_run_tools && pkg-config --exists cmocka && command -v clang-14 && python3 -c 'import venv, ensurepip'
}

need() { # need run|test PACKAGE...
    what=$1
    shift
    if is_debian; then
        missing=$(missing_of "$@")
        if [ -n "$missing" ]; then
            say "installing with apt-get: $missing"
            # shellcheck disable=SC2086 # a list of words
            apt_install $missing
        fi
    elif ! "have_${what}_tools" >/dev/null 2>&1; then
        echo "This is not Debian, so nothing is installed for you. Needed, by Debian's names:"
        printf '  %s\n' "$@"
        exit 1
    fi
}

# ---------------------------------------------------------------- ./quickstart.sh test
run_tests() {
    # shellcheck disable=SC2086
    need test $RUN_PACKAGES $TEST_PACKAGES
    # shellcheck disable=SC2086
    if is_debian && [ -n "$(missing_of $CONTAINER_PACKAGES)" ]; then
        say "installing for the container test: $CONTAINER_PACKAGES"
        apt_install $CONTAINER_PACKAGES || echo "not to be had; the container test will be skipped"
    fi
    if ! cmp -s tests/requirements.txt build/venv/requirements.txt; then
        say "Python packages of tests/requirements.txt into build/venv"
        rm -rf build/venv
        python3 -m venv build/venv
        build/venv/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
        cp tests/requirements.txt build/venv/requirements.txt
    fi
    say "test data"
    build/venv/bin/python3 tests/digits/fetch.py --out build/digits
    make --no-print-directory nodes
    say "building: plain, address and undefined sanitizers, thread sanitizer, clang"
    make --no-print-directory -j"$JOBS" test-builds
    say "checks and tests"
    exec make --no-print-directory -s test-all
}

# ---------------------------------------------------------------- ./quickstart.sh [--once]
taken() { # is something listening on that port? curl exits with 7 when nobody is
    status=0
    curl -s -o /dev/null --max-time 2 "http://127.0.0.1:$1/" || status=$?
    [ "$status" -ne 7 ]
}

free_port() {
    port=${PORT:-8080}
    while taken "$port"; do
        [ -z "${PORT:-}" ] || die "port $port is taken"
        port=$((port + 1))
        [ "$port" -lt 8180 ] || die "no free port between 8080 and 8179"
    done
    echo "$port"
}

start_daemon() {
    port=$(free_port)
    url=http://127.0.0.1:$port
    setsid build/quantd serve --listen "127.0.0.1:$port" --drain-delay-ms 0 >build/quantd.log 2>&1 </dev/null &
    pid=$!
    echo "$pid" >build/quantd.pid
    tries=0
    until curl -s -f -o /dev/null --max-time 2 "$url/v2/health/ready"; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
            cat build/quantd.log >&2
            die "the daemon did not start"
        fi
        sleep 0.1
    done
}

stop_daemon() {
    kill -TERM "$pid"
    status=0
    wait "$pid" || status=$?
    rm -f build/quantd.pid
    [ "$status" -eq 0 ] || die "the daemon ended with status $status; see build/quantd.log"
}

# One line of digits.json is one digit: print it as text, 28 rows in 14 (two pixels to a sign).
picture() {
    sed -n 's/.*"pixels":\[\([0-9,]*\)\].*/\1/p' | awk -F, '{
        shades = " .:-=+*#%@"
        for (y = 0; y + 1 < 28; y += 2) {
            row = ""
            for (x = 1; x <= 28; x++) {
                level = int(($(y * 28 + x) + $((y + 1) * 28 + x)) / 2 * 9 / 255 + .5)
                row = row substr(shades, level + 1, 1)
            }
            sub(/ +$/, "", row)
            if (row != "") print "    " row
        }
    }'
}

request_of() {
    sed -n 's/.*"pixels":\[\([0-9,]*\)\].*/\1/p' | awk -F, '{
        printf "{\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,1,28,28],\"data\":["
        for (i = 1; i <= NF; i++) printf "%s%.9g", (i > 1 ? "," : ""), $i / 255
        printf "]}],\"outputs\":[{\"name\":\"probabilities\"}]}\n"
    }'
}

# The largest of the ten probabilities: "DIGIT PERCENT".
answer_of() {
    tr -d ' \n\t' | sed -n 's/.*"data":\[\([^]]*\)\].*/\1/p' | awk -F, '{
        for (i = 1; i <= NF; i++) if (i == 1 || $i > best) { best = $i; digit = i - 1 }
        printf "%d %.1f\n", digit, best * 100
    }'
}

# The ranges as a table; every tensor is one object in the list.
range_table() {
    tr -d '\n' | awk '
    function field(name,   rest) {
        if (!match($0, "\"" name "\" *: *\"?[^,\"}]*")) return "-"
        rest = substr($0, RSTART, RLENGTH)
        sub(/^"[^"]*" *: *"?/, "", rest)
        return rest
    }
    BEGIN { RS = "{"; printf "    %-24s %10s %10s %12s %6s %8s %8s\n", "tensor", "ema_min", "ema_max", "scale", "zero", "observed", "clipped" }
    /"ema_min"/ {
        printf "    %-24s %10.4f %10.4f %12.8f %6s %8s %8s\n", substr(field("name"), 1, 24), field("ema_min"),
            field("ema_max"), field("scale"), field("zero_point"), field("observations"), field("clipped_low") + field("clipped_high")
    }'
}

serve() {
    # shellcheck disable=SC2086
    need run $RUN_PACKAGES
    say "building"
    make --no-print-directory -j"$JOBS" all
    start_daemon
    trap 'kill "$pid" 2>/dev/null || true' INT TERM
    say "quantd serves the built-in model \"digits\" at $url; here are real handwritten digits it was not trained on"
    digits=server/builtin/digits.json
    asked=0
    right=0
    shown=0
    lines=build/quickstart.digits
    grep '"pixels"' $digits >$lines
    while IFS= read -r line; do
        label=$(printf '%s\n' "$line" | sed -n 's/.*"label": *\([0-9]*\).*/\1/p')
        printf '%s\n' "$line" | request_of >build/quickstart.request
        reply=$(curl -s -f --max-time 10 -H 'Content-Type: application/json' --data-binary @build/quickstart.request \
            "$url/v2/models/digits/infer") || die "the daemon refused a digit; see build/quantd.log"
        answer=$(printf '%s' "$reply" | answer_of)
        [ -n "$answer" ] || die "no answer in: $reply"
        asked=$((asked + 1))
        [ "${answer% *}" != "$label" ] || right=$((right + 1))
        if [ "$shown" -lt 4 ]; then
            shown=$((shown + 1))
            printf '\n'
            printf '%s\n' "$line" | picture
            printf '    it is a %s; quantd says %s (%s %%)\n' "$label" "${answer% *}" "${answer#* }"
        fi
    done <$lines
    say "$right of $asked digits right; the last request and its answer were"
    echo "    curl $url/v2/models/digits/infer --data-binary @build/quickstart.request"
    printf '%s\n' "$reply" | tr -d '\n' | sed 's/.*/    &/' | cut -c 1-400
    printf '\n'
    say "the ranges it learned from them ($url/v2/models/digits/ranges)"
    curl -s -f "$url/v2/models/digits/ranges" | range_table
    [ "$right" -gt $((asked * 8 / 10)) ] || die "only $right of $asked digits were right"
    if [ "${1:-}" = --once ]; then
        stop_daemon
        say "done; the daemon was stopped"
    else
        say "the daemon goes on at $url (log: build/quantd.log); stop it with: kill $pid"
    fi
}

case "${1:-}" in
test) run_tests ;;
'' | --once) serve "$@" ;;
*) sed -n '2,7p' "$0" | cut -c 3-; exit 2 ;;
esac
