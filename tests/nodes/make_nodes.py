#!/usr/bin/env python3
"""Writes the standard's own tests of single operators, for the operators in engine/ops/ops.def, as folders that
`quantd test` reads (model.onnx, test_data_set_0/input_0.pb ...). Needs the pinned onnx package. Not for running them:
tests/nodes/check.py does that.

    make_nodes.py FOLDER [part-of-a-name ...]"""
import os
import re
import sys
import warnings

ONNX = "1.23.2"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def operators():
    """(domain, type) of every row of ops.def, and what plans do: control flow, and what is spelled in other operators."""
    with open(os.path.join(ROOT, "engine/ops/ops.def"), encoding="utf-8") as f:
        rows = set(re.findall(r'^QD_OP\("([^"]*)", "(\w+)"', f.read(), re.M))
    return rows | {("", "If"), ("", "Loop"), ("", "Scan"), ("ai.onnx.preview", "FlexAttention")}


def cases():
    """The package's test cases whose nodes are all ours."""
    import onnx
    from onnx.backend.test.case.node import collect_testcases
    if onnx.__version__ != ONNX:
        sys.exit(f"make_nodes: onnx {onnx.__version__} is installed, the tests are made by onnx=={ONNX}")
    ours = operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    for case in found:
        graph = case.model.graph
        if all((node.domain, node.op_type) in ours for node in graph.node):
            yield case


def proto(value, name):
    """A TensorProto, or None: sequences, optionals and the like are not tested."""
    import numpy
    import onnx
    if isinstance(value, onnx.TensorProto):
        return value
    if isinstance(value, (numpy.ndarray, numpy.generic)):
        return onnx.numpy_helper.from_array(numpy.asarray(value), name)
    return None


def write(case, folder):
    sets = []
    for inputs, outputs in case.data_sets:
        ins = [proto(v, i.name) for v, i in zip(inputs, case.model.graph.input)]
        outs = [proto(v, o.name) for v, o in zip(outputs, case.model.graph.output)]
        if None in ins or None in outs:
            return False
        sets.append((ins, outs))
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "model.onnx"), "wb") as f:
        f.write(case.model.SerializeToString())
    for i, (ins, outs) in enumerate(sets):
        place = os.path.join(folder, f"test_data_set_{i}")
        os.makedirs(place, exist_ok=True)
        for kind, tensors in (("input", ins), ("output", outs)):
            for j, tensor in enumerate(tensors):
                with open(os.path.join(place, f"{kind}_{j}.pb"), "wb") as f:
                    f.write(tensor.SerializeToString())
    return True


def make(folder, parts=()):
    """Returns the names written."""
    names = []
    for case in cases():
        if parts and not any(p in case.name for p in parts):
            continue
        if write(case, os.path.join(folder, case.name)):
            names.append(case.name)
    return names


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print(f"{len(make(sys.argv[1], sys.argv[2:]))} node tests in {sys.argv[1]}")
