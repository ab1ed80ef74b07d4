#!/usr/bin/env python3
# timeout: 240
"""More of what clients and systems do to a server: silence, half-closed connections, clients that go while a worker is at
their request or while an answer is on its way, very few descriptors, storms of signals, a port that is taken. http_limits.py has
floods, trickling and bodies; http_framing.py has the table of raw requests."""
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import daemon  # noqa: E402
from serving import digits, run  # noqa: E402

GET = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
INFER = b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\n"
RESET = struct.pack("ii", 1, 0)


def infer_request(n=1, **more):
    """n images; the pixels as bytes, so that large requests are made fast."""
    pixels = struct.pack("<784f", *digits()[0][1]) * n
    head = json.dumps({"inputs": [{"name": "image", "shape": [n, 1, 28, 28], "datatype": "FP32",
                                   "parameters": {"binary_data_size": len(pixels)}}], **more}).encode()
    return INFER + b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (len(head), len(head) + len(pixels)) + head + pixels


def statuses(s, timeout, count=None):
    return [a[0] for a in daemon.answers(daemon.read_all(s, timeout * daemon.SLOW, count)[0])]


def statuses_of(d, data, count=1):
    return [a[0] for a in daemon.answers(d.talk(data, 10 * daemon.SLOW, count=count)[0])]


def wait_until(what, seconds):
    deadline = time.monotonic() + seconds * daemon.SLOW
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_silence():
    """Nothing at all, a head that stops, a body that never begins, one that stops: closed when their time is over, not before."""
    with daemon.start("--header-timeout-ms", 1000, "--body-timeout-ms", 1500) as d:
        for data, least in ((b"", 0.8), (b"GET /v2 HTTP/1.1\r\nHost", 0.8), (INFER + b"Content-Length: 100\r\n\r\n", 1.3),
                            (INFER + b"Content-Length: 100\r\n\r\n{", 1.3), (INFER + b"Transfer-Encoding: chunked\r\n\r\n", 1.3),
                            (GET + INFER + b"Content-Length: 100\r\n\r\n{", 1.3)):
            with d.connect() as s:
                start = time.monotonic()
                s.sendall(data)
                out, closed = daemon.read_all(s, 12 * daemon.SLOW)
                taken = time.monotonic() - start
                assert closed and least < taken < 4 * daemon.SLOW, (data, closed, taken)
                assert [a[0] for a in daemon.answers(out)] == [200] * data.count(b"GET /v2/health"), out
        wait_until(lambda: d.metric("quantd_http_connections") == 1, 5)


def test_half_closed_clients():
    """A client may close its side and still read: what is answered at once it gets. Not what a worker has to answer: on
    resuming, libmicrohttpd may read the end before it writes, and closes (docs/HTTP.md). That must only hurt that client."""
    with daemon.start() as d:
        for data, count in ((GET, 1), (GET * 3, 3), (GET + GET[:9], 1)):
            with d.connect() as s:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                assert statuses(s, 10, count) == [200] * count, count


def test_half_closed_crowd():
    with daemon.start("--queue-size", 1000) as d:
        request, crowd = infer_request(), []
        for _ in range(100):
            s = d.connect()
            s.sendall(request)
            s.shutdown(socket.SHUT_WR)
            crowd.append(s)
        assert statuses_of(d, request) == [200]
        # Each has run, or was dropped because its client counted as gone while it waited.
        wait_until(lambda: (d.metric("quantd_inferences_total") or 0) +
                   (d.metric("quantd_queue_rejected_total", "cancelled") or 0) == 101, 10 * daemon.SLOW)
        for s in crowd:
            s.close()
        wait_until(lambda: d.metric("quantd_http_connections") == 1, 10)


def test_half_closed_while_waiting():
    """One that closes its side while its request waits in the queue counts as gone, but is told so rather than left alone."""
    with daemon.start("--workers", 1, "--batch-max", 64, "--batch-delay-us", 2000000 * daemon.SLOW) as d:
        with d.connect() as s:
            s.sendall(infer_request())
            s.shutdown(socket.SHUT_WR)
            out, closed = daemon.read_all(s, 10 * daemon.SLOW)
            got = daemon.answers(out)
            assert len(got) == 1 and closed, out
            assert got[0][0] == 200 or (got[0][0] == 503 and b"closed its side" in got[0][2]), got
        assert d.alive()


def test_the_end_of_a_client_is_seen():
    """Also when it comes together with the last bytes, which libmicrohttpd misses about once in some hundred times."""
    with daemon.start("--idle-timeout-s", 30) as d:
        request, slowest = infer_request(), 0
        for i in range(2000):
            data = (GET + GET[:9], GET, request[:-10])[i % 3]
            with d.connect() as s:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                start = time.monotonic()
                out, closed = daemon.read_all(s, 3 * daemon.SLOW)
                assert closed and len(daemon.answers(out)) == (i % 3 != 2), (i, out[:60], closed)
                slowest = max(slowest, time.monotonic() - start)
        print(f"     the slowest took {slowest:.2f} s")


def test_client_gone_while_running():
    """Two long requests for one worker: when one waits, the other runs. Both clients go; the answer is dropped, nothing is left."""
    with daemon.start("--workers", 1, "--batch-max", 1, "--max-body-bytes", 64 << 20) as d:
        long = infer_request(4000)
        for i in range(4):
            gone = [d.connect(), d.connect()]
            for s in gone:
                s.sendall(long)
            deadline = time.monotonic() + 20 * daemon.SLOW
            while d.metric("quantd_queue_depth") != 1:
                assert time.monotonic() < deadline, "never was one running and one waiting"
            for s in gone:
                if i % 2:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                s.close()
            assert statuses_of(d, infer_request()) == [200]
        wait_until(lambda: d.metric("quantd_http_connections") == 1 and d.metric("quantd_queue_depth") == 0, 20)
        assert d.metric("quantd_executions_total") >= 8  # the four that ran were finished, and the four short ones


def test_client_gone_while_answered():
    """Reset in the middle of answers that do not fit into the socket's buffers."""
    with daemon.start() as d:
        d.talk(GET, 5, count=1)
        files, memory = d.files(), 0
        for i in range(60):
            with d.connect() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.settimeout(0.05)
                try:
                    s.sendall(b"GET /openapi.yaml HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
                    s.recv(100)
                except OSError:
                    pass
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if i == 20:
                memory = d.rss_bytes()
        wait_until(lambda: d.metric("quantd_http_connections") == 1 and d.files() <= files + 1, 15)
        assert d.rss_bytes() - memory < (8 << 20) * daemon.SLOW, (memory, d.rss_bytes())


def test_thirty_two_descriptors():
    """All of them taken: those that came in are served, the rest wait; all are served once there is room."""
    with daemon.start(files=32) as d:
        flood = [d.connect() for _ in range(60)]
        for s in flood:
            s.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        got = [statuses(s, 15, 1) for s in flood]
        for s in flood:
            s.close()
        assert got == [[200]] * 60, got
        assert d.alive() and statuses_of(d, infer_request()) == [200]


def test_signal_storm():
    """Interrupted system calls are no failures."""
    with daemon.start() as d:
        stop = threading.Event()

        def storm():
            while not stop.is_set():
                d.process.send_signal(signal.SIGHUP)
                d.process.send_signal(signal.SIGCONT)
                time.sleep(0.0005)

        thread = threading.Thread(target=storm)
        thread.start()
        try:
            end = time.monotonic() + 2
            while time.monotonic() < end:
                assert statuses_of(d, (infer_request() + GET) * 5, 10) == [200] * 10
        finally:
            stop.set()
            thread.join()


def test_kept_alive_over_an_idle_time():
    with daemon.start() as d, d.connect() as s:
        for pause in (0, 3.2):
            time.sleep(pause)
            s.sendall(GET)
            assert statuses(s, 5, 1) == [200]


def test_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address, start = f"127.0.0.1:{taken.getsockname()[1]}", time.monotonic()
        done = subprocess.run([daemon.QUANTD, "serve", "--listen", address], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
        said = (done.stdout + done.stderr).decode().splitlines()
        assert done.returncode == 1 and time.monotonic() - start < 2 * daemon.SLOW, (done, time.monotonic() - start)
        assert len(said) == 1 and address in said[0] and "in use" in said[0], said


if __name__ == "__main__":
    sys.exit(run([test_silence, test_half_closed_clients, test_half_closed_crowd, test_half_closed_while_waiting,
                  test_the_end_of_a_client_is_seen, test_client_gone_while_running,
                  test_client_gone_while_answered, test_thirty_two_descriptors, test_signal_storm,
                  test_kept_alive_over_an_idle_time, test_port_in_use]))
