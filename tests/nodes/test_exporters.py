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

import compare  # noqa: E402  (ends with status 77 when a package is missing)

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx import helper  # noqa: E402

import tf_style  # noqa: E402

# Networks of a dozen random channels are coarse in 8 bits.
INT8_COSINE = .98


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


def one(root, name, model):
    """What is wrong, or nothing."""
    feeds, reference = list(feeds_of(model)), compare.session(model)
    wrong = compare.judge_fp32(root, name, model, feeds, [reference.run(None, given) for given in feeds])
    return wrong or compare.judge(os.path.join(root, "telling", name), "--precision", "int8", "--cosine", str(INT8_COSINE))


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
