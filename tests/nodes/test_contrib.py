#!/usr/bin/env python3
"""Contrib operators, one small graph each (contrib_cases.py): `quantd test` in FP32 against what onnxruntime computes with
its own optimizer off. A case that onnxruntime itself refuses is a failure of this
test.

    test_contrib.py [part-of-a-name ...]"""
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
QUANTD = os.environ.get("QUANTD", os.path.join(os.path.dirname(os.path.dirname(HERE)), "build", "quantd"))

try:
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper
except ImportError as error:
    print(f"SKIP: {error.name or error}: this test compares with onnxruntime")
    sys.exit(77)

sys.path.insert(0, HERE)
import contrib_cases  # noqa: E402

OPSET = 16  # before the standard had LayerNormalization


def model_of(nodes, inputs, constants, outputs):
    def info(name, array):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
    graph = helper.make_graph(nodes, "case", [info(n, a) for n, a in inputs.items()],
                              [onnx.ValueInfoProto(name=o) for o in outputs],
                              [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()])
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", OPSET),
                                                                 helper.make_opsetid(contrib_cases.MS, 1)])


def expected(model, inputs, own):
    """What onnxruntime computes, or the case's own function; this tells the outputs' types, which the model then declares."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    if own:
        results = own[0](*inputs.values())
    else:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(None, inputs)
    for output, array in zip(model.graph.output, results):
        output.CopyFrom(helper.make_tensor_value_info(output.name, helper.np_dtype_to_tensor_dtype(array.dtype),
                                                      [None] * array.ndim))
    return results


def write(folder, model, inputs, results):
    """The layout of the standard's node tests."""
    place = os.path.join(folder, "test_data_set_0")
    os.makedirs(place)
    with open(os.path.join(folder, "model.onnx"), "wb") as f:
        f.write(model.SerializeToString())
    outputs = {o.name: a for o, a in zip(model.graph.output, results)}
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for i, (name, array) in enumerate(arrays.items()):
            with open(os.path.join(place, f"{kind}_{i}.pb"), "wb") as f:
                f.write(numpy_helper.from_array(np.asarray(array), name).SerializeToString())


def judge(folder, tolerance, more=()):
    run = subprocess.run([QUANTD, "test", "--precision", "fp32", "--rtol", str(tolerance[0]), "--atol", str(tolerance[1]),
                          *more, folder], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    lines = run.stdout.strip().splitlines() or ["nothing was printed"]
    return run.returncode == 0 and lines[-1].startswith("1 passed, 0 failed, 0 skipped"), lines


def main():
    parts, failed, passed = sys.argv[1:], 0, 0
    with tempfile.TemporaryDirectory(prefix="contrib-") as root:
        for name, (tolerance, case, *own) in contrib_cases.CASES.items():
            if parts and not any(p in name for p in parts):
                continue
            nodes, inputs, constants, outputs = case()
            model = model_of(nodes, inputs, constants, outputs)
            try:
                results = expected(model, inputs, own)
            except Exception as error:  # its own classes, one per kind of refusal
                good, lines = False, [f"onnxruntime: {str(error).splitlines()[0][:300]}"]
            else:
                folder = os.path.join(root, name)
                write(folder, model, inputs, results)
                good, lines = judge(folder, tolerance)
            passed += good
            failed += not good
            if not good:
                print(f"FAIL {name}: " + " | ".join(lines[:2]))
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
