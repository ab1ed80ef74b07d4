#!/usr/bin/env python3
# timeout: 200
"""Overload and the end: a full queue, deadlines, clients that go while they wait, SIGTERM with and without load, a second signal.
A long batch delay makes requests wait for sure: one alone is run only when the delay is over."""
import json
import os
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import daemon  # noqa: E402
from serving import digits, run  # noqa: E402

GET = b"GET /v2/health/%s HTTP/1.1\r\nHost: a\r\n\r\n"


def infer_request(headers=b"", **more):
    body = json.dumps({"inputs": [{"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": digits()[0][1]}], **more}).encode()
    return b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\n" + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


REQUEST = infer_request()


def slow(*more, delay_ms=1000, **how):
    return daemon.start("--workers", 1, "--batch-max", 64, "--batch-delay-us", delay_ms * 1000, *more, **how)


def send(d, request=REQUEST):
    s = d.connect()
    s.sendall(request)
    return s


def receive(s, timeout=20):
    with s:
        got = daemon.answers(daemon.read_all(s, timeout, 1)[0])
    return got[0] if got else None


def wait_for_queue(d, n):
    deadline = time.monotonic() + 5 * daemon.SLOW
    while d.metric("quantd_queue_depth") != n:
        assert time.monotonic() < deadline, d.metric("quantd_queue_depth")
        time.sleep(0.02)


def test_full_queue():
    with slow("--queue-size", 3, delay_ms=1500 * daemon.SLOW) as d:
        waiting = [send(d) for _ in range(3)]
        wait_for_queue(d, 3)
        for _ in range(20):
            start = time.monotonic()
            status, headers, body = receive(send(d))
            assert status == 503 and "retry-after" in headers and b"full" in body, (status, body)
            assert daemon.answers(d.talk(GET % b"live", 5, count=1)[0])[0][0] == 200
            assert time.monotonic() - start < 0.5 * daemon.SLOW
        assert [receive(s)[0] for s in waiting] == [200] * 3
        assert receive(send(d))[0] == 200
        assert d.metric("quantd_queue_rejected_total", 'reason="full"') == 20


def test_overload():
    """Far more than it can take: every request gets 200 or 503, the fast refusals leave the rest alive."""
    with daemon.start("--workers", 1, "--queue-size", 2, "--batch-max", 1) as d:
        counts, slowest, stop, lock = {}, [0.0], threading.Event(), threading.Lock()
        pixels = digits()[0][1] * 64
        body = json.dumps({"inputs": [{"name": "image", "shape": [64, 1, 28, 28], "datatype": "FP32", "data": pixels}]}).encode()
        request = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body

        def client():
            with d.connect() as s:
                while not stop.is_set():
                    s.sendall(request)
                    status = daemon.answers(daemon.read_all(s, 60, 1)[0])[0][0]
                    with lock:
                        counts[status] = counts.get(status, 0) + 1

        threads = [threading.Thread(target=client) for _ in range(12)]
        for t in threads:
            t.start()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            start = time.monotonic()
            assert d.alive()
            slowest[0] = max(slowest[0], time.monotonic() - start)
            time.sleep(0.05)
        stop.set()
        for t in threads:
            t.join()
        print(f"     {counts}, slowest health answer {slowest[0] * 1000:.0f} ms")
        assert set(counts) == {200, 503} and slowest[0] < 2 * daemon.SLOW


def test_deadlines():
    with slow("--request-timeout-ms", 400, delay_ms=3000 * daemon.SLOW) as d:
        start = time.monotonic()
        assert receive(send(d))[0] == 504
        assert 0.35 < time.monotonic() - start < 1.5 * daemon.SLOW
        assert d.metric("quantd_queue_rejected_total", 'reason="deadline"') == 1
    with slow(delay_ms=3000 * daemon.SLOW) as d:
        start = time.monotonic()
        assert receive(send(d, infer_request(parameters={"timeout": 100000})))[0] == 504
        assert time.monotonic() - start < 1.2 * daemon.SLOW


def test_client_gone_while_waiting():
    with slow(delay_ms=3000 * daemon.SLOW) as d:
        waiting = [send(d) for _ in range(5)]
        wait_for_queue(d, 5)
        for s in waiting:
            s.close()
        wait_for_queue(d, 0)
        assert d.metric("quantd_queue_rejected_total", 'reason="cancelled"') == 5
        assert d.metric("quantd_http_connections") == 1


def test_joined():
    with slow(delay_ms=500 * daemon.SLOW) as d:
        assert [receive(s)[0] for s in [send(d) for _ in range(10)]] == [200] * 10
        assert d.metric("quantd_executions_total") < 10
        assert d.metric("quantd_inferences_total") == 10


def test_stop_waits_for_requests():
    with slow(delay_ms=1000 * daemon.SLOW) as d:
        waiting, idle = [send(d) for _ in range(5)], d.connect()
        wait_for_queue(d, 5)
        d.process.send_signal(signal.SIGTERM)
        got = [receive(s) for s in waiting]
        assert [g[0] for g in got] == [200] * 5 and all(g[1].get("connection") == "close" for g in got), got
        assert daemon.read_all(idle, 5) == (b"", True)
        assert d.process.wait(5 * daemon.SLOW) == 0, d.log


def test_drain_delay():
    with daemon.start("--drain-delay-ms", 1000) as d:
        d.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 1
        while True:  # the signal takes a moment
            got = daemon.answers(d.talk(GET % b"ready", 5, count=1)[0])
            if got[0][0] == 503 or time.monotonic() > deadline:
                break
        assert got[0][0] == 503 and got[0][1].get("connection") == "close" and "retry-after" in got[0][1], got
        status, headers, _ = receive(send(d))
        assert status == 200 and headers.get("connection") == "close", headers
        assert d.alive()
        assert d.process.wait(5 * daemon.SLOW) == 0
        assert d.process.poll() == 0 and "stopped" in d.log


def test_grace_ends():
    with slow("--grace-ms", 300, delay_ms=30000) as d:
        waiting = send(d)
        wait_for_queue(d, 1)
        start = time.monotonic()
        assert d.stop() == 0 and time.monotonic() - start < 3 * daemon.SLOW
        got = receive(waiting)
        assert got is None or got[0] == 503, got


def test_second_signal():
    with slow(delay_ms=30000) as d:
        waiting = send(d)
        wait_for_queue(d, 1)
        start = time.monotonic()
        d.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert d.process.poll() is None, "it did not wait for the request"
        assert d.stop() == 0 and time.monotonic() - start < 3 * daemon.SLOW
        got = receive(waiting)
        assert got is None or got[0] == 503, got


def drain_under_load(delay_ms):
    """SIGTERM under load: whoever could connect and send gets a whole answer, unless it is a kept connection that had been
    told to close, or was closed while quiet."""
    with daemon.start("--drain-delay-ms", delay_ms, "--workers", 2) as d:
        lost, served, quiet, stop, lock = [], [0], [0], threading.Event(), threading.Lock()

        def once(s, kept, first):
            s.sendall(REQUEST)
            out, _ = daemon.read_all(s, 20, 1)
            got = daemon.answers(out)
            with lock:
                if got and got[0][0] == 200:
                    served[0] += 1
                elif kept and not first and out == b"":
                    quiet[0] += 1  # closed before this came: it was never taken, and the client may send it again
                else:
                    lost.append((kept, out[:200]))
            return bool(got) and got[0][1].get("connection") != "close"

        def client(kept):
            while not stop.is_set():
                try:
                    s = d.connect(timeout=0.5)
                except OSError:
                    if d.process.poll() is not None:
                        return
                    continue  # not accepted: not lost
                with s:
                    try:
                        first = True
                        while once(s, kept, first) and kept and not stop.is_set():
                            first = False
                    except OSError as error:
                        lost.append((kept, repr(error)))

        threads = [threading.Thread(target=client, args=(i % 2 == 0,)) for i in range(8)]
        for t in threads:
            t.start()
        time.sleep(1)
        before = served[0]
        status = d.stop()
        stop.set()
        for t in threads:
            t.join()
        print(f"     {before} answers before SIGTERM, {served[0] - before} after it, {len(lost)} lost, {quiet[0]} met a closed connection")
        assert quiet[0] <= 2, "kept connections were closed under clients that used them"
        assert status == 0 and not lost and before > 50, (status, lost[:5])


def test_drain_under_load():
    for delay_ms in (500, 0, 0, 0):
        drain_under_load(delay_ms)


def test_signals_that_do_nothing():
    with daemon.start() as d:
        for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGWINCH, signal.SIGCHLD):
            d.process.send_signal(number)
        time.sleep(0.2)
        assert d.alive() and d.process.poll() is None


def test_inherited_socket():
    """Socket activation: $LISTEN_FDS says that descriptor 3 listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port, log = listener.getsockname()[1], daemon.tempfile.NamedTemporaryFile()
        command = ["sh", "-c", 'exec 3<&"$1"; LISTEN_FDS=1 LISTEN_PID=$$ exec "$2" serve --drain-delay-ms 0', "sh",
                   str(listener.fileno()), daemon.QUANTD]
        process = daemon.subprocess.Popen(command, stdout=log, stderr=log, pass_fds=[listener.fileno()], start_new_session=True)
        d = daemon.Running(process, log)
        d.port = port
    with d:
        assert d.alive(), d.log
        assert f"port {port}" in d.log, d.log


if __name__ == "__main__":
    sys.exit(run([test_full_queue, test_overload, test_deadlines, test_client_gone_while_waiting, test_joined, test_stop_waits_for_requests,
                  test_drain_delay, test_grace_ends, test_second_signal, test_drain_under_load, test_signals_that_do_nothing,
                  test_inherited_socket]))
