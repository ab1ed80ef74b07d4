#!/usr/bin/env python3
"""Runs the benchmarks and writes docs/BENCHMARKS.md from what they print; `make bench` calls it.

    python3 tests/bench/report.py [--build build] [--seconds 3] [MODEL-OR-FOLDER...]

Without models only the built-in one is measured. Everything is pinned to one core by taskset where that exists.
"""
import argparse
import datetime
import json
import os
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILTIN = "server/builtin/digits.onnx"
HEAD = """# Benchmarks

Made by `make bench` (`tests/bench/report.py`) on {date}; do not edit. Absolute times say little about another machine, or about this one on
another day: compare what stands in one table only.

| | |
|---|---|
| processor | {cpu}, {cores} of it |
| build | {version} |

## Kernels
One thread. G multiply-adds a second; in brackets the share of the instruction's own ceiling, measured in the same run by twelve independent
accumulators. INT8 writes u8 with equation (8) and observes minimum, maximum and clipping on the way. Shapes are m x n x k.

```
{kernels}
```

## Models
One thread, INT8 (mode `ema`) and FP32 of quantd in turn on the same inputs; `real` inputs come with the model, `random` ones are made up.

| model | inputs | INT8 median ms | FP32 median ms | INT8 / FP32 | p99 / median, INT8 |
|---|---|---|---|---|---|
{models}

## Rules
- Compare in one run, interleaved, medians, pinned to a core; ratios, not absolute times.
- A benchmark uses its results; a compiler removes what nobody reads.
- Kernel folders are compiled with `-O2 -fno-tree-vectorize -fno-schedule-insns2`: with gcc 12's vectorizer on, the accumulators of a
  large tile are spilled to the stack and the kernel runs at half its speed. Look at the inner loop's disassembly when you change one.
"""


def run(command, pinned=True):
    pin = ["taskset", "-c", "0"] if pinned and shutil.which("taskset") else []
    return subprocess.run(pin + command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip()


def processor():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    return (names or ["unknown"])[0], len(names) or os.cpu_count()


def model_rows(build, seconds, models):
    out = run([f"{build}/quantd", "bench", "--json", "--precision", "int8,fp32", "--threads", "1", "--seconds", str(seconds), *models])
    by_model = {}
    for row in json.loads(out):
        by_model.setdefault(row["model"], {})[row["precision"]] = row
    lines = []
    for name, rows in by_model.items():
        int8, fp32 = rows["int8"], rows["fp32"]
        lines.append(f"| {name} | {int8['inputs']} | {int8['median_us'] / 1000:.3f} | {fp32['median_us'] / 1000:.3f} | "
                     f"{int8['median_us'] / fp32['median_us']:.2f} | {int8['p99_us'] / int8['median_us']:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="measure, and write docs/BENCHMARKS.md")
    parser.add_argument("--build", default="build")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("models", nargs="*")
    options = parser.parse_args()
    cpu, cores = processor()
    version = " ".join(run([f"{options.build}/quantd", "version"]).split("\n")[0:3]).split()
    text = HEAD.format(date=datetime.date.today().isoformat(), cpu=cpu, cores=cores, version=" ".join(version),
                       kernels=run([f"{options.build}/tests/bench/bench_kernels"]),
                       models=model_rows(options.build, options.seconds, [BUILTIN, *options.models]))
    with open(os.path.join(ROOT, "docs", "BENCHMARKS.md"), "w", encoding="utf-8") as f:
        f.write(text)
    print(text)


if __name__ == "__main__":
    main()
