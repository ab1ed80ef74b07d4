#!/usr/bin/env python3
"""Real models in FP32, against onnxruntime with its optimizer off: each data set of ZOO=folder, and where every input's
first dimension is open and of one name, the data sets that can be joined in one request too. Cosine and largest error as
tests/nodes/compare.py has them.

    ZOO=folder test_models.py [part-of-a-name ...]"""
# timeout: 1800
# builds: plain
import glob
import os
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "nodes"))

if not os.environ.get("ZOO"):
    print("SKIP: no ZOO=folder given: no real models were compared")
    sys.exit(77)

import compare  # noqa: E402  (ends with status 77 when a package is missing)

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402

MOST_SETS = 4  # of a model: the others differ in numbers only


def feeds_of(folder, names):
    for place in sorted(glob.glob(os.path.join(folder, "test_data_set_*")), key=lambda p: int(p.rsplit("_", 1)[1]))[:MOST_SETS]:
        tensors = [onnx.load_tensor(os.path.join(place, f"input_{i}.pb")) for i in range(len(glob.glob(place + "/input_*.pb")))]
        yield {t.name if t.name in names else names[i]: numpy_helper.to_array(t) for i, t in enumerate(tensors)}


def joined(model, feeds):
    """The data sets whose other dimensions agree with the first's, in one; None when the model takes no batch."""
    given = [i for i in model.graph.input if i.name in feeds[0]]
    leading = {i.type.tensor_type.shape.dim[0].dim_param if i.type.tensor_type.shape.dim else "" for i in given}
    if len(leading) != 1 or not leading.pop():
        return None
    alike = [f for f in feeds if all(f[n].shape[1:] == feeds[0][n].shape[1:] for n in f)]
    alike = alike if len(alike) > 1 else [feeds[0], feeds[0]]
    return {n: np.concatenate([f[n] for f in alike]) for n in feeds[0]}


def one(root, path):
    """(what is wrong or "", number of data sets, batch or 0)"""
    model, reference = onnx.load(path), compare.session(path)
    feeds = list(feeds_of(os.path.dirname(path), [i.name for i in reference.get_inputs()]))
    batch = joined(model, feeds)
    given = feeds + ([batch] if batch else [])
    wrong = compare.judge_fp32(root, os.path.basename(os.path.dirname(path)), model, given,
                               [reference.run(None, one) for one in given])
    return wrong, len(feeds), len(next(iter(batch.values()))) if batch else 0


def main():
    parts, passed, failed = sys.argv[1:], 0, 0
    for path in sorted(glob.glob(os.path.join(os.environ["ZOO"], "*", "model.onnx"))):
        name = os.path.basename(os.path.dirname(path))
        if parts and not any(p in name for p in parts):
            continue
        with tempfile.TemporaryDirectory(prefix="zoo-") as root:
            wrong, sets, batch = one(root, path)
        print(f"FAIL {name}: {wrong}" if wrong else f"ok {name}: {sets} data sets" + (f", and {batch} rows at once" if batch else ""))
        failed += bool(wrong)
        passed += not wrong
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
