#!/usr/bin/env python3
"""target_cosine and target_sqnr_db: layers leave INT8 until measured answers are close enough, then nothing changes any more; every
change is listed; pins are left alone; a restart goes on."""
import sys
import tempfile
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
        report = serve_until(d, lambda r: r["sampled"] >= 150)  # of one plan
        assert report["cosine"]["mean"] >= TARGET, report
        steps, plan = layers(d), d.get(PATH).json()["plan"]
        moved = [n for n, s in steps.items() if s["precision"] != "int8"]
        assert moved and all("target_cosine" in steps[n]["reason"] and not steps[n]["pinned"] for n in moved), steps
        serve_until(d, lambda r: r["sampled"] >= 400)
        assert d.get(PATH).json()["plan"] == plan
        changes = d.get(PATH).json()["changes"]
        first, last = {c["node"]: c for c in reversed(changes)}, {c["node"]: c for c in changes}
        assert set(moved) <= set(first) and all(last[n]["to"] == steps[n]["precision"] for n in last), changes
        assert all(c["from"] == "int8" and c["to"] != "int8" and "is below 0.99999" in c["reason"] for c in first.values()), changes
        now = time.time() * 1000
        assert all(now - 600e3 < c["unix_ms"] <= now for c in changes) and changes == sorted(changes, key=lambda c: c["unix_ms"])
        assert all(f"layer '{c['node']}' runs in {c['to']} from now on" in d.output() for c in changes), d.output()


def test_decibels():
    with serving.Daemon("--precision", "int8", "--shadow-rate", "1", "--target-sqnr-db", "55") as d:
        report = serve_until(d, lambda r: r["sampled"] >= 64)
        assert report["sqnr_db"] >= 55 and {s["precision"] for s in layers(d).values()} != {"int8"}, report
        assert "dB to FP32" in d.get(PATH).json()["changes"][0]["reason"]


def test_an_easier_target_brings_layers_back():
    with serving.Daemon("--precision", "int8", "--shadow-rate", "1", "--target-cosine", str(TARGET)) as d:
        serve_until(d, lambda r: r["sampled"] >= 24 and (r["cosine"]["mean"] or 0) >= TARGET)
        moved = {n for n, s in layers(d).items() if s["precision"] != "int8"}
        assert change(d, {"target_cosine": 0.99}).status == 200
        serve_until(d, lambda r: r["sampled"] >= 16 and any(layers(d)[n]["precision"] == "int8" for n in moved))  # where that saves time
        last = d.get(PATH).json()["changes"][-1]
        assert last["from"] != "int8" and last["to"] == "int8" and "clearly above 0.99" in last["reason"], last


def test_a_restart_goes_on():
    with tempfile.TemporaryDirectory() as folder:
        flags = ("--precision", "int8", "--shadow-rate", "1", "--target-cosine", str(TARGET), "--state-dir", folder)
        with serving.Daemon(*flags) as d:
            serve_until(d, lambda r: r["sampled"] >= 24 and (r["cosine"]["mean"] or 0) >= TARGET)
            before = d.get(PATH).json()["plan"]
        with serving.Daemon(*flags) as d:
            assert d.get(PATH).json()["plan"] == before


def test_pins_are_left_alone():
    with serving.Daemon("--precision", "int8", "--shadow-rate", "1") as d:
        assert change(d, {"precision": {"fc1": "int8", "conv2": "int8"}, "target_cosine": 0.9999999}).status == 200
        serve_until(d, lambda r: r["sampled"] >= 40 and len(r["layers"]) == 2)
        assert {n for n, s in layers(d).items() if s["precision"] == "int8"} == {"fc1", "conv2"}, layers(d)


def test_changes_by_hand_are_listed():
    with serving.Daemon("--precision", "int8") as d:
        assert d.get(PATH).json()["changes"] == []
        assert change(d, {"precision": {"fc1": "fp32"}}).status == 200
        assert change(d, {"precision": {"fc1": "auto"}}).status == 200
        listed = [(c["node"], c["from"], c["to"], c["reason"]) for c in d.get(PATH).json()["changes"]]
        assert listed == [("fc1", "int8", "fp32", "pinned to fp32"), ("fc1", "fp32", "int8", "linear layer with constant weights")], listed
        for _ in range(160):  # the list is bounded
            assert change(d, {"precision": {"fc1": "fp32"}}).status == 200
            assert change(d, {"precision": {"fc1": "auto"}}).status == 200
        assert len(d.get(PATH).json()["changes"]) == 256


def test_requests_are_measured_until_the_plan_is_known():
    with serving.Daemon("--precision", "int8", "--target-cosine", "0.99") as d:
        counts = []
        for _ in range(200):  # no rate was asked for, and the target is met
            serve_until(d, lambda r: True)
            time.sleep(0.05)
            counts.append(d.get(ACCURACY).json()["sampled"])
            if len(counts) > 3 and counts[-4] == counts[-1] >= 64:
                break
        assert counts[-4] == counts[-1] and 64 <= counts[-1] < 128, counts
        assert change(d, {"target_cosine": TARGET}).status == 200
        serve_until(d, lambda r: r["sampled"] >= 64 and r["cosine"]["mean"] >= TARGET)


def test_precision_auto_has_a_target():
    with serving.Daemon("--precision", "auto") as d:
        if all(s["precision"] == "fp32" for s in layers(d).values()):
            print("SKIP: every layer is faster in FP32 here")
            return
        serve_until(d, lambda r: r["sampled"] >= 16)
    with serving.Daemon("--precision", "auto", "--target-cosine", "0") as d:
        for _, pixels in serving.digits():
            assert infer(d, pixels).status == 200
        time.sleep(0.3)
        assert d.get(ACCURACY).json()["sampled"] == 0


def test_a_bad_target_is_refused():
    with serving.Daemon() as d:
        assert change(d, {"target_cosine": 1}).status == 400
        assert change(d, {"target_sqnr_db": -1}).status == 400
        assert change(d, {"target_sqnr_db": 40, "target_cosine": 0.9}).status == 400


sys.exit(serving.run([test_the_target_is_met_and_kept, test_decibels, test_an_easier_target_brings_layers_back, test_a_restart_goes_on,
                      test_pins_are_left_alone, test_changes_by_hand_are_listed, test_requests_are_measured_until_the_plan_is_known, test_precision_auto_has_a_target, test_a_bad_target_is_refused]))
