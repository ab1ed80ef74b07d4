#!/usr/bin/env python3
"""`compat` and the entropy search against the packages installed here: recorded afresh, compared by
tests/unit/test_observers and tests/unit/test_estimate.

Fresh: a new seed at each run, which a failure names. What is not installed is skipped and named."""
# timeout: 600
# builds: plain
import importlib.util
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NEEDS = {"torch": ["torch"], "torch_fused": ["torch"], "tf": ["tensorflow"], "ort": ["onnxruntime", "onnx"],
         "entropy": ["onnxruntime", "onnx"]}


def compare(name, seed, folder):
    file = os.path.join(folder, name + ".txt")
    script, more, test, variable = ("observers.py", ["--only", name], "test_observers", "OBSERVER_STREAMS")
    if name == "entropy":
        script, more, test, variable = ("entropy.py", [], "test_estimate", "ENTROPY_HISTOGRAMS")
    subprocess.run([sys.executable, os.path.join(ROOT, "tests/reference", script), *more, "--seed", str(seed), "--out", file],
                   check=True, stdout=subprocess.DEVNULL)
    program = os.path.join(os.environ.get("TEST_BUILD", os.path.join(ROOT, "build")), "tests/unit", test)
    run = subprocess.run([os.path.abspath(program)], env={**os.environ, variable: file}, text=True, capture_output=True,
                         check=False)
    if run.returncode:
        print(f"{name}, seed {seed}:\n{run.stdout}{run.stderr}")
    return run.returncode == 0


def main():
    seed, passed, failed, skipped = time.time_ns() % 1000000, 0, 0, []
    with tempfile.TemporaryDirectory(prefix="quantd-observers-") as folder:
        for name, modules in NEEDS.items():
            missing = [m for m in modules if importlib.util.find_spec(m) is None]
            if missing:
                skipped.append(f"{name} needs {' and '.join(missing)}")
            elif compare(name, seed, folder):
                passed += 1
            else:
                failed += 1
    if skipped:
        print("SKIP: " + "; ".join(skipped))
    if passed + failed == 0:
        sys.exit(77)
    print(f"{passed} passed, {failed} failed, {len(skipped)} skipped")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
