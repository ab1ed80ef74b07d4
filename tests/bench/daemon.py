"""From the start of a process to its first answer, and the memory it then holds: quantd as the daemon it is, asked over HTTP,
and ONNX Runtime through runner.c. Measured with the model's file out of the page cache, beside merely reading it, and in it."""
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import time

import peers

REPEATS = 3
MEMORY = ("VmRSS", "RssAnon", "RssFile")


def evict(path):
    with open(path, "rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_seconds(path):
    start = time.monotonic()
    with open(path, "rb", buffering=0) as f:
        while f.read(1 << 20):
            pass
    return time.monotonic() - start


def memory_mb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        lines = dict(line.split(":", 1) for line in f)
    return {name: int(lines[name].split()[0]) / 1000 * 1.024 for name in MEMORY}


def request_body(folder):
    """The request for the folder's inputs in the protocol's JSON."""
    types = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}
    return json.dumps({"inputs": [{"name": name, "shape": list(array.shape), "datatype": types[array.dtype.name],
                                   "data": array.ravel().tolist()} for name, array in peers.load_tensors(folder)]})


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v2/models/bench/infer", body)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except OSError:
        return None
    finally:
        connection.close()


def quantd_once(build, path, body):
    port = free_port()
    start = time.monotonic()
    child = subprocess.Popen([f"{build}/quantd", "serve", "--listen", f"127.0.0.1:{port}", "--drain-delay-ms", "0",
                              "--model", f"bench={path}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while ask(port, body) != 200:
            if child.poll() is not None or time.monotonic() - start > 60:
                raise peers.Refused("the daemon gave no answer")
            time.sleep(0.002)
        return dict(seconds=time.monotonic() - start, **memory_mb(child.pid))
    finally:
        child.terminate()
        child.wait()


def ort_once(build, path, folder):
    command = [f"{build}/tests/bench/runner", "ort", path, "--library", peers.OnnxRuntime().library()]
    start = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        child.stdin.write(f"inputs {folder}\nrun 1\n")
        child.stdin.flush()
        if not all([child.stdout.readline().startswith("ok") for _ in range(3)]):
            raise peers.Refused("ONNX Runtime gave no answer")
        return dict(seconds=time.monotonic() - start, **memory_mb(child.pid))
    finally:
        child.stdin.close()
        child.wait()
        child.stdout.close()


def measure(build, model):
    """Medians: {"file_mb", "read": seconds, "quantd"/"ort": {"cold"/"warm": {"seconds", "VmRSS", ...}}}."""
    os.makedirs(model.work, exist_ok=True)
    path = model.made("started.onnx")  # of our own: a file that others have mapped can't be evicted
    shutil.copyfile(model.path, path)
    with open(path, "rb") as f:
        os.fsync(f.fileno())
    body = request_body(model.timed)
    ways = {"quantd": lambda: quantd_once(build, path, body), "ort": lambda: ort_once(build, path, model.timed)}
    reads, found = [], {(name, state): [] for name in ways for state in ("cold", "warm")}
    for _ in range(REPEATS):
        evict(path)
        reads.append(read_seconds(path))
        for name, start in ways.items():
            for state in ("cold", "warm"):
                if state == "cold":
                    evict(path)
                found[name, state].append(start())
    os.remove(path)
    result = {"model": model.name, "file_mb": os.path.getsize(model.path) / 1e6, "read": statistics.median(reads)}
    for (name, state), rows in found.items():
        result.setdefault(name, {})[state] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return result
