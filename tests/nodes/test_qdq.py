#!/usr/bin/env python3
"""Quantized files, served by a daemon, against onnxruntime on the same file, its optimizer off (real numbers) and on (its
own integer kernels): every output to one quantum, and /quantization says that the layers ran in integers. With ZOO=folder
what onnxruntime's quantizer makes of real models too.

    test_qdq.py [part-of-a-name ...]"""
import glob
import json
import logging
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "e2e")]

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import numpy_helper
except ImportError as error:
    print(f"SKIP: {error.name or error}: this test compares with onnxruntime")
    sys.exit(77)

import qdq_models  # noqa: E402
import serving  # noqa: E402

TYPES = {"FP32": np.float32, "UINT8": np.uint8, "INT8": np.int8, "INT64": np.int64}
NAMES = {np.dtype(t): n for n, t in TYPES.items()}
OFF, ON = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


def session(path, level):
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = level, 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def infer(daemon, model, feed, outputs):
    body = b"".join(a.tobytes() for a in feed.values())
    header = json.dumps({"inputs": [{"name": n, "shape": list(a.shape), "datatype": NAMES[a.dtype],
                                     "parameters": {"binary_data_size": a.nbytes}} for n, a in feed.items()],
                         "outputs": [{"name": n, "parameters": {"binary_data": True}} for n in outputs]}).encode()
    answer = daemon.post(f"/v2/models/{model}/infer", header + body, {"Inference-Header-Content-Length": str(len(header))})
    assert answer.status == 200, answer.body[:500]
    size, found = int(answer.headers["Inference-Header-Content-Length"]), []
    rest = answer.body[size:]
    for tensor in json.loads(answer.body[:size])["outputs"]:
        n = tensor["parameters"]["binary_data_size"]
        found.append(np.frombuffer(rest[:n], TYPES[tensor["datatype"]]).reshape(tensor["shape"]))
        rest = rest[n:]
    return found


def layers(daemon, model):
    """(layers that run as the file says, every layer's row)"""
    rows = daemon.get(f"/v2/models/{model}/quantization").json()["steps"]
    return sum(r["precision"] == "int8" and r["reason"] == "quantized in the file" and r["op"] != "QuantizeLinear"
               for r in rows), rows


def difference(got, want, quantum):
    return float(np.max(np.abs(got.astype(np.float64) - want.astype(np.float64)))) / quantum


def small(root, parts, precision):
    """Layers run as the file says under `auto`; under any other precision the file's effect stays the same, to the 14 bits of
    weights in int16."""
    cases = {n: c for n, c in qdq_models.CASES.items() if not parts or any(p in n for p in parts)}
    flags, found, bad = ["--precision", precision], {}, 0
    for i, (name, (make, count, kernels)) in enumerate(cases.items()):
        model, feeds, quanta = make()
        path = os.path.join(root, f"m{i}.onnx")
        onnx.save(model, path)
        found[name] = f"m{i}", path, feeds, quanta, count, kernels and precision == "auto"
        flags += ["--model", f"m{i}={path}"]
    with serving.Daemon(*flags) as daemon:
        for name, (key, path, feeds, quanta, count, kernels) in found.items():
            worst = 0
            for level in [OFF] + [ON] * kernels:
                peer = session(path, level)
                outputs = [o.name for o in peer.get_outputs()]
                for feed in feeds:
                    pairs = zip(infer(daemon, key, feed, outputs), peer.run(None, feed), quanta)
                    worst = max([worst] + [difference(*p) for p in pairs])
            ran, rows = layers(daemon, key)
            good = worst <= (2.001 if precision == "int16" else 1.001) and (ran == count or precision != "auto")
            bad += not good
            print(f"{'ok' if good else 'FAIL'} {name}, {precision}: {worst:.3f} quanta, {ran} layers in integers")
            if not good:
                print(f"    {count} layers expected; " +
                      "; ".join(f"{r['node']} {r['op']} {r['precision']} {r['reason']}" for r in rows))
    return bad


def cosine(a, b):
    return float(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)))


def real(root, name, path, feeds):
    """Roundings that differ multiply from layer to layer (in minilm_l6 from one step of an attention's scores on: one more
    quantum there, and the sentence is another). So the closest answers must be onnxruntime's own, and none further from the
    network in full precision."""
    from onnxruntime import quantization as quant
    clean, bad, files = os.path.join(root, f"{name}.onnx"), 0, {}
    quant.shape_inference.quant_pre_process(path, clean, skip_symbolic_shape=True)
    for form in (quant.QuantFormat.QDQ, quant.QuantFormat.QOperator):
        for kind in (quant.QuantType.QUInt8, quant.QuantType.QInt8):
            key = f"{name}-{form.name}-{kind.name}".lower()
            files[key] = os.path.join(root, key + ".onnx")
            data = iter(feeds)
            reader = type("Reader", (quant.CalibrationDataReader,), {"get_next": lambda self: next(data, None)})()
            quant.quantize_static(clean, files[key], reader, quant_format=form, activation_type=kind, reduce_range=True,
                                  weight_type=quant.QuantType.QInt8, per_channel=form == quant.QuantFormat.QDQ,
                                  op_types_to_quantize=["MatMul"] if name == "minilm_l6" else None)
    flags = [part for key, file in files.items() for part in ("--model", f"{key}={file}")]
    with serving.Daemon("--precision", "auto", *flags) as daemon:
        for key, file in files.items():
            peer, exact, closest, lost = session(file, OFF), session(path, OFF), 0.0, 0.0
            first = [peer.get_outputs()[0].name]
            for feed in feeds:
                got, want, truth = infer(daemon, key, feed, first)[0], peer.run(first, feed)[0], exact.run(first, feed)[0]
                closest, lost = max(closest, cosine(got, want)), max(lost, cosine(want, truth) - cosine(got, truth))
            ran, rows = layers(daemon, key)
            all_ran = all(r["precision"] == "int8" for r in rows if r["op"] in ("Conv", "Gemm"))
            good = closest > .9992 and lost < .005 and ran > 30 and all_ran
            bad += not good
            print(f"{'ok' if good else 'FAIL'} {key}: cosine {closest:.5f}, {lost:.5f} lost, {ran} layers in integers")
    return bad


def zoo(folder, name):
    path = os.path.join(folder, name, "model.onnx")
    names, feeds = [i.name for i in session(path, OFF).get_inputs()], []
    for place in sorted(glob.glob(os.path.join(folder, name, "test_data_set_*")))[:4]:
        tensors = [onnx.load_tensor(p) for p in sorted(glob.glob(os.path.join(place, "input_*.pb")))]
        feeds.append({t.name if t.name in names else names[i]: numpy_helper.to_array(t) for i, t in enumerate(tensors)})
    return path, feeds


def main():
    parts, bad = sys.argv[1:], 0
    logging.disable(logging.WARNING)  # the quantizer's advice
    with tempfile.TemporaryDirectory(prefix="qdq-") as root:
        for precision in ("auto", "fp32", "int16"):
            bad += small(root, parts, precision)
        for name in ("mobilenetv2", "minilm_l6"):
            if os.path.exists(os.path.join(os.environ.get("ZOO", "-"), name)) and (not parts or name in parts):
                bad += real(root, name, *zoo(os.environ["ZOO"], name))
    print(f"{bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
