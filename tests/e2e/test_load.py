#!/usr/bin/env python3
# timeout: 240
"""Everything at once: clients that infer in JSON, others that freeze, unfreeze, reset, read ranges, metrics and the plan, some that hang up in
the middle, and at last SIGTERM. Nothing may fail but what must (409 while nothing is learned); under ThreadSanitizer nothing may race."""
import json
import os
import random
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import serving  # noqa: E402

SECONDS = float(os.environ.get("LOAD_SECONDS", "8"))


class Load:
    def __init__(self, daemon, seed):
        self.d, self.random, self.stop = daemon, random.Random(seed), threading.Event()
        self.answers, self.wrong, self.lock = {}, [], threading.Lock()
        self.bodies = [json.dumps({"inputs": [{"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": pixels}]})
                       for _, pixels in serving.digits()[:8]]

    def note(self, what, status, fine):
        with self.lock:
            self.answers[what, status] = self.answers.get((what, status), 0) + 1
            if status not in fine:
                self.wrong.append((what, status))

    def infer(self):
        self.note("infer", self.d.post("/v2/models/digits/infer", self.random.choice(self.bodies)).status, {200})

    def control(self):
        verb = self.random.choice(["freeze", "unfreeze", "reset"])
        self.note(verb, self.d.post(f"/v2/models/digits/ranges/{verb}").status, {200, 409} if verb == "freeze" else {200})

    def look(self):
        path = self.random.choice(["/metrics", "/v2/models/digits/ranges", "/v2/models/digits/quantization", "/v2/models/stats",
                                   "/v2/models/digits/ranges?format=csv", "/v2/health/live"])
        self.note(path, self.d.get(path).status, {200})

    def hang_up(self):
        body = self.random.choice(self.bodies).encode()
        head = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", self.d.port)) as s:
            s.sendall((head + body)[:self.random.randrange(len(head + body) + 1)])

    def repeat(self, act):
        while not self.stop.is_set():
            try:
                act()
            except OSError as error:
                with self.lock:
                    self.wrong.append((act.__name__, repr(error)))


def test_load_with_control_and_hang_ups():
    seed = int(os.environ.get("SEED", time.time_ns() % 1000000))
    print(f"seed {seed}")
    with serving.Daemon("--workers", "2", "--batch-max", "4", "--batch-delay-us", "500", "--queue-size", "512") as d:
        load = Load(d, seed)
        acts = [load.infer] * 4 + [load.control, load.look, load.hang_up]
        threads = [threading.Thread(target=load.repeat, args=(act,)) for act in acts]
        for t in threads:
            t.start()
        time.sleep(SECONDS)
        load.stop.set()
        for t in threads:
            t.join()
        print(sorted(load.answers.items(), key=str))
        assert not load.wrong, load.wrong[:10]
        assert load.answers["infer", 200] > 20
        assert d.get("/v2/health/ready").status == 200
        ranges = d.get("/v2/models/digits/ranges").json()
        for t in ranges["tensors"]:
            assert t["ema_min"] <= t["ema_max"] and t["scale"] > 0, t


if __name__ == "__main__":
    sys.exit(serving.run([test_load_with_control_and_hang_ups]))
