#!/usr/bin/env python3
"""1,000 real digits through the daemon: INT8 accuracy against FP32's, and the ranges endpoint against an independent
recomputation in numpy (tests/reference/intnet.py): the integer network by the contract's formulas, observations folded by hand."""
import os
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests", "reference")]
try:
    import numpy as np
    import onnx
except ImportError as missing:
    print(f"SKIP: {missing}")
    sys.exit(77)
import intnet  # noqa: E402
import serving  # noqa: E402
from binary import infer  # noqa: E402


def check_ranges(report, learner):
    """1e-5 relative on the graph's input, 1e-3 on inner sites, equal counts, the epoch in force to the bit."""
    assert report["requests"] == learner.sites["image"].n, report["requests"]
    assert report["epoch"] == learner.epoch_id, (report["epoch"], learner.epoch_id)
    by_name = {t["name"]: t for t in report["tensors"]}
    assert list(by_name) == list(learner.sites), list(by_name)
    for name, site in learner.sites.items():
        t, width = by_name[name], max(site.hi, 0) - min(site.lo, 0)
        tolerance = (1e-5 if name == "image" else 1e-3) * width
        assert abs(t["ema_min"] - site.lo) <= tolerance and abs(t["ema_max"] - site.hi) <= tolerance, (name, t, vars(site))
        assert t["observations"] == site.n and t["elements"] == site.elements, (name, t, vars(site))
        assert t["clipped_low"] + t["clipped_high"] == site.clipped, (name, t, site.clipped)
        assert t["guarded"] == site.guarded, (name, t, site.guarded)
        scale, zero = intnet.qparams(*learner.epoch[name])
        assert struct.pack("<f", t["scale"]) == struct.pack("<f", float(scale)) and t["zero_point"] == zero, (name, t, scale, zero)


def main():
    out = os.environ.get("DIGITS", os.path.join(ROOT, "build", "digits"))
    subprocess.run([sys.executable, os.path.join(ROOT, "tests", "digits", "fetch.py"), "--out", out], check=True)
    x, y = np.load(os.path.join(out, "digits_x.npy")), np.load(os.path.join(out, "digits_y.npy"))
    net = intnet.IntNet(onnx.load(os.path.join(ROOT, "server", "builtin", "digits.onnx")))
    learner = intnet.Learner(net.sites)
    right = right_fp32 = different = 0
    with serving.Daemon("--bias-correction=false") as d:
        for i, image in enumerate(x):
            expected, seen = net.run(image, learner.epoch)
            logits, parameters = infer(d, image[None])
            assert parameters["quant_epoch"] == learner.epoch_id, (i, parameters, learner.epoch_id)
            assert parameters["quant_guarded"] == sum(s[4] for s in seen.values()), (i, parameters)
            different += logits[0].tobytes() != expected.astype("<f4").tobytes()
            learner.fold(seen)
            right += int(logits[0].argmax() == y[i])
        check_ranges(d.get("/v2/models/digits/ranges").json(), learner)
        for start in range(0, len(x), 50):
            logits, _ = infer(d, x[start:start + 50], {"quant_precision": "fp32", "quant_observe": False})
            right_fp32 += int((logits.argmax(1) == y[start:start + 50]).sum())
    n = len(x)
    print(f"{n} digits: INT8 {100 * right / n:.2f} %, FP32 {100 * right_fp32 / n:.2f} %; "
          f"{different} answers differ from the recomputation in any bit; epoch {learner.epoch_id}")
    assert n >= 1000 and abs(right - right_fp32) <= 0.003 * n, "INT8 accuracy is more than 0.3 points from FP32's"
    assert different == 0, "the integer network and its recomputation must agree to the bit"


if __name__ == "__main__":
    main()
