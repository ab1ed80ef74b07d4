#!/usr/bin/env python3
"""Writes the 1,000 held-out real digits that the built-in model never saw in training.

    python3 tests/digits/fetch.py --out DIR

DIR/digits_x.npy  float32 [1000, 1, 28, 28], 0..1, the model's input `image`, C order, little endian
DIR/digits_y.npy  int64   [1000], the label of each

Needs python3, pip and numpy. Does nothing when DIR is complete; needs no network when the package was fetched
before. The package, its version and the split stand in server/builtin/dataset.py, the same that train.py uses.
"""
import argparse
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "server", "builtin"))
import dataset  # noqa: E402

COUNT = 1000


def complete(x_path, y_path):
    try:
        x = np.load(x_path, mmap_mode="r")
        y = np.load(y_path, mmap_mode="r")
    except (OSError, ValueError):
        return False
    return (x.shape == (COUNT, 1, dataset.HEIGHT, dataset.WIDTH) and x.dtype == np.float32
            and y.shape == (COUNT,) and y.dtype == np.int64)


def save(path, array):
    partial = f"{path}.{os.getpid()}.partial"  # a run that is stopped leaves no half file under the real name
    with open(partial, "wb") as out:
        np.save(out, array)
    os.replace(partial, path)


def main():
    parser = argparse.ArgumentParser(description="write the held-out digits as digits_x.npy and digits_y.npy")
    parser.add_argument("--out", required=True, metavar="DIR")
    out = parser.parse_args().out
    x_path, y_path = os.path.join(out, "digits_x.npy"), os.path.join(out, "digits_y.npy")
    if not complete(x_path, y_path):
        _, (pixels, labels) = dataset.split(*dataset.load())
        os.makedirs(out, exist_ok=True)
        save(x_path, dataset.as_input(pixels).astype("<f4"))
        save(y_path, labels.astype("<i8"))
        if not complete(x_path, y_path):
            raise SystemExit(f"{out}: the digits are not {COUNT} as they should be")
    print(f"{COUNT} held-out digits in {out}")


if __name__ == "__main__":
    main()
