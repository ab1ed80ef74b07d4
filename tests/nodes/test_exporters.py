#!/usr/bin/env python3
"""Models as exporters write them, against onnxruntime on the same file with its optimizer off: PyTorch's (dynamo) in
exported.tar.xz, tf2onnx's in exported_tf.tar.xz (make_exported.py and make_exported_tf.py have written them, and write them
anew where PyTorch and TensorFlow are installed), and graphs in tf2onnx's older style (tf_style.py). In FP32 by cosine and by the largest error, in INT8 by cosine alone.

    test_exporters.py [part-of-a-name ...]"""
import json
import os
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from test_contrib import QUANTD, write  # noqa: E402  (ends with status 77 when a package is missing)

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

import tf_style  # noqa: E402

COSINE, ERROR = .99999, 1e-3  # of the output's range
# In 8 bits networks of a dozen random channels are coarse, and some outputs say nothing about quantization: a direction
# taken from a small difference, an index.
INT8_COSINE = .98
INT8_LOOSE = {}


def feeds_of(model):
    """The inputs of each trial."""
    said = {p.key: json.loads(p.value) for p in model.metadata_props if p.key in ("sizes", "ranges")}
    random = np.random.default_rng(5)
    constants = {c.name for c in model.graph.initializer}
    for sizes in said.get("sizes") or [{}]:
        feeds = {}
        for value in model.graph.input:
            if value.name in constants:
                continue
            tensor = value.type.tensor_type
            shape = [d.dim_value or sizes.get(d.dim_param) or sizes[""] for d in tensor.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            low, high = said.get("ranges", {}).get(value.name, (0, 2))
            feeds[value.name] = (random.integers(low, high, shape) if dtype.kind in "iub"
                                 else random.standard_normal(shape)).astype(dtype)
        yield feeds


def session(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def judge(folder, *arguments):
    run = subprocess.run([QUANTD, "test", *arguments, folder], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         timeout=120)
    lines = run.stdout.strip().splitlines() or ["nothing was printed"]
    return "" if run.returncode == 0 and lines[-1].startswith("1 passed, 0 failed, 0 skipped") else lines[0][:300]


def one(root, name, model):
    """What is wrong, or nothing."""
    folder, reach = os.path.join(root, name), np.inf
    judge_ort = session(model)
    for i, feeds in enumerate(feeds_of(model)):
        results = judge_ort.run(None, feeds)
        floats = [r.astype(np.float64) for r in results if r.dtype.kind == "f" and r.size]
        reach = min([reach] + [float(r.max() - r.min()) for r in floats if r.size > 1 and r.max() > r.min()])
        write(os.path.join(folder, "set"), model, feeds, results)
        os.rename(os.path.join(folder, "set", "test_data_set_0"), os.path.join(folder, f"test_data_set_{i}"))
        os.rename(os.path.join(folder, "set", "model.onnx"), os.path.join(folder, "model.onnx"))
    worst = ERROR * (reach if np.isfinite(reach) else 1)
    return (judge(folder, "--cosine", str(COSINE)) or judge(folder, "--rtol", "0", "--atol", repr(worst))
            or judge(folder, "--precision", "int8", "--cosine", str(INT8_LOOSE.get(name, INT8_COSINE))))


def stored(kind, path):
    with tarfile.open(path) as archive:
        for member in archive:
            yield f"{kind}/{member.name.removesuffix('.onnx')}", onnx.load_from_string(archive.extractfile(member).read())


def anew(root, script):
    out = os.path.join(root, script + ".tar.xz")
    run = subprocess.run([sys.executable, os.path.join(HERE, script), out], text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, timeout=280)
    if run.returncode == 77:
        print("not exported anew: " + run.stdout.strip().removeprefix("SKIP: "))
    elif run.returncode:
        raise SystemExit(f"{script} failed:\n{run.stdout}")
    else:
        yield from stored("anew", out)


def models(root):
    """(name, model), and a line on what could not be tried."""
    yield from stored("torch", os.path.join(HERE, "exported.tar.xz"))
    yield from stored("tf2onnx", os.path.join(HERE, "exported_tf.tar.xz"))
    for name, make in tf_style.CASES.items():
        yield f"tf/{name}", make()
    yield from anew(root, "make_exported.py")
    yield from anew(root, "make_exported_tf.py")


def main():
    parts, failed, passed = sys.argv[1:], 0, 0
    with tempfile.TemporaryDirectory(prefix="exporters-") as root:
        for name, model in models(root):
            if parts and not any(p in name for p in parts):
                continue
            wrong = one(root, name, model)
            print(f"FAIL {name}: {wrong}" if wrong else f"ok {name}: "
                  + " ".join(sorted({n.op_type for n in model.graph.node})))
            failed += bool(wrong)
            passed += not wrong
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
