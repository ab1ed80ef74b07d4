"""A quantd of a test's own: started on a free port, asked over HTTP, stopped with SIGTERM. Needs only the standard library."""
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback

QUANTD = os.environ.get("QUANTD", "build/quantd")
DIGITS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "server", "builtin", "digits.json")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


class Daemon:
    """with Daemon("--flag", ...) as d: d.get("/v2")"""

    def __init__(self, *flags):
        self.port = free_port()
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([QUANTD, "serve", "--listen", f"127.0.0.1:{self.port}", "--drain-delay-ms", "0", *flags],
                                        stdout=self.log, stderr=self.log)

    def __enter__(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.get("/v2/health/ready").status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()
        raise RuntimeError("the daemon did not get ready:\n" + self.output())

    def output(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def __exit__(self, kind, value, trace):
        self.process.terminate()
        status = self.process.wait(60)
        if kind is None and status != 0:
            raise AssertionError(f"the daemon ended with {status}:\n{self.output()}")
        if kind is not None:
            print(self.output()[-4000:])

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path, headers=None):
        return self.ask("GET", path, headers=headers)

    def post(self, path, body=b"", headers=None):
        if not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        return self.ask("POST", path, body, headers)


def digits():
    """[(label, [784 floats 0..1])]: the test digits that come with the built-in model."""
    with open(DIGITS, encoding="ascii") as f:
        data = json.load(f)
    return [(d["label"], [p / data["scale"] for p in d["pixels"]]) for d in data["digits"]]


def run(tests, *arguments):
    """Calls each test, prints a line each and the summary that tests/run.py reads; the exit status."""
    failed = 0
    for test in tests:
        try:
            test(*arguments)
            print(f"ok   {test.__name__}")
        except Exception:
            failed += 1
            print(f"FAIL {test.__name__}")
            traceback.print_exc(file=sys.stdout)
    print(f"{len(tests) - failed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not tests else 0
