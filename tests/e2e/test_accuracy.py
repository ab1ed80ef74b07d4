#!/usr/bin/env python3
"""/accuracy: a share of the requests is run in FP32 aside; the figures agree with what a client finds when it asks for both."""
import json
import math
import sys
import time

import serving
from digit_requests import PATH, change, infer, teach

ACCURACY = "/v2/models/digits/accuracy"


def answers(daemon, pixels, precision):
    parameters = {"quant_observe": False, "quant_precision": precision} if precision else {"quant_observe": False}
    return infer(daemon, pixels, parameters).json()["outputs"][0]["data"]


def wait_for(daemon, sampled):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        report = daemon.get(ACCURACY).json()
        if report["sampled"] >= sampled:
            return report
        time.sleep(0.02)
    raise AssertionError(f"{report['sampled']} of {sampled} were measured")


def settle(daemon):
    """Until nothing is being measured any more: at idle priority that may take a while."""
    before, now = -1, daemon.get(ACCURACY).json()["sampled"]
    while before != now:
        time.sleep(1)
        before, now = now, daemon.get(ACCURACY).json()["sampled"]


def test_nothing_without_a_rate():
    with serving.Daemon() as d:
        teach(d, serving.digits()[:4])
        report = d.get(ACCURACY).json()
        assert report["sampled"] == 0 and report["cosine"]["mean"] is None and report["layers"], report


def test_figures_are_those_a_client_finds():
    with serving.Daemon("--precision", "int8", "--shadow-rate", "1") as d:
        images = serving.digits()
        teach(d, images)
        wait_for(d, 1)
        settle(d)
        assert d.post("/v2/models/digits/ranges/freeze").status == 200
        assert change(d, {"guard": "clip"}).status == 200  # a new plan: figures start anew
        signal = noise = agreed = 0
        for count, (_, pixels) in enumerate(images, 1):
            int8 = answers(d, pixels, None)
            report = wait_for(d, count)
            fp32 = answers(d, pixels, "fp32")
            signal += sum(b * b for b in fp32)
            noise += sum((a - b) ** 2 for a, b in zip(int8, fp32))
            agreed += max(range(10), key=int8.__getitem__) == max(range(10), key=fp32.__getitem__)
        assert report["sampled"] == len(images), report
        sqnr = 10 * math.log10(signal / noise)
        # the answers measured hold the probabilities too, which add little to either sum
        assert abs(report["sqnr_db"] - sqnr) < 1 and sqnr > 20, (report["sqnr_db"], sqnr)
        assert report["cosine"]["mean"] > 0.99 and report["cosine"]["min"] <= report["cosine"]["mean"], report
        top1 = report["top1_agreement"]
        assert top1["rows"] == len(images) and abs(top1["value"] - agreed / len(images)) < 1e-9, (top1, agreed)
        assert top1["low"] <= top1["value"] <= top1["high"] and top1["low"] < top1["high"], top1
        layers = report["layers"]
        assert {layer["node"] for layer in layers} == {"conv1", "conv2", "conv3", "fc1", "fc2"}, layers
        values = [layer["sqnr_db"] for layer in layers]
        assert values == sorted(values) and 15 < values[0] and values[-1] < 80, values
        steps = {s["node"]: s["sqnr_db"] for s in d.get(PATH).json()["steps"] if s["sqnr_db"] is not None}
        assert steps == {layer["node"]: layer["sqnr_db"] for layer in layers}, (steps, layers)
        assert f'quantd_accuracy_sampled_total{{model="digits",version="1"}} {len(images)}' in d.get("/metrics").body.decode(), "metrics"


def test_a_pinned_layer_has_no_error():
    with serving.Daemon("--precision", "int8", "--shadow-rate", "0.5") as d:
        assert change(d, {"precision": {"*": "fp32", "conv3": "int8"}}).status == 200
        images = serving.digits()[:8]
        teach(d, images)
        report = wait_for(d, 1)
        assert [layer["node"] for layer in report["layers"]] == ["conv3"], report
        assert report["sampled"] <= 8 and json.dumps(report), report


def test_layers_in_16_bits():
    """Each layer alone, on real inputs, has 70 dB and more; with 16 bits in the weights as well, more than with 14."""
    worst = {}
    for bits in ("14", "16"):
        with serving.Daemon("--precision", "int16", "--weight-bits", bits, "--shadow-rate", "1") as d:
            while (report := d.get(ACCURACY).json())["sampled"] < 12:
                teach(d, serving.digits()[:4], 1)
            assert len(report["layers"]) == 5 and report["sqnr_db"] >= 70, report
            worst[bits] = min(layer["sqnr_db"] for layer in report["layers"])
    assert 70 <= worst["14"] < worst["16"], worst


sys.exit(serving.run([test_nothing_without_a_rate, test_figures_are_those_a_client_finds, test_a_pinned_layer_has_no_error,
                      test_layers_in_16_bits]))
