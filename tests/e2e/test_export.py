#!/usr/bin/env python3
"""What a model has learned goes out as a QDQ model and as other tools' tables, and comes back in. The built-in digits model, and
mobilenetv2 of ZOO where there is one.

The QDQ model is held to onnxruntime layer by layer: both get the same integers, 99.9 % of a layer's must agree to one quantum.
(From end to end rounding at ties grows from layer to layer in any network of integers: there cosines are compared.) Tensors
between layers are read from a copy of the model that has them as outputs, which is served by the same ranges."""
import glob
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import serving

HERE = os.path.dirname(os.path.abspath(__file__))
DIGITS = os.path.join(HERE, "..", "..", "server", "builtin", "digits.onnx")
M = "/v2/models/m"
FORMATS = ("quantd", "ort-calibration", "torch", "tf")
NAMES = {"float32": "FP32", "int64": "INT64", "int32": "INT32", "uint8": "UINT8", "bool": "BOOL"}
TYPES = {name: dtype for dtype, name in NAMES.items()}
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def infer(d, x, **parameters):
    """The outputs as arrays, and the answer's parameters."""
    head = json.dumps({"inputs": [{"name": k, "shape": list(v.shape), "datatype": NAMES[str(v.dtype)],
                                   "parameters": {"binary_data_size": v.nbytes}} for k, v in x.items()],
                       "parameters": {**parameters, "binary_data_output": True}}).encode()
    body = head + b"".join(np.ascontiguousarray(v).tobytes() for v in x.values())
    r = d.ask("POST", M + "/infer", body, {"Inference-Header-Content-Length": str(len(head))})
    assert r.status == 200, r.body[:300]
    at = int(r.headers["Inference-Header-Content-Length"])
    answer, out = json.loads(r.body[:at]), {}
    for o in answer["outputs"]:
        n = o["parameters"]["binary_data_size"]
        out[o["name"]] = np.frombuffer(r.body[at:at + n], TYPES[o["datatype"]]).reshape(o["shape"])
        at += n
    return out, answer["parameters"]


def digit_inputs():
    return [{"image": np.array(p, np.float32).reshape(1, 1, 28, 28)} for _, p in serving.digits()[:12]]


def zoo_inputs(folder, count):
    model, out = onnx.load(os.path.join(folder, "model.onnx")), []
    constants = {i.name for i in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in constants]
    for path in sorted(glob.glob(os.path.join(folder, "test_data_set_*")))[:count]:
        out.append({})
        for i, name in enumerate(names):
            with open(os.path.join(path, f"input_{i}.pb"), "rb") as f:
                out[-1][name] = numpy_helper.to_array(TensorProto.FromString(f.read()))
    return out


def models():
    """(name, path, inputs)"""
    yield "digits", DIGITS, digit_inputs()
    folder = os.path.join(os.environ.get("ZOO", "/nowhere"), "mobilenetv2")
    if os.path.exists(folder):
        yield "mobilenetv2", os.path.join(folder, "model.onnx"), zoo_inputs(folder, 6)
    else:
        print("mobilenetv2 was not tested: no ZOO with it")


def serve(path, *flags):
    return serving.Daemon("--model", f"m={path}", "--precision", "int8", "--guard", "clip", *flags)


def teach(d, inputs, rounds=3):
    for x in inputs * rounds:
        infer(d, x)


def session(model, optimize):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def cosine(a, b):
    a, b = a.ravel().astype(float), b.ravel().astype(float)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def export(d, form="qdq", **query):
    r = d.get(M + f"/export?format={form}" + "".join(f"&{k}={v}" for k, v in query.items()))
    assert r.status == 200, r.body
    return r


class Layers:
    """An exported model taken apart: every quantized tensor's integers are an output, and an input of what reads them."""

    def __init__(self, model):
        self.constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        self.pairs = {}  # tensor -> its integers' name
        makers = {o: n for n in model.graph.node for o in n.output}
        cut = onnx.ModelProto.FromString(model.SerializeToString())
        del cut.graph.output[:]
        self.scale, self.zero = {}, {}
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear":
                name, q = node.input[0], node.output[0]
                self.pairs[name] = q
                self.scale[name], self.zero[name] = (self.constants[node.input[i]] for i in (1, 2))
                kind = helper.np_dtype_to_tensor_dtype(self.zero[name].dtype)
                cut.graph.output.append(helper.make_tensor_value_info(q, kind, None))
                cut.graph.input.append(helper.make_tensor_value_info(q + "/given", kind, None))
        known = set(self.pairs.values())
        for node in cut.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in known:
                node.input[0] += "/given"
        self.cut = cut
        # Those that one linear layer makes of the integers of one tensor: everything else between is floats on both sides.
        self.single = {t: self.sources(t, makers) for t in self.pairs}
        self.single = {t: s.pop() for t, s in self.single.items() if len(s) == 1 and None not in s}

    def sources(self, tensor, makers):
        found, seen, stack, linear = set(), set(), [tensor], False
        while stack:
            node = makers.get(stack.pop())
            if node is None or id(node) in seen:
                found |= {None} if node is None else set()
                continue
            seen.add(id(node))
            if node.op_type == "DequantizeLinear" and node.input[0] not in self.constants:
                found.add(node.input[0])
                continue
            linear |= node.op_type in LINEAR
            stack += [i for i in node.input if i and i not in self.constants]
        return found if linear else {None}

    def quantize(self, name, real):
        info = np.iinfo(self.zero[name].dtype)
        return np.clip(np.rint(real / self.scale[name]) + int(self.zero[name]), info.min, info.max).astype(self.zero[name].dtype)


def with_outputs(path, tensors, to):
    model = onnx.load(path)
    have = {o.name for o in model.graph.output} | {i.name for i in model.graph.input}
    model.graph.output.extend(helper.make_tensor_value_info(t, TensorProto.FLOAT, None) for t in tensors if t not in have)
    onnx.save(model, to)


def test_layers_agree_with_onnxruntime():
    for name, path, inputs in models():
        for scheme in ("asymmetric", "symmetric") if name == "digits" else ("asymmetric",):
            flags = ("--activation-scheme", scheme, "--bias-correction=false")
            with serve(path, *flags) as d:
                teach(d, inputs)
                exported = onnx.load_from_string(export(d).body)
            onnx.checker.check_model(exported)
            layers = Layers(exported)
            assert layers.single, "no layer to compare"
            with tempfile.TemporaryDirectory() as folder:
                shown = os.path.join(folder, "shown.onnx")
                with_outputs(path, layers.pairs, shown)
                with serve(shown, *flags) as d:
                    given = d.ask("PUT", M + "/ranges", json.dumps(
                        {t: {"scale": float(layers.scale[t]), "zero_point": int(layers.zero[t])} for t in layers.pairs}))
                    assert given.status == 200, given.body
                    assert all(t["mode"] == "static" for t in d.get(M + "/ranges").json()["tensors"])
                    runs = [infer(d, x)[0] for x in inputs]
            for optimize in (False, True):
                ort, total, same, near, worst = session(layers.cut, optimize), 0, 0, 0, (1.0, "")
                outputs = [o.name for o in ort.get_outputs()]
                for x, real in zip(inputs, runs):
                    ints = {t: layers.quantize(t, real[t] if t in real else x[t]) for t in layers.pairs}
                    wanted = {i.name for i in ort.get_inputs()}
                    feed = {**{k: v for k, v in x.items() if k in wanted},
                            **{q + "/given": ints[t] for t, q in layers.pairs.items() if q + "/given" in wanted}}
                    theirs = dict(zip(outputs, ort.run(None, feed)))
                    for t in layers.single:
                        off = np.abs(ints[t].astype(int) - theirs[layers.pairs[t]].astype(int))
                        total, same, near = total + off.size, same + int((off == 0).sum()), near + int((off <= 1).sum())
                        worst = min(worst, (float((off <= 1).mean()), t))
                print(f"{name}, {scheme}, {'optimized' if optimize else 'plain'}: {len(layers.single)} layers, {total} integers, "
                      f"{same / total:.6f} the same, {near / total:.6f} to one quantum, worst layer {worst[0]:.6f}")
                assert near / total >= 0.999 and worst[0] >= 0.999, worst


def test_answers_agree_with_onnxruntime():
    """Biases as the epoch has them included."""
    for name, path, inputs in models():
        with serve(path) as d:
            teach(d, inputs, 72 // len(inputs))
            made = export(d)
            epoch = int(made.headers["Quant-Epoch"])
            ours = [infer(d, x, quant_epoch=epoch, quant_observe=False)[0] for x in inputs]
            again = export(d, epoch=epoch)
            assert again.body == made.body, "an epoch's export is not always the same"
        for optimize in (False, True):
            ort = session(onnx.load_from_string(made.body), optimize)
            outputs = [o.name for o in ort.get_outputs()]
            for x, mine in zip(inputs, ours):
                theirs = dict(zip(outputs, ort.run(None, x)))
                for o in outputs:
                    assert cosine(mine[o], theirs[o]) >= (0.9999 if name == "digits" else 0.998), (name, o)


def test_tables_come_back():
    """Every format gives a fresh daemon the scales of the one it came from; taken back, the daemon learns again."""
    inputs = digit_inputs()
    for scheme in ("asymmetric", "symmetric"):
        with serve(DIGITS, "--activation-scheme", scheme) as d:
            teach(d, inputs)
            tables = {f: export(d, f).json() for f in FORMATS}
            learned = {t["name"]: t for t in d.get(M + "/ranges").json()["tensors"]}
            listed = d.get(M + "/ranges").json()
            wrong = d.get(M + "/export?format=xml"), d.get(M + "/export?epoch=99999"), d.get(M + "/export?epoch=x")
            assert [r.status for r in wrong] == [400, 409, 400], [r.body for r in wrong]
        for form, table in {**tables, "the ranges endpoint": listed}.items():
            with serve(DIGITS, "--activation-scheme", scheme) as d:
                before = d.get(M + "/export?format=tf")
                assert before.status == 409, before.body
                r = d.ask("PUT", M + "/ranges", json.dumps(table))
                assert r.status == 200 and r.json()["set"] == len(learned) and r.json()["ignored"] == 0, (form, r.body)
                now = {t["name"]: t for t in d.get(M + "/ranges").json()["tensors"]}
                for name, t in learned.items():
                    exact = form in ("quantd", "torch", "the ranges endpoint")
                    assert now[name]["mode"] == "static" and now[name]["zero_point"] == t["zero_point"], (form, name)
                    off = abs(now[name]["scale"] - t["scale"])
                    assert off == 0 if exact else off <= 2e-7 * t["scale"], (form, name, now[name]["scale"], t["scale"])
                first = next(iter(learned))
                r = d.ask("DELETE", M + f"/ranges?tensor={first}")
                assert r.status == 200 and r.json()["taken_back"] == 1, r.body
                modes = {t["name"]: t["mode"] for t in d.get(M + "/ranges").json()["tensors"]}
                assert [n for n, m in modes.items() if m != "static"] == [first], modes
                assert d.ask("PUT", M + "/ranges", json.dumps({n: None for n in learned})).json()["taken_back"] == len(learned)
                assert all(t["mode"] == "ema" for t in d.get(M + "/ranges").json()["tensors"])


def test_ranges_are_checked():
    with serve(DIGITS) as d:
        name = d.get(M + "/ranges").json()["tensors"][0]["name"]
        bad = ["[]", "{", '{"unknown": [0, 1]}', json.dumps({name: [1, 0]}), json.dumps({name: "x"}), json.dumps({name: [0]}),
               json.dumps({name: {"scale": 0, "zero_point": 0}}), json.dumps({name: {"scale": 1, "zero_point": 300}}),
               json.dumps({name: {"scale": 1, "zero_point": 0.5}}), json.dumps({"tensors": [{"min": 0, "max": 1}]}),
               json.dumps({name: {"min": 0}})]
        for body in bad:
            r = d.ask("PUT", M + "/ranges", body)
            assert r.status in (400, 404) and r.json()["error"], (body, r.status, r.body)
        assert all(t["mode"] == "ema" for t in d.get(M + "/ranges").json()["tensors"]), "a refused table changed something"
        assert d.ask("DELETE", M + "/ranges?tensor=unknown").status == 404
        assert d.ask("DELETE", M + "/ranges").json()["taken_back"] == 0
        some = json.dumps({name: {"lowest": -1, "highest": [2]}, "unknown": [0, 1]})
        r = d.ask("PUT", M + "/ranges?cuts=true", some)
        assert r.status == 200 and r.json()["set"] == 1 and r.json()["ignored"] == 1, r.body
        assert d.ask("PUT", M + "/ranges?cuts=2", some).status == 400


def test_other_tools_read_the_tables():
    """onnxruntime's own classes; PyTorch's observers and TensorFlow's arithmetic where there is something to test with."""
    from onnxruntime.quantization.calibrate import TensorsData
    with serve(DIGITS) as d:
        teach(d, digit_inputs())
        tables = {f: export(d, f).json() for f in FORMATS}
    rows = {t["name"]: t for t in tables["quantd"]["tensors"]}
    if hasattr(TensorsData, "from_dict"):
        data = TensorsData.from_dict(tables["ort-calibration"])
        for name, t in rows.items():
            lo, hi = data[name].range_value
            assert abs(lo - t["min"]) < 1e-6 * abs(t["min"]) + 1e-12 and abs(hi - t["max"]) < 1e-6 * abs(t["max"]) + 1e-12, name
    for name, t in rows.items():  # TensorFlow's nudging leaves such a range alone
        a = tables["tf"][name]
        scale = (a["max"] - a["min"]) / 255
        zero = -a["min"] / scale
        assert abs(zero - round(zero)) < 1e-4 and round(zero) == t["zero_point"], (name, zero)
    try:
        import torch
        from torch.ao.quantization import MovingAverageMinMaxObserver
    except ImportError:
        print("PyTorch's observers were not tested: no torch here")
        return
    for name, t in rows.items():
        observer = MovingAverageMinMaxObserver()
        observer.load_state_dict({k: torch.tensor(v) for k, v in tables["torch"]["state"][name].items()})
        scale, zero = observer.calculate_qparams()
        assert abs(float(scale) - t["scale"]) <= 1e-6 * t["scale"] and int(zero) == t["zero_point"], name


def test_the_command():
    """quantd export from data sets and from a daemon's state, and serve --ranges."""
    inputs = digit_inputs()
    with tempfile.TemporaryDirectory() as folder:
        state, out = os.path.join(folder, "state"), os.path.join(folder, "out")
        os.mkdir(state)
        with serve(DIGITS, "--state-dir", state) as d:
            teach(d, inputs)
            wanted = {f: export(d, f).body for f in ("qdq", "quantd", "torch")}
        for form, body in wanted.items():
            run = subprocess.run([serving.QUANTD, "export", DIGITS, "--state-dir", state, "--name", "m", "--format", form,
                                  "--out", out], capture_output=True, text=True)
            assert run.returncode == 0, run.stderr
            with open(out, "rb") as f:
                assert f.read().rstrip(b"\n") == body.rstrip(b"\n"), form
        with serve(DIGITS, "--ranges", f"m={out}") as d:
            assert all(t["mode"] == "static" for t in d.get(M + "/ranges").json()["tensors"])
        for k, x in enumerate(inputs):
            os.makedirs(os.path.join(folder, f"test_data_set_{k}"))
            with open(os.path.join(folder, f"test_data_set_{k}", "input_0.pb"), "wb") as f:
                f.write(numpy_helper.from_array(x["image"], "image").SerializeToString())
        run = subprocess.run([serving.QUANTD, "export", DIGITS, "--calibrate", folder, "--out", out], capture_output=True, text=True)
        assert run.returncode == 0 and "layers in INT8" in run.stderr, run.stderr
        onnx.checker.check_model(onnx.load(out))
        for arguments in ([], ["--out", out], ["--calibrate", folder], ["--calibrate", folder, "--out", out, "--format", "x"]):
            run = subprocess.run([serving.QUANTD, "export", DIGITS, *arguments], capture_output=True, text=True)
            assert run.returncode == 2, arguments
        empty = os.path.join(folder, "empty")
        os.mkdir(empty)
        run = subprocess.run([serving.QUANTD, "export", DIGITS, "--state-dir", empty, "--out", out + "2"], capture_output=True,
                             text=True)
        assert run.returncode == 1 and not os.path.exists(out + "2"), run.stderr


def plain_network(opset=13, ir=8, kind=TensorProto.FLOAT, listed=False):
    """Conv, Relu, Conv, a sum with the Relu, Relu, Gemm."""
    random, dtype = np.random.default_rng(1), helper.tensor_dtype_to_np_dtype(kind)
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "w3": (10, 512), "b3": (10,)}
    constants = [numpy_helper.from_array((random.normal(size=s) * .3).astype(dtype), n) for n, s in shapes.items()]
    nodes = [helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4), helper.make_node("Relu", ["c1"], ["r1"]),
             helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4), helper.make_node("Add", ["c2", "r1"], ["s"]),
             helper.make_node("Relu", ["s"], ["r2"]), helper.make_node("Flatten", ["r2"], ["f"]),
             helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1)]
    inputs = [helper.make_tensor_value_info("x", kind, [1, 3, 8, 8])]
    inputs += [helper.make_tensor_value_info(c.name, kind, c.dims) for c in constants] if listed else []
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", kind, [1, 10])], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def branching_network(functions=False):
    """Branches of an If and a Shape read what a convolution gave before its normalization was folded; two layers share weights;
    with functions, one of them stands in a function of the model's own."""
    random = np.random.default_rng(2)
    shapes = {"w1": (8, 3, 3, 3), "g": (8,), "h": (8,), "m": (8,), "w2": (8, 8, 1, 1)}
    constants = [numpy_helper.from_array((random.normal(size=s) * .3).astype(np.float32), n) for n, s in shapes.items()]
    constants.append(numpy_helper.from_array(np.linspace(.5, 2, 8, dtype=np.float32), "v"))

    def branch(op):
        shown = helper.make_tensor_value_info("o" + op, TensorProto.FLOAT, [1, 8, 8, 8])
        return helper.make_graph([helper.make_node(op, ["c1"], ["o" + op])], op, [], [shown])

    second = helper.make_node("Conv", ["r1", "w2"], ["c2"])
    blocks = [helper.make_function("own", "Block", ["X", "W"], ["Y"], [helper.make_node("Conv", ["X", "W"], ["Y"])],
                                   [helper.make_opsetid("", 17)])]
    if functions:
        second = helper.make_node("Block", ["r1", "w2"], ["c2"], domain="own")
    nodes = [helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4),
             helper.make_node("BatchNormalization", ["c1", "g", "h", "m", "v"], ["n1"]), helper.make_node("Relu", ["n1"], ["r1"]),
             second, helper.make_node("Conv", ["c2", "w2"], ["c3"]),
             helper.make_node("ReduceMax", ["c3"], ["most"], keepdims=0), helper.make_node("Cast", ["most"], ["if"], to=TensorProto.BOOL),
             helper.make_node("If", ["if"], ["z"], then_branch=branch("Abs"), else_branch=branch("Neg")),
             helper.make_node("Shape", ["c1"], ["shape"]), helper.make_node("Reshape", ["c3", "shape"], ["y"])]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [f"{n}{i}" for i in range(4)]) for n in "yz"]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])], outputs, constants)
    opsets = [helper.make_opsetid("", 17)] + [helper.make_opsetid("own", 1)] * functions
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=blocks if functions else [])


def test_odd_files():
    """(model, layers in INT8, left in floats) by `quantd export`, and onnxruntime's answers to both files."""
    x = np.random.default_rng(3).normal(size=(1, 3, 8, 8)).astype(np.float32)
    cases = {"plain": (plain_network(), 3, 0), "external": (plain_network(), 3, 0), "old": (plain_network(11, 3, listed=True), 3, 0),
             "half": (plain_network(kind=TensorProto.FLOAT16), 0, 3), "branches": (branching_network(), 3, 0),
             "functions": (branching_network(True), 2, 1), "too old": (plain_network(9), None, None)}
    for name, (model, layers, left) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            path, out = os.path.join(folder, "model.onnx"), os.path.join(folder, "out.onnx")
            onnx.save(onnx.ModelProto.FromString(model.SerializeToString()), path, save_as_external_data=name == "external",
                      size_threshold=64, location="weights")
            given = x.astype(np.float16 if name == "half" else np.float32)
            for k in range(3):
                os.mkdir(os.path.join(folder, f"test_data_set_{k}"))
                with open(os.path.join(folder, f"test_data_set_{k}", "input_0.pb"), "wb") as f:
                    f.write(numpy_helper.from_array((given * (1 - k / 10)).astype(given.dtype), "x").SerializeToString())
            run = subprocess.run([serving.QUANTD, "export", path, "--calibrate", folder, "--out", out], capture_output=True, text=True)
            if layers is None:
                assert run.returncode == 1 and "opset 9" in run.stderr and not os.path.exists(out), run.stderr
                continue
            assert run.returncode == 0, (name, run.stderr)
            assert f" {layers} layers in INT8" in run.stderr and f" {left} left in floats" in run.stderr, (name, run.stderr)
            exported = onnx.load(out)
            onnx.checker.check_model(exported)
            theirs = session(exported, True).run(None, {"x": given})
            for a, b in zip(onnxruntime.InferenceSession(path).run(None, {"x": given}), theirs):
                assert cosine(a, b) > 0.9995, (name, cosine(a, b))


if __name__ == "__main__":
    sys.exit(serving.run([test_layers_agree_with_onnxruntime, test_answers_agree_with_onnxruntime, test_tables_come_back,
                          test_ranges_are_checked, test_other_tools_read_the_tables, test_the_command, test_odd_files]))
