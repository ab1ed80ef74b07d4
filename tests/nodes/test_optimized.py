#!/usr/bin/env python3
"""What onnxruntime's optimizer and quantizers make of a model, against onnxruntime on the same file: two small models
(optimized_models.py), and with ZOO=folder some of its models too. Files whose layout is of one machine only (level "all" of
a convolutional network) are to be refused by name.

    test_optimized.py [part-of-a-name ...]"""
import glob
import logging
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from test_contrib import judge, write  # noqa: E402  (ends with status 77 when a package is missing)

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from onnx import numpy_helper  # noqa: E402

try:
    from onnxruntime import quantization as quant
except ImportError as error:
    print(f"SKIP: onnxruntime.quantization needs {error.name or error}")
    sys.exit(77)

import optimized_models  # noqa: E402

ZOO = ("mobilenetv2", "minilm_l6", "ppocrv4_rec")
LEVELS = {"basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
          "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL}


def session(path, level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL, save=None):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    if save:
        options.optimized_model_filepath = save
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Reader(quant.CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def small(root):
    """{name: (path, feeds)}"""
    found = {}
    for name, make in (("cnn", optimized_models.cnn), ("transformer", optimized_models.transformer)):
        model, feed = make()
        random = np.random.default_rng(11)
        path = os.path.join(root, name + ".onnx")
        onnx.save(model, path)
        found[name] = path, [feed(random) for _ in range(4)]
    return found


def zoo(folder):
    found = {}
    for name in ZOO:
        path = os.path.join(folder, name, "model.onnx")
        if not os.path.exists(path):
            continue
        names = [i.name for i in session(path).get_inputs()]
        feeds = []
        for place in sorted(glob.glob(os.path.join(folder, name, "test_data_set_*")))[:2]:
            tensors = [onnx.load_tensor(p) for p in sorted(glob.glob(os.path.join(place, "input_*.pb")))]
            feeds.append({t.name if t.name in names else names[i]: numpy_helper.to_array(t) for i, t in enumerate(tensors)})
        found[name] = path, feeds
    return found


def made(root, name, path, feeds):
    """(what was done, its file, tolerances) one after the other."""
    # Files that are integers in part: where a product falls between two steps, the order of a float sum decides, and each
    # layer makes more of it. Two levels of onnxruntime itself are .993 apart; minilm_l6 in 8 bits is .87 from its floats.
    exact, loose = ["--cosine", ".99999"], ["--cosine", ".93" if name == "minilm_l6" else ".99"]
    for level in LEVELS:
        out = os.path.join(root, f"{name}-{level}.onnx")
        session(path, LEVELS[level], out)
        yield f"{name} {level}", out, exact
    clean = os.path.join(root, f"{name}-clean.onnx")
    try:
        quant.shape_inference.quant_pre_process(path, clean, skip_symbolic_shape=True)
    except Exception as error:
        print(f"{name}: quantized without preparation: {str(error).splitlines()[0][:100]}")
        clean = path
    out = os.path.join(root, f"{name}-dynamic.onnx")
    quant.quantize_dynamic(clean, out, weight_type=quant.QuantType.QInt8, reduce_range=True)
    yield f"{name} dynamic", out, loose
    by_channel = next(o.version for o in onnx.load(clean, load_external_data=False).opset_import if not o.domain) >= 13
    # A sum with a mask of -10000 in 8 bits has steps that Softmax makes chaos of: there a rounding decides.
    types = ["Conv", "MatMul", "Gemm"] if name in ("minilm_l6", "ppocrv4_rec") else None
    for form in (quant.QuantFormat.QDQ, quant.QuantFormat.QOperator):
        out = os.path.join(root, f"{name}-{form.name}.onnx")
        quant.quantize_static(clean, out, Reader(feeds), quant_format=form, weight_type=quant.QuantType.QInt8,
                              op_types_to_quantize=types, reduce_range=True,
                              per_channel=by_channel and form == quant.QuantFormat.QDQ)
        yield f"{name} static {form.name}", out, loose
    for kind in ("dynamic", "QDQ", "QOperator"):  # quantized, then optimized
        for level in ("extended", "all"):
            out = os.path.join(root, f"{name}-{kind}-{level}.onnx")
            session(os.path.join(root, f"{name}-{kind}.onnx"), LEVELS[level], out)
            yield f"{name} {kind}, {level}", out, loose


def foreign(model):
    """Contrib operators of a file."""
    return sorted({f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in ("", "ai.onnx")})


def one(root, title, path, tolerances, feed):
    folder = os.path.join(root, title.replace(" ", "_").replace(",", ""))
    model = onnx.load(path)
    names = foreign(model)
    results = session(path).run(None, feed)
    write(folder, model, {i.name: feed[i.name] for i in model.graph.input if i.name in feed}, results)
    good, lines = judge(folder, (1, 1e6), more=tolerances)
    if any(n.startswith("com.microsoft.nchwc") for n in names):
        good = not good and any("com.microsoft.nchwc" in line for line in lines)
    print(f"{'ok' if good else 'FAIL'} {title}: {' '.join(n.rsplit('.', 1)[1] for n in names) or 'standard operators'}"
          + ("" if good else " | " + " | ".join(lines[:2])))
    return good


def main():
    logging.disable(logging.WARNING)  # the quantizer's advice
    parts, verdicts = sys.argv[1:], []
    with tempfile.TemporaryDirectory(prefix="optimized-") as root:
        models = small(root) | (zoo(os.environ["ZOO"]) if os.environ.get("ZOO") else {})
        for name, (path, feeds) in models.items():
            if parts and not any(p in name for p in parts):
                continue
            for title, file, tolerances in made(root, name, path, feeds):
                verdicts.append(one(root, title, file, tolerances, feeds[0]))
    print(f"{sum(verdicts)} passed, {len(verdicts) - sum(verdicts)} failed")
    sys.exit(0 if verdicts and all(verdicts) else 1)


main()
