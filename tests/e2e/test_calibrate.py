#!/usr/bin/env python3
"""POST /calibrate on the built-in model: answers count, done publishes a frozen epoch of the estimated ranges, and the model
serves them as accurately as in full precision; mistakes are refused with a sentence."""
import json
import os
import struct
import subprocess
import sys
import tempfile

import serving
from digit_requests import infer

PATH = "/v2/models/digits/calibrate"
METHODS = ("minmax", "ema", "percentile", "entropy", "mse")


def request(pixels):
    return {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 28, 28], "data": pixels}]}


def ranges(daemon):
    return daemon.get("/v2/models/digits/ranges").json()


def test_every_method():
    images = serving.digits()[:16]
    with serving.Daemon() as d:
        exact = [infer(d, pixels, {"quant_precision": "fp32"}).json()["outputs"][0]["data"] for _, pixels in images]
        highest = None
        for number, method in enumerate(METHODS):
            for i, (_, pixels) in enumerate(images):
                reply = d.post(f"{PATH}?method={method}", request(pixels))
                assert reply.status == 200, reply.body
                body = reply.json()
                assert body["requests"] == i + 1 and body["method"] == method and not body["done"], body
            before = ranges(d)
            assert all(t["observations"] == 0 for t in before["tensors"]) or number, "calibrating taught the average"
            done = d.post(PATH, {"done": True})
            assert done.status == 200, done.body
            body = done.json()
            now = ranges(d)
            assert body["done"] and body["frozen"] and body["method"] == method and body["left"] == 0, body
            assert body["tensors"] == len(now["tensors"]) > 0 and now["frozen"] and now["mode"] == "static", body
            assert now["epoch"] == before["epoch"] + 1 == body["epoch"], (now["epoch"], before["epoch"])
            widths = [t["ema_max"] - t["ema_min"] for t in now["tensors"]]
            highest = highest or widths
            assert all(0 < w <= h * 1.0001 for w, h in zip(widths, highest)), (method, widths, highest)
            right = 0
            for (_, pixels), wanted in zip(images, exact):
                logits = infer(d, pixels).json()["outputs"][0]["data"]
                right += logits.index(max(logits)) == wanted.index(max(wanted))
            assert right >= len(images) - 1, (method, right)
            assert ranges(d)["epoch"] == now["epoch"], "a frozen epoch moved"


def test_refusals():
    images = serving.digits()[:1]
    with serving.Daemon() as d:
        pixels = images[0][1]
        for path, body, status, word in (
                (PATH, {"done": True}, 409, "calibrated"), (PATH + "?method=best", request(pixels), 400, "best"),
                (PATH + "?percentile=7", request(pixels), 400, "percentile"), (PATH, request(pixels[1:]), 400, "image"),
                (PATH, {"done": 1}, 400, ""), ("/v2/models/none/calibrate", request(pixels), 404, "none")):
            reply = d.post(path, body)
            assert reply.status == status and word in reply.json()["error"], (path, reply.status, reply.body)
        assert ranges(d)["epoch"] == 1
        assert d.post(PATH, request(pixels)).json()["requests"] == 1
        assert d.post(PATH + "?method=mse", {"done": True}).json()["epoch"] == 2
        assert d.post(PATH, {"done": True}).status == 409


def test_command():
    """quantd quantize gives the ranges that the daemon's calibration gives with the same inputs."""
    images = serving.digits()[:4]
    model = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../server/builtin/digits.onnx")
    quantd = os.environ.get("QUANTD", "build/quantd")
    with serving.Daemon("--precision", "int8") as d, tempfile.TemporaryDirectory(prefix="quantd-test-") as folder:
        for i, (_, pixels) in enumerate(images):
            assert d.post(PATH, request(pixels)).status == 200
            os.mkdir(f"{folder}/test_data_set_{i}")
            with open(f"{folder}/test_data_set_{i}/input_0.pb", "wb") as f:  # a TensorProto: dims, data_type, raw_data
                raw = struct.pack(f"<{len(pixels)}f", *pixels)
                f.write(b"\x08\x01\x08\x01\x08\x1c\x08\x1c\x10\x01\x4a" + bytes([len(raw) & 127 | 128, len(raw) >> 7]) + raw)
        assert d.post(PATH + "?method=percentile&percentile=99", {"done": True}).status == 200
        run = subprocess.run([quantd, "quantize", model, "--calibrate", folder, "--method", "percentile", "--percentile", "99"],
                             capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        table = json.loads(run.stdout)
        assert table["requests"] == 4 and table["left"] == 0 and table["method"] == "percentile", table
        served = {t["name"]: t for t in ranges(d)["tensors"]}
        assert set(served) == {t["name"] for t in table["tensors"]}
        for t in table["tensors"]:
            there = served[t["name"]]
            assert (t["min"], t["max"]) == (there["ema_min"], there["ema_max"]), (t, there)
            assert struct.pack("<f", t["scale"]) == struct.pack("<f", there["scale"]) and t["zero_point"] == there["zero_point"]
        for arguments, code in ((["quantize", model], 2), (["quantize", model, "--calibrate", folder, "--method", "x"], 2),
                                (["quantize", model, "--calibrate", "/nowhere"], 1)):
            assert subprocess.run([quantd, *arguments], capture_output=True, check=False).returncode == code, arguments


sys.exit(serving.run([test_every_method, test_refusals, test_command]))
