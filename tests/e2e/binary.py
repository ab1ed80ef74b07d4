"""Inference of the built-in model by the binary tensor extension, for tests that have numpy."""
import json

import numpy as np


class Refused(Exception):
    def __init__(self, status, text):
        super().__init__(f"{status} {text}")
        self.status = status


def infer(daemon, image, parameters=None):
    """image float32 [n, 1, 28, 28] -> (logits float32 [n, 10], the answer's parameters)."""
    body = image.astype("<f4").tobytes()
    request = {"inputs": [{"name": "image", "shape": list(image.shape), "datatype": "FP32",
                           "parameters": {"binary_data_size": len(body)}}],
               "outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}
    if parameters:
        request["parameters"] = parameters
    header = json.dumps(request).encode()
    answer = daemon.post("/v2/models/digits/infer", header + body, {"Inference-Header-Content-Length": str(len(header))})
    if answer.status != 200:
        raise Refused(answer.status, answer.body.decode())
    size = int(answer.headers["Inference-Header-Content-Length"])
    reply = json.loads(answer.body[:size])
    return np.frombuffer(answer.body[size:], "<f4").reshape(image.shape[0], 10), reply["parameters"]
