#!/usr/bin/env python3
# timeout: 280
"""What costs a server its life: floods of connections, no descriptors left, requests that trickle in, clients that go, bodies of
a million chunks. Each once made libmicrohttpd (or its use in a libuv loop) hang, spin or leak; see server/http.c."""
import json
import os
import random
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import daemon  # noqa: E402
from serving import digits, run  # noqa: E402

GET = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
INFER = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\n"


def infer_body(**more):
    return json.dumps({"inputs": [{"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": digits()[0][1]}], **more}).encode()


def infer_request(**more):
    body = infer_body(**more)
    return INFER + b"Content-Length: %d\r\n\r\n" % len(body) + body


def seconds_until_closed(s, limit):
    start = time.monotonic()
    _, closed = daemon.read_all(s, limit)
    assert closed, f"still open after {limit} s"
    return time.monotonic() - start


def test_listener_survives_the_connection_limit():
    """In about one of four rounds the listener was lost for ever."""
    with daemon.start("--max-connections", 10) as d:
        for i in range(20):
            flood = [d.connect() for _ in range(40)]
            time.sleep(0.05)
            for s in flood:
                s.close()
            start = time.monotonic()
            assert d.alive(), f"round {i}"
            assert time.monotonic() - start < 2 * daemon.SLOW, f"round {i}"


def test_limit_per_address():
    with daemon.start("--max-connections-per-ip", 5) as d:
        flood = [d.connect() for _ in range(20)]
        time.sleep(0.2)
        served = 0
        for s in flood:
            try:
                s.sendall(GET)
                served += len(daemon.answers(daemon.read_all(s, 1, 1)[0]))
            except OSError:
                pass
        assert served == 5, served
        for s in flood:
            s.close()
        time.sleep(0.3)
        assert d.alive()


def test_few_descriptors():
    with daemon.start(files=40) as d:
        flood = [d.connect() for _ in range(100)]
        time.sleep(0.5)
        before = d.cpu_seconds()
        flood[0].sendall(GET)  # one that was let in is served
        assert len(daemon.answers(daemon.read_all(flood[0], 5, 1)[0])) == 1
        time.sleep(1)
        assert d.cpu_seconds() - before < 0.5, "it spins"
        for s in flood:
            s.close()
        assert d.alive()
        got = daemon.answers(d.talk(infer_request(), 10, count=1)[0])
        assert got[0][0] == 200 and d.metric("process_open_fds") < 40, got


def test_half_a_tls_handshake():
    with daemon.start("--header-timeout-ms", 1500) as d:
        with d.connect() as s:
            s.sendall(b"\x16\x03\x01")
            before = d.cpu_seconds()
            taken = seconds_until_closed(s, 10)
            assert taken < 4, taken
            assert d.cpu_seconds() - before < 0.25 * daemon.SLOW, "it spins"
            assert d.alive()


def trickle(d, head, byte, interval, limit):
    """Sends a byte each interval; seconds until the daemon has had enough."""
    with d.connect() as s:
        start = time.monotonic()
        s.sendall(head)
        while time.monotonic() - start < limit:
            try:
                s.sendall(byte)
            except OSError:
                return time.monotonic() - start
            s.settimeout(interval)
            try:
                if s.recv(4096) == b"":
                    return time.monotonic() - start
            except socket.timeout:
                pass
            except OSError:
                return time.monotonic() - start
    raise AssertionError(f"still open after {limit} s")


def test_slow_headers():
    """Many small events must not put the deadline off, be they a byte each second or each 10 ms."""
    with daemon.start("--header-timeout-ms", 1500) as d:
        for interval in (1, 0.01):
            taken = trickle(d, b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"a", interval, 8)
            assert 1.2 < taken < 4, (interval, taken)
        assert 1.2 < trickle(d, b"GE", b"T", 0.2, 8) < 4
        assert d.alive()


def test_slow_body():
    with daemon.start("--body-timeout-ms", 1500) as d:
        for interval in (0.5, 0.01):
            taken = trickle(d, INFER + b"Content-Length: 100000\r\n\r\n{", b" ", interval, 8)
            assert 1.2 < taken < 4, (interval, taken)
        taken = trickle(d, INFER + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n \r\n", 0.05, 8)
        assert 1.2 < taken < 4, taken
        assert d.alive()


def test_body_rate():
    with daemon.start("--body-min-rate-bytes", 1000) as d:
        taken = trickle(d, INFER + b"Content-Length: 100000\r\n\r\n{", b" ", 0.1, 12)
        assert 4.5 < taken < 8, taken
        got = daemon.answers(d.talk(infer_request(), 5, count=1)[0])
        assert got[0][0] == 200, got


def test_slow_reader():
    """An answer that is not taken is not kept for ever."""
    with daemon.start("--body-timeout-ms", 1500, "--body-min-rate-bytes", 1048576) as d:
        with d.connect() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                s.sendall(b"GET /openapi.yaml HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
            except OSError:
                pass
            start = time.monotonic()
            while d.metric("quantd_http_connections") > 1 and time.monotonic() - start < 15:
                time.sleep(0.2)
            assert time.monotonic() - start < 10
        assert d.alive()


def test_idle_connection_is_kept_then_closed():
    with daemon.start("--idle-timeout-s", 3, "--header-timeout-ms", 1000) as d:
        with d.connect() as s:
            s.sendall(GET)
            assert len(daemon.answers(daemon.read_all(s, 5, 1)[0])) == 1
            time.sleep(2)  # longer than the headers' deadline: idle is another state
            s.sendall(GET)
            assert len(daemon.answers(daemon.read_all(s, 5, 1)[0])) == 1
            assert 2 < seconds_until_closed(s, 12) < 8


def test_many_tiny_chunks():
    with daemon.start("--max-body-bytes", 4 << 20) as d:
        d.talk(infer_request(), 5, count=1)
        before, cpu, start = d.rss_bytes(), d.cpu_seconds(), time.monotonic()
        body = infer_body()
        spaces = b"1\r\n \r\n" * 10000
        pieces = [INFER + b"Transfer-Encoding: chunked\r\n\r\n"] + [spaces] * 100 + [
            b"".join(b"1\r\n%c\r\n" % c for c in body) + b"0\r\n\r\n"]
        got = daemon.answers(d.talk(None, 60 * daemon.SLOW, pieces=pieces, count=1)[0])
        assert got and got[0][0] == 200, got
        grown = d.rss_bytes() - before
        print(f"     {time.monotonic() - start:.1f} s, {d.cpu_seconds() - cpu:.1f} s of CPU, {grown >> 10} KiB more")
        assert grown < (16 << 20) * daemon.SLOW and d.cpu_seconds() - cpu < 10 * daemon.SLOW
        got = daemon.answers(d.talk(None, 20, pieces=[  # the same into a route that keeps its body whole
            b"POST /v2/repository/index HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", spaces, spaces[:30000], b"2\r\n{}\r\n0\r\n\r\n"],
            count=1)[0])
        assert got[0][0] == 200, got


def test_body_over_the_limit():
    with daemon.start("--max-body-bytes", 100000) as d:
        before = d.rss_bytes()
        for length in (100001, 2**31, 2**32, 2**62):
            start = time.monotonic()
            out, closed = d.talk(INFER + b"Content-Length: %d\r\n\r\n{" % length, 5)
            assert closed and daemon.answers(out)[0][0] == 413 and time.monotonic() - start < 2, (length, out)
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        got = daemon.answers(d.talk(INFER + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 2 + b"0\r\n\r\n", 5, count=1)[0])
        assert got[0][0] == 413, got
        for target in (INFER, INFER.replace(b"digits", b"nobody")):  # nor is one without end read for ever
            assert d.talk(None, 5, pieces=[target + b"Transfer-Encoding: chunked\r\n\r\n"] + [piece] * 200)[1]
        assert d.rss_bytes() - before < (8 << 20) * daemon.SLOW and d.alive()


def test_clients_that_hang_up():
    """1,000 requests cut at a random byte; nothing is kept of them."""
    seed = int(os.environ.get("SEED", time.time_ns() % 1000000))
    chance, request = random.Random(seed), infer_request()
    print(f"     seed {seed}")
    with daemon.start() as d:
        d.talk(request, 5, count=1)
        files = d.files()
        for i in range(1000):
            with d.connect() as s:
                data = request * chance.choice((1, 1, 2))
                s.sendall(data[:chance.randrange(len(data) + 1)])
                if i % 3 == 0:  # a reset instead of an orderly end
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        deadline = time.monotonic() + 10 * daemon.SLOW
        while (d.files() > files or d.metric("quantd_http_connections") > 1) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert d.files() <= files + 1, (files, d.files())
        assert d.metric("quantd_http_connections") == 1 and d.metric("quantd_queue_depth") == 0
        assert daemon.answers(d.talk(request, 5, count=1)[0])[0][0] == 200


def test_pipelining_across_jobs():
    """Answers come in the order of the requests, also when some of them wait for a worker."""
    with daemon.start("--workers", 2) as d:
        data = b"".join(infer_request(id=f"r{i}") + GET for i in range(20))
        got = daemon.answers(d.talk(data, 20 * daemon.SLOW, count=40)[0])
        assert [a[0] for a in got] == [200] * 40, [a[0] for a in got]
        assert [json.loads(a[2])["id"] for a in got[::2]] == [f"r{i}" for i in range(20)]


if __name__ == "__main__":
    sys.exit(run([test_listener_survives_the_connection_limit, test_limit_per_address, test_few_descriptors, test_half_a_tls_handshake,
                  test_slow_headers, test_slow_body, test_body_rate, test_slow_reader, test_idle_connection_is_kept_then_closed,
                  test_many_tiny_chunks, test_body_over_the_limit, test_clients_that_hang_up, test_pipelining_across_jobs]))
