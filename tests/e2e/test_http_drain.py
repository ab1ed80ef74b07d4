#!/usr/bin/env python3
# timeout: 200
"""More of the end: what a client is owed between SIGTERM and the exit. Requests that are half written, wait for a connection to
be taken in, or come on a kept connection; clients that never finish; a signal while starting. http_stop.py has the load."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import daemon  # noqa: E402
from serving import digits, run  # noqa: E402

BODY = json.dumps({"inputs": [{"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": digits()[0][1]}]}).encode()
INFER = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
GET = b"GET /v2/health/%s HTTP/1.1\r\nHost: a\r\n\r\n"


def one(s, timeout=10):
    got = daemon.answers(daemon.read_all(s, timeout * daemon.SLOW, 1)[0])
    return got[0] if got else None


def terminate(d):
    """SIGTERM, and waits until the daemon has heard it."""
    d.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 5 * daemon.SLOW
    while "SIGTERM: stopping" not in d.log:
        assert time.monotonic() < deadline, d.log
        time.sleep(0.005)


def ends(d, seconds):
    assert d.process.wait(seconds * daemon.SLOW) == 0, d.log


def test_kept_connections_in_the_delay():
    """A quiet kept connection is neither reset nor closed during the delay: its next request is answered and told to close."""
    with daemon.start("--drain-delay-ms", 1500 * daemon.SLOW) as d:
        kept = [d.connect() for _ in range(4)]
        for s in kept:
            s.sendall(GET % b"ready")
            assert one(s)[0] == 200
        terminate(d)
        time.sleep(0.8)
        for s, data, status in zip(kept, (GET % b"live", GET % b"ready", INFER, INFER), (200, 503, 200, 200)):
            s.sendall(data)
            got = one(s)
            assert got and got[0] == status and got[1].get("connection") == "close", got
            assert daemon.read_all(s, 5) == (b"", True)
        ends(d, 10)


def test_half_written_requests_are_finished():
    """Their rest comes after SIGTERM, within the grace. What shows a request has begun is its first line: less of it is quiet."""
    with daemon.start("--grace-ms", 10000) as d:
        parts = [(data, cut) for data in (INFER, GET % b"live") for cut in (data.index(b"\n") + 2, data.index(b"Host") + 3, len(data) - 1)]
        clients = [d.connect() for _ in parts]
        for s, (data, cut) in zip(clients, parts):
            s.sendall(data[:cut])
        time.sleep(0.3)
        terminate(d)
        time.sleep(0.5)
        for s, (data, cut) in zip(clients, parts):
            s.sendall(data[cut:])
        got = [one(s) for s in clients]
        assert [g and g[0] for g in got] == [200] * len(parts), got
        ends(d, 8)


def test_not_yet_taken_in():
    """Clients beyond the connection limit have connected and sent all; they wait in the kernel when SIGTERM comes."""
    with daemon.start("--max-connections", 4, "--workers", 1, "--batch-max", 4, "--batch-delay-us", 600000 * daemon.SLOW,
                      "--grace-ms", 30000 * daemon.SLOW) as d:
        clients = [d.connect() for _ in range(12)]
        for s in clients:
            s.sendall(INFER)
        time.sleep(0.2)
        terminate(d)
        got = [one(s, 30) for s in clients]
        assert [g and g[0] for g in got] == [200] * 12, [g and g[0] for g in got]
        ends(d, 10)


def test_never_finished_requests_end_with_the_grace():
    with daemon.start("--grace-ms", 700) as d:
        clients = [d.connect() for _ in range(5)]
        for s, cut in zip(clients, (0, 5, 60, len(INFER) - 1, len(INFER) - 1)):
            s.sendall(INFER[:cut])
        time.sleep(0.2)
        start = time.monotonic()
        terminate(d)
        ends(d, 3)
        assert time.monotonic() - start > 0.5
        assert all(daemon.read_all(s, 2)[1] for s in clients)


def test_answers_that_are_not_taken_end_with_the_grace():
    with daemon.start("--grace-ms", 700) as d, d.connect() as s:
        s.setsockopt(daemon.socket.SOL_SOCKET, daemon.socket.SO_RCVBUF, 4096)
        s.settimeout(0.2)
        try:
            s.sendall(b"GET /openapi.yaml HTTP/1.1\r\nHost: a\r\n\r\n" * 2000)
        except OSError:
            pass
        terminate(d)
        ends(d, 3)


def test_forced_with_pipelined_requests():
    """The second signal finds requests suspended, and others written behind them; each client gets 503 or is closed."""
    for tail in (GET % b"live", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", INFER):
        with daemon.start("--workers", 1, "--batch-max", 64, "--batch-delay-us", 30000000) as d:
            clients = [d.connect() for _ in range(5)]
            for s in clients:
                s.sendall(INFER + tail * 3)
            deadline = time.monotonic() + 5 * daemon.SLOW
            while d.metric("quantd_queue_depth") != 5:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            terminate(d)
            assert d.stop(5 * daemon.SLOW) == 0, d.log
            for s in clients:
                out, closed = daemon.read_all(s, 2)
                assert closed and [a[0] for a in daemon.answers(out)] in ([503], []), out


def test_signal_while_starting():
    """Before it listens or just after: it ends at once, by the signal's own effect or with 0, and never hangs."""
    for i in range(20):
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen([daemon.QUANTD, "serve", "--listen", "127.0.0.1:0", "--drain-delay-ms", "0"], stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log, start_new_session=True)
            time.sleep(i * 0.002 * daemon.SLOW)
            process.terminate()
            try:
                assert process.wait(10 * daemon.SLOW) in (0, -signal.SIGTERM), i
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()


if __name__ == "__main__":
    sys.exit(run([test_kept_connections_in_the_delay, test_half_written_requests_are_finished, test_not_yet_taken_in,
                  test_never_finished_requests_end_with_the_grace, test_answers_that_are_not_taken_end_with_the_grace,
                  test_forced_with_pipelined_requests, test_signal_while_starting]))
