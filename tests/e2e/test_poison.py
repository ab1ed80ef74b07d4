#!/usr/bin/env python3
"""Poisoned traffic: every fifth request is a hundred times too large, or full of infinities, NaNs or 1e38. Whoever sends good
requests in between loses less than 1 dB of closeness to FP32, in every mode and under every guard that answers."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import serving  # noqa: E402

try:
    import numpy as np
except ImportError as missing:
    print(f"SKIP: {missing}")
    sys.exit(77)
from binary import Refused, infer  # noqa: E402

IMAGES = np.array([pixels for _, pixels in serving.digits()], np.float32).reshape(-1, 1, 1, 28, 28)
ROUNDS, RANGES = 6, "/v2/models/digits/ranges"
FP32, QUIET = {"quant_precision": "fp32", "quant_observe": False}, {"quant_observe": False}


def poison(kind, k):
    image = IMAGES[k % len(IMAGES)].copy()
    if kind == 0:
        return image * 100
    image[0, 0, 3 + k % 20, 3:6] = (np.inf, np.nan, 1e38)[kind - 1]
    return image


def serve(daemon, poisoned):
    """Decibels of the good requests' answers against FP32, from the second round on."""
    signal = noise = 0.0
    for k in range(ROUNDS * len(IMAGES)):
        if poisoned and k % 4 == 3:
            try:
                infer(daemon, poison(k // 4 % 4, k))
            except Refused as refusal:
                assert refusal.status in (400, 422), refusal
        image = IMAGES[k % len(IMAGES)]
        got = infer(daemon, image)[0].astype(float)
        if k < len(IMAGES):
            continue
        want = infer(daemon, image, FP32)[0].astype(float)
        signal, noise = signal + (want ** 2).sum(), noise + ((got - want) ** 2).sum()
    for tensor in daemon.get(RANGES).json()["tensors"]:
        assert abs(tensor["ema_min"]) < 1e3 and abs(tensor["ema_max"]) < 1e3 and 0 < tensor["scale"] < 10, tensor
    return 10 * np.log10(signal / noise)


def check(*flags):
    found = []
    for poisoned in (False, True):
        with serving.Daemon("--precision", "int8", *flags) as d:
            found.append(serve(d, poisoned))
    print(f"{' '.join(flags)}: {found[0]:.2f} dB alone, {found[1]:.2f} dB beside poison")
    assert found[1] > found[0] - 1, (flags, found)


def test_moving_average():
    for guard in ("widen", "clip", "escalate"):
        check("--guard", guard)


def test_own_ranges():
    check("--mode", "request")


def test_symmetric():
    check("--activation-scheme", "symmetric")


sys.exit(serving.run([test_moving_average, test_own_ranges, test_symmetric]))
