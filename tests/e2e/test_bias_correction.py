#!/usr/bin/env python3
"""Biases are corrected by the inputs that layers see: an epoch brings it, an earlier epoch is replayed without it, and it can be
turned off."""
import sys
import time

import serving
from digit_requests import PATH, change, infer, teach

ACCURACY = "/v2/models/digits/accuracy"


def report(daemon):
    return daemon.get(PATH).json()["bias_correction"]


def wait_for(daemon, made, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and report(daemon)["made"] < made:
        time.sleep(0.02)
    assert report(daemon)["made"] >= made, report(daemon)


def logits(response):
    assert response.status == 200, response.text
    return response.json()["outputs"][0]["data"]


def test_an_epoch_brings_it():
    with serving.Daemon("--precision", "int8", "--epochs-kept", "64") as d:
        images = serving.digits()
        assert report(d) == {"enabled": True, "layers": 0, "requests": 0, "made": 0, "compared": 0, "undone": False}
        before = None
        for i in range(16):
            before = infer(d, images[i % len(images)][1])
        epoch = before.json()["parameters"]["quant_epoch"]
        pixels = images[15 % len(images)][1]
        wait_for(d, 1)
        assert report(d)["layers"] >= 3 and report(d)["requests"] == 16, report(d)
        after = infer(d, pixels)
        assert after.json()["parameters"]["quant_epoch"] > epoch
        assert logits(after) != logits(before)
        again = infer(d, pixels, {"quant_epoch": epoch})
        assert logits(again) == logits(before) and again.json()["parameters"]["quant_epoch"] == epoch
        assert "biases of" in d.output()


def test_reset_and_off():
    with serving.Daemon("--precision", "int8") as d:
        teach(d, serving.digits(), 3)
        wait_for(d, 1)
        assert d.post("/v2/models/digits/ranges/reset", {}).status == 200
        assert report(d)["layers"] == 0 and report(d)["requests"] == 0
        assert change(d, {"bias_correction": False}).status == 200
        made = report(d)["made"]
        teach(d, serving.digits(), 3)
        time.sleep(0.2)
        now = report(d)
        assert (now["enabled"], now["layers"], now["made"]) == (False, 0, made), now  # inputs are still seen, for smoothing
        assert change(d, {"bias_correction": "yes"}).status == 400


def test_it_costs_no_accuracy():
    found = {}
    for word in ("true", "false"):
        with serving.Daemon("--precision", "int8", "--shadow-rate", "1", f"--bias-correction={word}") as d:
            teach(d, serving.digits(), 8)
            deadline = time.monotonic() + 60
            while d.get(ACCURACY).json()["sampled"] < 40 and time.monotonic() < deadline:
                teach(d, serving.digits(), 1)
            found[word] = d.get(ACCURACY).json()["cosine"]["mean"]
    assert found["true"] > found["false"] - 2e-4, found


sys.exit(serving.run([test_an_epoch_brings_it, test_reset_and_off, test_it_costs_no_accuracy]))
