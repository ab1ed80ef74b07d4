#!/usr/bin/env python3
"""A feed-forward block of tokens with a few large columns: quantized row by row, smoothed and corrected while it serves, measured
closer to FP32 for it, kept over a restart to the byte, and each of the three can be turned off."""
import json
import os
import sys
import tempfile
import time

import serving

try:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    print(f"SKIP: {missing}")
    sys.exit(77)

PATH = "/v2/models/block"
TOKENS, WIDTH, HIDDEN = 12, 32, 96


def block(folder):
    random = np.random.default_rng(1)

    def weights(name, shape, scale):
        return numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), name)

    nodes = [helper.make_node("MatMul", ["x", "w1"], ["m1"], "up"), helper.make_node("Add", ["m1", "b1"], ["h"], "up_bias"),
             helper.make_node("Relu", ["h"], ["r"], "relu"), helper.make_node("MatMul", ["r", "w2"], ["m2"], "down"),
             helper.make_node("Add", ["m2", "x"], ["y"], "sum")]
    graph = helper.make_graph(nodes, "block", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "S", WIDTH])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "S", WIDTH])],
                              [weights("w1", (WIDTH, HIDDEN), 0.2), weights("b1", (HIDDEN,), 0.5), weights("w2", (HIDDEN, WIDTH), 0.2)])
    path = os.path.join(folder, "block.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def ask(daemon, seed, parameters=None):
    x = np.random.default_rng(seed).standard_normal((1, TOKENS, WIDTH))
    x[:, :, (3, 20)] *= 40
    x *= np.exp(np.random.default_rng(seed + 1).standard_normal((1, TOKENS, 1)))
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, TOKENS, WIDTH], "data": [float(v) for v in x.flat]}]}
    if parameters:
        request["parameters"] = parameters
    reply = daemon.post(PATH + "/infer", request)
    assert reply.status == 200, reply.body
    return reply.json()


def teach(daemon, count, seed=1000):
    for i in range(count):
        ask(daemon, seed + i)


def plan(daemon):
    return daemon.get(PATH + "/quantization").json()


def error(daemon, seeds=range(20)):
    total = 0
    for seed in seeds:
        int8, fp32 = (ask(daemon, seed, {"quant_observe": False, **more})["outputs"][0]["data"] for more in ({}, {"quant_precision": "fp32"}))
        total += sum((a - b) ** 2 for a, b in zip(int8, fp32))
    return total


def test_rows_smoothed_and_corrected():
    with tempfile.TemporaryDirectory() as folder:
        model = block(folder)
        flags = ("--model", f"block={model}", "--state-dir", os.path.join(folder, "state"), "--state-interval-s", "1")
        os.mkdir(os.path.join(folder, "state"))
        with serving.Daemon(*flags) as d:
            ranges = {t["name"]: t for t in d.get(PATH + "/ranges").json()["tensors"]}
            assert {t["granularity"] for t in ranges.values()} == {"row"} and not any(t["smoothed"] for t in ranges.values()), ranges
            teach(d, 20)
            rows = error(d)
            teach(d, 60)
            now = plan(d)
            assert now["smoothing"]["tensors"] >= 1 and now["bias_correction"]["layers"] == 2, (now, d.output())
            assert "smoothed from now on" in d.output()
            smoothed = error(d)
            assert smoothed < 0.5 * rows, (smoothed, rows)
            assert any(t["smoothed"] for t in d.get(PATH + "/ranges").json()["tensors"])
            answer = ask(d, 5, {"quant_observe": False})
        with serving.Daemon(*flags) as d:
            again = ask(d, 5, {"quant_observe": False})
            assert again == answer, (again["parameters"], answer["parameters"])
            assert plan(d)["smoothing"] == now["smoothing"] and plan(d)["plan"] == now["plan"]
            assert d.ask("PATCH", PATH + "/quantization", json.dumps({"smoothing": False})).status == 200
            assert plan(d)["smoothing"] == {"enabled": False, "tensors": 0}
            assert d.ask("PATCH", PATH + "/quantization", json.dumps({"activation": {"granularity": "tensor"}})).status == 200
            assert {t["granularity"] for t in d.get(PATH + "/ranges").json()["tensors"]} == {"tensor"}
            teach(d, 20)
            assert error(d) > rows
            assert d.ask("PATCH", PATH + "/quantization", json.dumps({"activation": {"granularity": "channel"}})).status == 400


def test_what_makes_it_worse_is_undone():
    """With the error measured, smoothing waits for a measurement before and is judged by one after."""
    with tempfile.TemporaryDirectory() as folder:
        with serving.Daemon("--model", f"block={block(folder)}", "--shadow-rate", "1") as d:
            deadline = time.monotonic() + 60
            while "smoothed from now on" not in d.output() and time.monotonic() < deadline:
                teach(d, 8)
            assert "smoothed from now on" in d.output(), d.output()
            before = plan(d)["smoothing"]["tensors"]
            while d.get(PATH + "/accuracy").json()["sampled"] < 20 and time.monotonic() < deadline:
                teach(d, 4)
            assert plan(d)["smoothing"]["tensors"] == (0 if "taken back" in d.output() else before)


sys.exit(serving.run([test_rows_smoothed_and_corrected, test_what_makes_it_worse_is_undone]))
