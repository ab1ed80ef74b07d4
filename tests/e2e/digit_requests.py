"""Requests to the built-in model in JSON, for tests without numpy."""
import json

PATH = "/v2/models/digits/quantization"


def infer(daemon, pixels, parameters=None):
    request = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 28, 28], "data": pixels}],
               "outputs": [{"name": "logits"}]}
    if parameters:
        request["parameters"] = parameters
    return daemon.post("/v2/models/digits/infer", request)


def change(daemon, options):
    return daemon.ask("PATCH", PATH, json.dumps(options))


def teach(daemon, images, times=2):
    for _ in range(times):
        for _, pixels in images:
            assert infer(daemon, pixels).status == 200
