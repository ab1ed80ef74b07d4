#!/usr/bin/env python3
"""Quantized files, served by a daemon, against onnxruntime on the same file, its optimizer off (real numbers) and on (its
own integer kernels): every output to one quantum, and /quantization says that the layers ran in integers. With ZOO=folder
what onnxruntime's quantizer makes of real models too.

    test_qdq.py [part-of-a-name ...]"""
import json
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "e2e")]

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
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


def small(root, parts):
    cases = {n: c for n, c in qdq_models.CASES.items() if not parts or any(p in n for p in parts)}
    flags, found = ["--precision", "auto"], {}
    for i, (name, (make, count, kernels)) in enumerate(cases.items()):
        model, feeds, quanta = make()
        path = os.path.join(root, f"m{i}.onnx")
        onnx.save(model, path)
        found[name] = f"m{i}", path, feeds, quanta, count, kernels
        flags += ["--model", f"m{i}={path}"]
    bad = 0
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
            good = worst <= 1.001 and ran == count
            bad += not good
            print(f"{'ok' if good else 'FAIL'} {name}: {worst:.3f} quanta, {ran} of {count} layers in integers")
            if not good:
                print("    " + "; ".join(f"{r['node']} {r['op']} {r['precision']} {r['reason']}" for r in rows))
    return bad


def main():
    with tempfile.TemporaryDirectory(prefix="qdq-") as root:
        bad = small(root, sys.argv[1:])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
