#!/usr/bin/env python3
"""Records which thresholds ONNX Runtime's entropy calibration chooses for random histograms.

    python3 tests/reference/entropy.py [--seed N] [--out FILE]

One line per histogram: LEVELS BINS CHOSEN COUNT..., CHOSEN = bins right of the middle one within the chosen window.
tests/unit/test_estimate.c reads the file. Needs onnxruntime. It works in float32: histograms whose two best windows differ
by less than its rounding are left out."""
import argparse
import sys

import numpy as np
from onnxruntime.quantization import calibrate


def histograms(rng):
    for number in range(40):
        levels = int(rng.choice([8, 16, 32]))
        bins = 2 * int(rng.integers(levels // 2, 4 * levels)) + 1
        shape = number % 5
        samples = int(rng.choice([50, 1000, 100000]))
        x = [rng.normal(size=samples), rng.laplace(size=samples), abs(rng.normal(size=samples)),
             rng.standard_t(2, samples), rng.uniform(-1, 1, samples)][shape]
        top = np.abs(x).max()
        yield levels, np.histogram(x, bins, (-top, top))[0]
    yield 8, np.array([0] * 10 + [100] + [0] * 10)
    yield 8, np.array([1] + [0] * 9 + [1000] + [0] * 9 + [1])
    yield 8, np.zeros(21, dtype=np.int64)


def chosen(counts, levels):
    """ONNX Runtime's threshold in bins, or None where rounding decides."""
    bins, divergences, entropy = len(counts), [], calibrate.entropy
    edges = np.linspace(-bins, bins, bins + 1).astype(np.float32)
    collector = calibrate.HistogramCollector("entropy", False, bins, levels, 0, "same")
    wide = np.float32(4 * bins)
    calibrate.entropy = lambda p, q: divergences.append(float(entropy(p, q))) or divergences[-1]
    try:
        threshold = collector.get_entropy_threshold((counts, edges, -wide, wide), levels)
    finally:
        calibrate.entropy = entropy
    best = sorted(divergences)[:2]
    if len(best) == 2 and 0 < best[1] - best[0] < 1e-4 * best[1] + 1e-6:
        return None
    return bins // 2 - int(np.flatnonzero(edges == threshold[0])[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out")
    args = parser.parse_args()
    lines = []
    for levels, counts in histograms(np.random.default_rng(args.seed)):
        best = chosen(counts, levels)
        if best is not None:
            lines.append(f"{levels} {len(counts)} {best} " + " ".join(str(int(c)) for c in counts) + "\n")
    with open(args.out, "w", encoding="ascii") if args.out else sys.stdout as out:
        out.writelines(lines)


if __name__ == "__main__":
    main()
