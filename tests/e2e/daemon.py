"""A quantd of a test's own, in its own process group, on a free port that it chose itself (the line "listening" tells), and
raw bytes to and from it. For tests of what happens below HTTP; serving.py asks in whole requests. Standard library only."""
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time

QUANTD = os.environ.get("QUANTD", "build/quantd")
LISTENING = re.compile(r"listening on \S+ \(port (\d+)\)")
SLOW = 5 if re.search("address|thread|undefined|coverage", QUANTD) else 1  # builds that need more time


class Running:
    def __init__(self, process, log):
        self.process, self.log_file, self.pid, self.port = process, log, process.pid, None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        """A test that went well must leave a daemon that still stops cleanly."""
        if self.process.poll() is None and kind is None:
            status = self.stop()
            assert status == 0, f"the daemon ended with {status}:\n{self.log[-4000:]}"
        elif kind is None:
            assert self.process.returncode == 0, f"the daemon ended with {self.process.returncode}:\n{self.log[-4000:]}"
        else:
            self.kill()
            print(self.log[-3000:])

    @property
    def log(self):
        with open(self.log_file.name, encoding="utf-8", errors="replace") as f:
            return f.read()

    def stop(self, timeout=60):
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the daemon did not stop:\n" + self.log[-4000:]) from None

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def connect(self, timeout=10):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s

    def talk(self, data, timeout=2.0, pieces=None, count=None):
        """Sends, reads until the peer closes, `timeout` is over or `count` answers are there; (bytes, closed)."""
        with self.connect() as s:
            try:
                for piece in pieces or [data]:
                    s.sendall(piece)
            except OSError:
                pass  # closed while we were sending: what it said is still to be read
            return read_all(s, timeout, count)

    def alive(self):
        answer = answers(self.talk(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 10 * SLOW)[0])
        return len(answer) == 1 and answer[0][0] == 200

    def metric(self, name, labels=""):
        text = answers(self.talk(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 10 * SLOW)[0])[0][2].decode()
        for line in text.splitlines():
            if line.startswith(name) and line[len(name)] in " {" and labels in line:
                return float(line.split()[-1])
        return None


def start(*args, env=None, files=None):
    """Starts `quantd serve` with more flags; `files`: limit of open files. Without a drain delay unless asked for one."""
    def limit():
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    log = tempfile.NamedTemporaryFile(prefix="quantd-log-")
    command = [QUANTD, "serve", "--listen", "127.0.0.1:0", "--drain-delay-ms", "0", *map(str, args)]
    running = Running(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})},
                                       start_new_session=True, preexec_fn=limit), log)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running.process.poll() is None:
        found = LISTENING.search(running.log)
        if found:
            running.port = int(found.group(1))
            assert running.port > 0, running.log
            return running
        time.sleep(0.01)
    running.kill()
    raise RuntimeError("the daemon did not start:\n" + running.log)


def read_all(s, timeout, count=None):
    """Everything until the peer closes; (bytes, closed). A reset counts as closed."""
    out, deadline = b"", time.monotonic() + timeout
    while count is None or len(answers(out)) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            return out, False
        s.settimeout(left)
        try:
            data = s.recv(1 << 16)
        except socket.timeout:
            return out, False
        except OSError:
            return out, True
        if not data:
            return out, True
        out += data
    return out, False


def answers(data, head=False):
    """[(status, {header: value}, body)]: the whole answers in the bytes of a connection, without the interim ones."""
    found = []
    while b"\r\n\r\n" in data:
        top, rest = data.split(b"\r\n\r\n", 1)
        lines = top.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers = {k.strip().lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        n = 0 if head or status < 200 or status == 304 else int(headers.get("content-length", 0))
        if len(rest) < n:
            break
        if status >= 200:
            found.append((status, headers, rest[:n]))
        data = rest[n:]
    return found
