"""A model served by a quantd of one's own, asked with a folder's real inputs in the binary form; what it answers, compared with
FP32's outputs. For precision.py and ablation.py; needs numpy and onnx."""
import http.client
import json
import os
import subprocess
import tempfile
import time

import numpy as np

import peers
from daemon import free_port

TYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32", "bool": "BOOL", "float64": "FP64", "uint8": "UINT8"}
NUMPY = {name: kind for kind, name in TYPES.items()}
MODEL = "/v2/models/m"


class Sample:
    """One data set: the request's bytes, and the outputs that are compared."""

    def __init__(self, folder):
        inputs = [(name, np.ascontiguousarray(array)) for name, array in peers.load_tensors(folder)]
        self.outputs = peers.load_tensors(folder, "output")
        self.inputs = [{"name": name, "shape": list(array.shape), "datatype": TYPES[array.dtype.name],
                        "parameters": {"binary_data_size": array.nbytes}} for name, array in inputs]
        self.body = b"".join(array.tobytes() for _, array in inputs)

    def request(self, parameters):
        head = json.dumps({"inputs": self.inputs, "parameters": {"binary_data_output": True, **parameters}}).encode()
        return head + self.body, {"Inference-Header-Content-Length": str(len(head))}


def samples(folder):
    sets = sorted((d for d in os.listdir(folder) if d.startswith("test_data_set_")), key=lambda d: int(d.rsplit("_", 1)[1]))
    return [Sample(os.path.join(folder, d)) for d in sets]


class Served:
    """with Served(build, model.onnx, "--precision", "int8") as s: s.ask(sample)"""

    def __init__(self, build, path, *flags):
        self.port, self.log = free_port(), tempfile.TemporaryFile()
        self.child = subprocess.Popen([f"{build}/quantd", "serve", "--listen", f"127.0.0.1:{self.port}", "--drain-delay-ms", "0",
                                       "--model", f"m={path}", *flags], stdout=self.log, stderr=self.log)
        self.connection = None
        deadline = time.monotonic() + 120
        while self.child.poll() is None and time.monotonic() < deadline:
            try:
                if self.get("/v2/health/ready", True) is not None:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        text = self.output()
        self.__exit__()
        raise peers.Refused(text[-2000:])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()

    def output(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def send(self, method, path, body=None, headers=None):
        for attempt in range(2):
            try:
                if not self.connection:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
                self.connection.request(method, path, body, headers or {})
                answer = self.connection.getresponse()
                return answer, answer.read()
            except (OSError, http.client.HTTPException):
                self.connection = None
                if attempt:
                    raise

    def get(self, path, raw=False):
        answer, body = self.send("GET", path)
        if answer.status != 200:
            return None
        return body if raw else json.loads(body)

    def change(self, options):
        answer, body = self.send("PATCH", MODEL + "/quantization", json.dumps(options))
        if answer.status != 200:
            raise peers.Refused(body.decode())

    def ask(self, sample, **parameters):
        """{name: array} of the answer."""
        answer, body = self.send("POST", MODEL + "/infer", *sample.request(parameters))
        if answer.status != 200:
            raise peers.Refused(body[:500].decode(errors="replace"))
        size = int(answer.headers["Inference-Header-Content-Length"])
        outputs, at = {}, size
        for out in json.loads(body[:size])["outputs"]:
            n = out["parameters"]["binary_data_size"]
            outputs[out["name"]] = np.frombuffer(body[at:at + n], NUMPY[out["datatype"]]).reshape(out["shape"])
            at += n
        return outputs

    def infer_us(self):
        """Sum and count of the time in the model, so far."""
        found = self.get(MODEL + "/stats")["model_stats"][0]["inference_stats"]["compute_infer"]
        return found["ns"] / 1e3, found["count"]


def cosine(got, sample):
    """Of all FP32 outputs together."""
    pairs = [(got[name].ravel().astype(float), want.ravel().astype(float)) for name, want in sample.outputs if want.dtype == np.float32]
    a, b = (np.concatenate(side) for side in zip(*pairs))
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm else float(np.array_equal(a, b))


def use_own_fp32(server, sets):
    """Answers are compared with what this server gives in FP32: where a sample's outputs are next to nothing (a page without
    text), another library's FP32 is no closer to it than INT8."""
    for sample in sets:
        sample.outputs = list(server.ask(sample, quant_precision="fp32", quant_observe=False).items())


def agreement(got, sample):
    """(rows of the first output whose largest element is FP32's, rows)."""
    name, want = sample.outputs[0]
    if want.dtype != np.float32 or want.ndim == 0 or want.shape[-1] < 2:
        return 0, 0
    same = got[name].reshape(want.shape).argmax(-1) == want.argmax(-1)
    return int(same.sum()), same.size


def compare(server, sets):
    """(mean cosine, least cosine, share of rows that agree or None) over all sets; nothing is learned from it."""
    cosines, agreed, rows = [], 0, 0
    for sample in sets:
        got = server.ask(sample, quant_observe=False)
        cosines.append(cosine(got, sample))
        same, of = agreement(got, sample)
        agreed, rows = agreed + same, rows + of
    return float(np.mean(cosines)), float(np.min(cosines)), agreed / rows if rows else None


def times(servers, sets, rounds=3, least=24):
    """Microseconds a request in each server, which take turns; the least of the rounds."""
    found = [[] for _ in servers]
    for _ in range(rounds):
        for i, server in enumerate(servers):
            before, n = server.infer_us()
            for k in range(max(1, least // rounds)):
                server.ask(sets[k % len(sets)], quant_observe=False)
            after, m = server.infer_us()
            found[i].append((after - before) / (m - n))
    return [min(f) for f in found]
