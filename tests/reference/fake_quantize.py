#!/usr/bin/env python3
"""Records what PyTorch's fake_quantize answers, for tests/unit/test_fake.c to hold ours to.

    python3 tests/reference/fake_quantize.py [--seed N] [--out FILE] [--check FILE]

A case is a line of numbers (count, zero point, limits, scale) and two lines of floats as their bits in hexadecimal:
values, and what torch.fake_quantize_per_tensor_affine, or per_channel_affine for the cases of signed integers, makes of
them. --check runs the cases of a file again and fails when the package installed answers otherwise. Needs torch
(checked with 2.15.0). Values stay below 2^31 scales: beyond, PyTorch's conversion to an integer is undefined.
"""
import argparse
import sys

import numpy as np
import torch


def bits_of(values):
    return " ".join(f"{v:08x}" for v in np.asarray(values, np.float32).view(np.uint32))


def answers(x, scale, zero_point, low, high):
    x = torch.from_numpy(x)
    if low < 0:  # as weights have it: one channel of three
        three, scales = torch.stack([x, x, x]), torch.tensor([1.0, float(scale), 0.5])
        points = torch.full((3,), zero_point, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(three, scales, points, 0, low, high)[1].numpy()
    return torch.fake_quantize_per_tensor_affine(x, float(scale), zero_point, low, high).numpy()


def cases(seed):
    rng = np.random.default_rng(seed)
    for bits in range(2, 9):
        for signed in (False, True):
            for _ in range(12):
                most = 2 ** (bits - 1) - 1
                low, high = (-most, most) if signed else (0, 2 ** bits - 1)
                zero_point = 0 if signed else int(rng.integers(low, high + 1))
                scale = np.float32(np.exp(rng.uniform(-12, 6)))
                x = rng.normal(0, (high - low) / 3, 32).astype(np.float32) * scale
                x[:8] = (rng.integers(low - 3, high + 3, 8).astype(np.float32) - np.float32(0.5)) * scale  # halves
                x[8:12] = np.nextafter(x[:4], np.float32(1e30))
                x[12:15] = (0.0, scale * np.float32(1e6), -scale * np.float32(1e6))
                yield x, scale, zero_point, low, high


def read(path):
    with open(path, encoding="ascii") as file:
        lines = file.read().splitlines()
    for first, second, third in zip(lines[::3], lines[1::3], lines[2::3]):
        words = first.split()
        x, y = (np.array([int(w, 16) for w in line.split()], np.uint32).view(np.float32) for line in (second, third))
        scale = np.array([int(words[4], 16)], np.uint32).view(np.float32)[0]
        yield (x, scale, *map(int, words[1:4])), y


def main():
    parser = argparse.ArgumentParser(description="record or check PyTorch's fake_quantize")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", metavar="FILE")
    parser.add_argument("--check", metavar="FILE")
    options = parser.parse_args()
    if options.check:
        for case, want in read(options.check):
            if not np.array_equal(answers(*case), want):
                raise SystemExit(f"{options.check}: torch {torch.__version__} answers otherwise")
        return
    with open(options.out, "w", encoding="ascii") if options.out else sys.stdout as out:
        for x, scale, zero_point, low, high in cases(options.seed):
            y = answers(x, scale, zero_point, low, high)
            print(len(x), zero_point, low, high, bits_of([scale]), file=out)
            print(bits_of(x), bits_of(y), sep="\n", file=out)


if __name__ == "__main__":
    main()
