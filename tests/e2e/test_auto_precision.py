#!/usr/bin/env python3
"""target_cosine: layers leave INT8 until measured answers are close enough, then nothing changes any more; pins are left alone."""
import sys
import time

import serving
from digit_requests import PATH, change, infer

ACCURACY = "/v2/models/digits/accuracy"
TARGET = 0.99999  # the digits in INT8 reach .999


def serve_until(daemon, done, seconds=120):
    images, deadline = serving.digits(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        for _, pixels in images:
            assert infer(daemon, pixels).status == 200
        report = daemon.get(ACCURACY).json()
        if done(report):
            return report
    raise AssertionError(report)


def layers(daemon):
    return {s["node"]: s for s in daemon.get(PATH).json()["steps"] if s["op"] in ("Conv", "Gemm")}


def test_the_target_is_met_and_kept():
    with serving.Daemon("--precision", "int8", "--shadow-rate", "1", "--target-cosine", str(TARGET)) as d:
        serve_until(d, lambda r: r["sampled"] >= 24 and (r["cosine"]["mean"] or 0) >= TARGET)
        steps, plan = layers(d), d.get(PATH).json()["plan"]
        moved = [n for n, s in steps.items() if s["precision"] == "fp32"]
        assert moved and all("target_cosine" in steps[n]["reason"] and not steps[n]["pinned"] for n in moved), steps
        serve_until(d, lambda r: r["sampled"] >= 200)
        assert d.get(PATH).json()["plan"] == plan
        assert "below 0.99999" in d.output() and all(f"layer '{n}' runs in fp32" in d.output() for n in moved), d.output()


def test_pins_are_left_alone():
    with serving.Daemon("--precision", "int8", "--shadow-rate", "1") as d:
        assert change(d, {"precision": {"fc1": "int8", "conv2": "int8"}, "target_cosine": 0.9999999}).status == 200
        serve_until(d, lambda r: r["sampled"] >= 40 and len(r["layers"]) == 2)
        assert {n for n, s in layers(d).items() if s["precision"] == "int8"} == {"fc1", "conv2"}, layers(d)


def test_a_bad_target_is_refused():
    with serving.Daemon() as d:
        assert change(d, {"target_cosine": 1}).status == 400


sys.exit(serving.run([test_the_target_is_met_and_kept, test_pins_are_left_alone, test_a_bad_target_is_refused]))
