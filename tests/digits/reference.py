#!/usr/bin/env python3
"""Counts how many of the digits a model gets right under onnxruntime: the FP32 number to hold quantd's against.

    python3 tests/digits/reference.py --digits DIR [--model FILE] [--at-least N]

DIR is what fetch.py wrote. Needs numpy and onnxruntime (checked with 1.32.0). Exit 1 when fewer than N are right.
"""
import argparse
import os

import numpy as np
import onnxruntime

BUILTIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "server", "builtin", "digits.onnx")


def main():
    parser = argparse.ArgumentParser(description="accuracy of a digit model under onnxruntime")
    parser.add_argument("--digits", required=True, metavar="DIR")
    parser.add_argument("--model", default=BUILTIN, metavar="FILE")
    parser.add_argument("--at-least", type=int, default=0, metavar="N")
    options = parser.parse_args()
    x = np.load(os.path.join(options.digits, "digits_x.npy"))
    y = np.load(os.path.join(options.digits, "digits_y.npy"))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(options.model, settings, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"image": x})
    if not np.allclose(probabilities.sum(1), 1, atol=1e-5):
        raise SystemExit("the probabilities of a digit do not add up to 1")
    right = int((logits.argmax(1) == y).sum())
    print(f"{right} of {len(y)} right ({100 * right / len(y):.2f} %)")
    raise SystemExit(0 if right >= options.at_least else 1)


if __name__ == "__main__":
    main()
