#!/usr/bin/env python3
"""The Python client by example: reads handwritten digits, asks the built-in model of a quantd for all of them in one request,
and shows the ranges that it learned.

    build/quantd serve --listen 127.0.0.1:8080 &
    python3 clients/python/example.py http://127.0.0.1:8080 server/builtin/digits.json"""
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # not needed where the package is installed
from quantd_client import Client, QuantdError


def main(url, path):
    with open(path, encoding="ascii") as f:
        file = json.load(f)
    labels = np.array([digit["label"] for digit in file["digits"]])
    images = np.array([digit["pixels"] for digit in file["digits"]]) / file["scale"]
    images = images.reshape(-1, 1, file["height"], file["width"])
    with Client(url) as quantd:
        answer = quantd.infer("digits", image=images)
        seen = answer["logits"].argmax(axis=1)
        for label, digit in zip(labels, seen):
            print(f"a {label} was seen as {digit}")
        print(f"{(seen == labels).sum()} of {len(labels)} right, in {answer.precision} under epoch {answer.epoch}")
        # The same epoch again gives the same bytes, whatever was learned since.
        again = quantd.infer("digits", image=images, epoch=answer.epoch, observe=False)
        print("the same again:", again["logits"].tobytes() == answer["logits"].tobytes())
        ranges = quantd.ranges("digits")
        if isinstance(ranges, list):  # no pandas
            for row in ranges:
                print(f"{row['name']:24} {row['ema_min']:10.4f} .. {row['ema_max']:9.4f}  scale {row['scale']:.6g}")
        else:
            print(ranges[["ema_min", "ema_max", "scale", "zero_point", "observations", "clipped_ratio"]].to_string())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: example.py URL DIGITS.json")
    try:
        main(*sys.argv[1:])
    except (QuantdError, OSError) as why:
        sys.exit(f"example.py: {why}")
