#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets fuzz_onnx and fuzz_model: tiny models, each of another kind, so that the fuzzer and
the replay in the tests start from every corner of the format (onnx) and of the engine (model). Needs the onnx package
(tests/requirements.txt).

    python3 tests/fuzz/make_corpus.py [FOLDER]     (tests/fuzz/corpus; writes FOLDER/onnx and FOLDER/model)

Seeds whose names begin with `bad_` must be refused; the others must be read, and those of `model` run. Files of
corpus/model whose names begin with `fault_` once broke the engine; they are kept by hand.
"""
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

RAW_TYPES = ["FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL", "FLOAT16", "DOUBLE", "UINT32", "UINT64",
             "BFLOAT16"]
BYTES = {"UINT8": 1, "INT8": 1, "BOOL": 1, "UINT16": 2, "INT16": 2, "FLOAT16": 2, "BFLOAT16": 2, "FLOAT": 4, "INT32": 4,
         "UINT32": 4, "INT64": 8, "UINT64": 8, "DOUBLE": 8}
SEEDS = {}
RUNNABLE = {}


def seed(build):
    SEEDS[build.__name__] = build
    return build


def runnable(build):
    RUNNABLE[build.__name__] = build
    return build


def value(name, dims=(2,), kind=T.FLOAT):
    return h.make_tensor_value_info(name, kind, list(dims) if dims is not None else None)


def model(nodes, inputs, outputs, initializers=(), opset=17, ir=8, others=(), **more):
    graph = h.make_graph(nodes, "g", inputs, outputs, list(initializers), value_info=more.pop("value_info", []))
    graph.sparse_initializer.extend(more.pop("sparse", []))
    imports = [h.make_opsetid("", opset)] + [h.make_opsetid(d, v) for d, v in others]
    return h.make_model(graph, opset_imports=imports, ir_version=ir, **more)


def raw(name, kind, dims, data):
    return T(name=name, data_type=kind, dims=dims, raw_data=data)


def weights(name, *dims):
    array = np.arange(np.prod(dims), dtype=np.float32).reshape(dims) / 8
    return numpy_helper.from_array(array, name)


@seed
def conv_chain():
    nodes = [h.make_node("Conv", ["x", "w", "b"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=1),
             h.make_node("Relu", ["c"], ["r"]),
             h.make_node("Clip", ["r", "", "top"], ["y"], "clip")]
    return model(nodes, [value("x", ("N", 1, 8, 8))], [value("y", ("N", 2, 8, 8))],
                 [weights("w", 2, 1, 3, 3), weights("b", 2), raw("top", T.FLOAT, [], b"\0\0\xc0\x40")],
                 value_info=[value("c", ("N", 2, 8, 8)), value("gone", (1,))])


@seed
def raw_types():
    tensors = [raw("r" + k, getattr(T, k), [2], bytes(BYTES[k] * 2)) for k in RAW_TYPES]
    return model([h.make_node("Identity", ["rFLOAT"], ["y"])], [], [value("y")], tensors)


@seed
def typed_storage():
    tensors = [T(name="t" + k, data_type=getattr(T, k), dims=[3]) for k in RAW_TYPES]
    for t in tensors:
        if t.data_type == T.FLOAT:
            t.float_data.extend([1, -2, 0.5])
        elif t.data_type == T.DOUBLE:
            t.double_data.extend([1, -2, 1e300])
        elif t.data_type == T.INT64:
            t.int64_data.extend([-1, 2**62, 0])
        elif t.data_type in (T.UINT64, T.UINT32):
            t.uint64_data.extend([0, 7, 2**31])
        elif t.data_type in (T.INT8, T.INT16, T.INT32):
            t.int32_data.extend([-128, 0, 127])
        else:
            t.int32_data.extend([0, 1, 1])
    return model([h.make_node("Identity", ["tFLOAT"], ["y"])], [], [value("y", (3,))], tensors)


@seed
def empty_and_scalar():
    return model([h.make_node("Add", ["x", "one"], ["y"])], [value("x", (0, "n"))], [value("y", None)],
                 [raw("one", T.FLOAT, [], bytes(4)), raw("none", T.INT64, [0], b""), T(name="hole", data_type=7, dims=[2, 0])])


@seed
def default_input():
    return model([h.make_node("Add", ["x", "b"], ["y"])], [value("x"), value("b", ("n",))], [value("y")], [weights("b", 2)],
                 opset=9, ir=3)


@seed
def constants():
    make = [("a", {"value": weights("", 2)}), ("b", {"value_float": 0.5}), ("c", {"value_floats": [1.0, 2.0]}),
            ("d", {"value_int": -3}), ("e", {"value_ints": [1, 2, 3]})]
    nodes = [h.make_node("Constant", [], [n], **a) for n, a in make]
    return model(nodes + [h.make_node("Sum", ["a", "b", "c"], ["y"])], [], [value("y"), value("e", (3,), T.INT64)])


@seed
def attributes():
    graph = h.make_graph([h.make_node("Neg", ["q"], ["p"])], "inner", [value("q")], [value("p")])
    more = {"f": 1.5, "i": -7, "s": "text", "t": weights("t", 1), "g": graph, "fs": [1.0, 2.0], "is": [1, -2, 300],
            "ss": ["a", "", "\u00e9"], "ts": [weights("t1", 1), weights("t2", 2)], "gs": [graph, graph],
            "st": h.make_tensor("st", T.STRING, [1], ["x"])}
    return model([h.make_node("Many", ["x"], ["y"], "many", domain="own", **more)], [value("x")], [value("y")],
                 others=[("own", 3)])


@seed
def branch():
    then = h.make_graph([h.make_node("Add", ["x", "w"], ["t"])], "then", [], [value("t")])
    nest = h.make_graph([h.make_node("Mul", ["x", "late"], ["n"])], "nest", [], [value("n")])
    other = h.make_graph([h.make_node("If", ["c"], ["e"], then_branch=nest, else_branch=nest)], "else", [], [value("e")])
    return model([h.make_node("If", ["c"], ["y"], "if", then_branch=then, else_branch=other),
                  h.make_node("Neg", ["x"], ["late"])], [value("x"), value("c", (), T.BOOL)], [value("y")], [weights("w", 2)])


@seed
def loop():
    body = h.make_graph([h.make_node("Identity", ["go"], ["still"]), h.make_node("Add", ["s", "step"], ["next"])], "body",
                        [value("i", (), T.INT64), value("go", (), T.BOOL), value("s")],
                        [value("still", (), T.BOOL), value("next"), value("next")], [weights("step", 2)])
    return model([h.make_node("Loop", ["n", "", "x"], ["y", "all"], body=body)], [value("n", (), T.INT64), value("x")],
                 [value("y"), value("all", None)])


@seed
def scan():
    body = h.make_graph([h.make_node("Add", ["s", "e"], ["n"]), h.make_node("Identity", ["n"], ["o"])], "body",
                        [value("s"), value("e")], [value("n"), value("o")])
    return model([h.make_node("Scan", ["x", "seq"], ["y", "ys"], body=body, num_scan_inputs=1)],
                 [value("x"), value("seq", ("t", 2))], [value("y"), value("ys", ("t", 2))])


@seed
def unsorted():
    nodes = [h.make_node("Add", ["b", "x"], ["y"]), h.make_node("Neg", ["a"], ["b"]), h.make_node("Abs", ["x"], ["a"])]
    return model(nodes, [value("x")], [value("y")])


@seed
def optional_outputs():
    return model([h.make_node("LSTM", ["x", "w", "r", "", "", "h0"], ["", "y"], "lstm", hidden_size=1)],
                 [value("x", (1, 1, 1)), value("h0", (1, 1, 1))], [value("y", (1, 1, 1))],
                 [weights("w", 1, 4, 1), weights("r", 1, 4, 1)])


@seed
def strings_pass():
    return model([h.make_node("Identity", ["x"], ["y"])], [value("x", ("n",), T.STRING)], [value("y", ("n",), T.STRING)])


@seed
def unused_function():
    made = model([h.make_node("Relu", ["x"], ["y"])], [value("x")], [value("y")], others=[("own", 1)])
    made.functions.append(h.make_function("own", "Twice", ["a"], ["b"], [h.make_node("Add", ["a", "a"], ["b"])],
                                          [h.make_opsetid("", 17)]))
    return made


@seed
def metadata():
    made = model([h.make_node("Relu", ["x"], ["y"], domain="ai.onnx", doc_string="d")], [value("x")], [value("y")], opset=25)
    h.set_model_props(made, {"author": "nobody"})
    made.producer_name = "seeds"
    return made


@runnable
@seed
def functions():
    """Calls within calls, an attribute by reference and one left out, a body with a graph, an input handed on."""
    scaled = h.make_function("own", "Scaled", ["a"], ["b"], [h.make_node("LeakyRelu", ["a"], ["b"])],
                             [h.make_opsetid("", 17)], attributes=["slope"])
    scaled.node[0].attribute.append(onnx.AttributeProto(name="alpha", type=1, ref_attr_name="slope"))
    then = h.make_graph([h.make_node("Scaled", ["s"], ["t"], domain="own", slope=.5)], "then", [], [value("t")])
    other = h.make_graph([h.make_node("Neg", ["s"], ["e"])], "else", [], [value("e")])
    nodes = [h.make_node("Scaled", ["a"], ["s"], domain="own"),
             h.make_node("If", ["c"], ["b"], then_branch=then, else_branch=other)]
    either = h.make_function("own", "Either", ["a", "c"], ["b", "a"], nodes,
                             [h.make_opsetid("", 17), h.make_opsetid("own", 1)])
    made = model([h.make_node("Either", ["x", "c"], ["y", "z"], "call", domain="own")],
                 [value("x"), value("c", (), T.BOOL)], [value("y"), value("z")], others=[("own", 1)])
    made.functions.extend([scaled, either])
    return made


@seed
def bad_recursion():
    made = unused_function()
    made.functions[0].node[0].CopyFrom(h.make_node("Twice", ["a"], ["b"], domain="own"))
    made.functions[0].opset_import.append(h.make_opsetid("own", 1))
    made.graph.node.append(h.make_node("Twice", ["y"], ["z"], domain="own"))
    return made


@seed
def bad_sparse():
    values = raw("s", T.FLOAT, [1], bytes(4))
    sparse = h.make_sparse_tensor(values, raw("", T.INT64, [1], bytes(8)), [3])
    return model([h.make_node("Relu", ["s"], ["y"])], [], [value("y", (3,))], sparse=[sparse])


@seed
def bad_external():
    tensor = T(name="w", data_type=T.FLOAT, dims=[2], data_location=T.EXTERNAL)
    for key, text in (("location", "../weights"), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=text)
    return model([h.make_node("Relu", ["w"], ["y"])], [], [value("y")], [tensor])


@seed
def constant_strings():
    return model([h.make_node("Identity", ["s"], ["y"])], [], [value("y", (2,), T.STRING)],
                 [h.make_tensor("s", T.STRING, [2], ["a", "b"])])


@seed
def bad_sequence():
    return model([h.make_node("SequenceAt", ["s", "i"], ["y"])],
                 [h.make_tensor_sequence_value_info("s", T.FLOAT, [2]), value("i", (), T.INT64)], [value("y")])


@seed
def bad_cycle():
    return model([h.make_node("Neg", ["b"], ["a"], "one"), h.make_node("Neg", ["a"], ["b"], "two")], [], [value("a")])


@seed
def bad_narrow_type():
    return model([h.make_node("Identity", ["q"], ["y"])], [], [value("y", (2,), T.INT4)],
                 [raw("q", T.INT4, [2], b"\x21")])


@seed
def bad_length():
    return model([h.make_node("Relu", ["w"], ["y"])], [], [value("y")], [raw("w", T.FLOAT, [2], bytes(7))])


def ints(name, *numbers):
    return numpy_helper.from_array(np.array(numbers, dtype=np.int64), name)


def one_node(op, inputs, constants=(), outputs=("y",), **attributes):
    """A model of one node, whose inputs are the given ones (name, dimensions) and then the constants."""
    given = [value(*i) for i in inputs]
    names = [v.name for v in given] + [c.name for c in constants]
    return model([h.make_node(op, names, list(outputs), op.lower(), **attributes)], given,
                 [value(y, None) for y in outputs], constants, opset=18)


@runnable
def conv_layers():
    nodes = [h.make_node("Conv", ["x", "w1", "b1"], ["c1"], "first", pads=[1, 1, 1, 1]),
             h.make_node("Relu", ["c1"], ["r1"]),
             h.make_node("Conv", ["r1", "w2"], ["c2"], "deep", group=2, strides=[2, 2], pads=[0, 1, 1, 0]),
             h.make_node("Add", ["c2", "shift"], ["a"]),
             h.make_node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2]),
             h.make_node("Conv", ["p", "w3"], ["c3"], "point"),
             h.make_node("GlobalAveragePool", ["c3"], ["g"]),
             h.make_node("Flatten", ["g"], ["y"])]
    return model(nodes, [value("x", ("n", 3, 9, 9))], [value("y", None)],
                 [weights("w1", 2, 3, 3, 3), weights("b1", 2), weights("w2", 2, 1, 2, 2), weights("shift", 1, 2, 1, 1),
                  weights("w3", 5, 2, 1, 1)])


@runnable
def conv_transposed():
    return one_node("ConvTranspose", [("x", (1, 2, 3, 3))], [weights("z", 2, 2, 2, 2)], strides=[2, 2],
                    output_padding=[1, 0])


@runnable
def gemm_layers():
    nodes = [h.make_node("Gemm", ["x", "w", "b"], ["h"], "wide", transB=1, alpha=0.5),
             h.make_node("Sigmoid", ["h"], ["s"]),
             h.make_node("Gemm", ["s", "v"], ["y"], "out")]
    return model(nodes, [value("x", ("n", 4))], [value("y", None)], [weights("w", 6, 4), weights("b", 6), weights("v", 6, 2)])


@runnable
def matmul_both():
    nodes = [h.make_node("MatMul", ["x", "w"], ["q"], "constant"),
             h.make_node("Transpose", ["q"], ["t"], perm=[0, 2, 1]),
             h.make_node("MatMul", ["q", "t"], ["y"], "variable")]
    return model(nodes, [value("x", ("n", 2, 3))], [value("y", None)], [weights("w", 3, 5)])


@runnable
def pools():
    nodes = [h.make_node("MaxPool", ["x"], ["m", "i"], kernel_shape=[3, 2], strides=[2, 1], dilations=[1, 2], ceil_mode=1),
             h.make_node("AveragePool", ["x"], ["a"], kernel_shape=[2, 2], auto_pad="SAME_LOWER", count_include_pad=1),
             h.make_node("GlobalMaxPool", ["a"], ["g"])]
    return model(nodes, [value("x", (1, 2, 5, 5))], [value("m", None), value("i", None, T.INT64), value("g", None)])


@runnable
def broadcasting():
    nodes = [h.make_node("Mul", ["a", "b"], ["m"]), h.make_node("Pow", ["m", "e"], ["p"]),
             h.make_node("Less", ["p", "b"], ["l"]), h.make_node("Where", ["l", "a", "p"], ["y"])]
    return model(nodes, [value("a", (3, 1, 2)), value("b", ("n", 1))], [value("y", None)], [raw("e", T.FLOAT, [], bytes(4))])


@runnable
def reductions():
    nodes = [h.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0), h.make_node("ReduceMax", ["x", "axes"], ["t"]),
             h.make_node("ReduceL2", ["x"], ["n"]), h.make_node("ArgMax", ["x"], ["i"], axis=1)]
    return model(nodes, [value("x", (2, 3, 4))],
                 [value("m", None), value("t", None), value("n", None), value("i", None, T.INT64)], [ints("axes", 0, 2)],
                 opset=18)


@runnable
def reshape_from_shapes():
    nodes = [h.make_node("Shape", ["x"], ["s"]), h.make_node("Gather", ["s", "first"], ["n"]),
             h.make_node("Concat", ["n", "rest"], ["to"], axis=0), h.make_node("Reshape", ["x", "to"], ["r"]),
             h.make_node("Unsqueeze", ["r", "axis"], ["u"]), h.make_node("Expand", ["u", "big"], ["y"])]
    return model(nodes, [value("x", ("n", 2, 3))], [value("y", None)],
                 [ints("first", 0), ints("rest", -1), ints("axis", 1), ints("big", 1, 4, 1)])


@runnable
def reshape_from_data():
    nodes = [h.make_node("NonZero", ["x"], ["z"]), h.make_node("Transpose", ["z"], ["t"]),
             h.make_node("Cast", ["t"], ["f"], to=T.FLOAT), h.make_node("MatMul", ["f", "w"], ["m"]),
             h.make_node("ConstantOfShape", ["k"], ["c"]), h.make_node("Add", ["m", "c"], ["y"])]
    return model(nodes, [value("x", ("n", 2)), value("k", (0,), T.INT64)], [value("y", None)], [weights("w", 2, 3)])


@runnable
def slices():
    return one_node("Slice", [("a", (4, 5))], [ints("b", -1, 1), ints("c", -9, 2**62), ints("d", 0, 1), ints("e", -2, 2)])


@runnable
def split():
    return one_node("Split", [("a", (2, 5))], [ints("b", 2, 0, 3)], ("p", "q", "r"), axis=1)


@runnable
def softmaxes():
    nodes = [h.make_node("Softmax", ["x"], ["s"], axis=1), h.make_node("LogSoftmax", ["s"], ["l"]),
             h.make_node("LayerNormalization", ["l", "g"], ["y"])]
    return model(nodes, [value("x", ("n", 3, 2))], [value("y", None)], [weights("g", 2)])


@runnable
def concat_gather():
    nodes = [h.make_node("Concat", ["x", "w"], ["c"], axis=-1), h.make_node("Gather", ["c", "i"], ["g"], axis=1),
             h.make_node("GatherElements", ["g", "e"], ["y"])]
    return model(nodes, [value("x", (2, 2)), value("i", ("k",), T.INT64)], [value("y", None)],
                 [weights("w", 2, 3), raw("e", T.INT64, [1, 1], bytes(8))])


@runnable
def scatters():
    nodes = [h.make_node("ScatterND", ["x", "i", "u"], ["s"]), h.make_node("ScatterElements", ["s", "e", "v"], ["y"], axis=1)]
    return model(nodes, [value("x", (3, 2)), value("i", (1, 1), T.INT64)], [value("y", None)],
                 [weights("u", 1, 2), raw("e", T.INT64, [1, 1], bytes(8)), weights("v", 1, 1)])


@runnable
def casts():
    nodes = [h.make_node("Cast", ["x"], ["t%d" % k], to=k) for k in (T.UINT8, T.INT8, T.INT32, T.BOOL, T.FLOAT16, T.DOUBLE)]
    nodes += [h.make_node("Cast", ["t%d" % T.FLOAT16], ["y"], to=T.FLOAT)]
    return model(nodes, [value("x", (3,))], [value("y", None), value("t%d" % T.UINT8, None, T.UINT8)])


@runnable
def padded():
    nodes = [h.make_node("Pad", ["x", "p"], ["a"], mode="reflect"), h.make_node("Pad", ["a", "q", "v"], ["y"])]
    return model(nodes, [value("x", (3, 3))], [value("y", None)],
                 [ints("p", 1, 0, 2, 1), ints("q", -1, 2, 0, -1), raw("v", T.FLOAT, [], bytes(4))])


@runnable
def resized():
    return one_node("Resize", [("a", (1, 1, 2, 3))], [raw("b", T.FLOAT, [0], b""), raw("c", T.FLOAT, [4],
                    np.array([1, 1, 1.5, 2], dtype=np.float32).tobytes())], mode="cubic")


@runnable
def recurrent():
    return one_node("GRU", [("a", (2, 1, 2))], [weights("b", 1, 3, 2), weights("c", 1, 3, 1)], ("y", "last"), hidden_size=1)


@runnable
def detection():
    return model([h.make_node("NonMaxSuppression", ["b", "s", "k", "o"], ["y"])],
                 [value("b", (1, 4, 4)), value("s", (1, 2, 4))], [value("y", None, T.INT64)],
                 [ints("k", 3), raw("o", T.FLOAT, [1], np.array([0.5], dtype=np.float32).tobytes())])


@runnable
def quantized_by_hand():
    nodes = [h.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), h.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
             h.make_node("MatMulInteger", ["q", "w"], ["y"])]
    return model(nodes, [value("x", (2, 2))], [value("d", None), value("y", None, T.INT32)],
                 [raw("s", T.FLOAT, [], b"\0\0\0\x3f"), raw("z", T.UINT8, [], b"\x07"), raw("w", T.UINT8, [2, 1], b"\1\2")])


@runnable
def empty_tensors():
    nodes = [h.make_node("Conv", ["x", "w"], ["c"]), h.make_node("GlobalAveragePool", ["c"], ["g"]),
             h.make_node("Softmax", ["c"], ["s"]), h.make_node("ReduceSum", ["s"], ["r"]),
             h.make_node("Concat", ["c", "s"], ["k"], axis=0)]
    return model(nodes, [value("x", (0, 1, 3, 3))], [value("g", None), value("r", None), value("k", None)],
                 [weights("w", 1, 1, 1, 1)])


@runnable
def big_dimensions():
    """Runs where a request may take so much; elsewhere the engine must say that it is too large."""
    nodes = [h.make_node("ConstantOfShape", ["s"], ["c"]), h.make_node("Tile", ["c", "r"], ["t"]),
             h.make_node("Add", ["t", "x"], ["y"])]
    return model(nodes, [value("x", (1,))], [value("y", None)], [ints("s", 2**20, 1), ints("r", 1, 2**20)])


@runnable
def linear_bodies():
    """A matrix product in a loop's body and in both branches of an If, of which one is known when the plan is made."""
    then = h.make_graph([h.make_node("MatMul", ["x", "w"], ["t"])], "then", [], [value("t", None)])
    other = h.make_graph([h.make_node("Neg", ["x"], ["e"])], "else", [], [value("e", None)])
    nest = h.make_graph([h.make_node("If", ["yes"], ["m"], then_branch=then, else_branch=other)], "nest", [],
                        [value("m", None)])
    body = h.make_graph([h.make_node("MatMul", ["s", "w"], ["p"], "product"), h.make_node("Relu", ["p"], ["next"]),
                         h.make_node("Less", ["i", "two"], ["still"])], "body",
                        [value("i", (), T.INT64), value("go", (), T.BOOL), value("s", (2, 2))],
                        [value("still", (), T.BOOL), value("next", (2, 2)), value("p", (2, 2))], [ints("two", 2)])
    body.initializer[0].ClearField("dims")
    return model([h.make_node("If", ["c"], ["a"], "choice", then_branch=nest, else_branch=other),
                  h.make_node("Loop", ["", "c", "a"], ["y", "ys"], "again", body=body)],
                 [value("x", (2, 2)), value("c", (), T.BOOL)], [value("y", None), value("ys", None)],
                 [weights("w", 2, 2), numpy_helper.from_array(np.array(True), "yes")])


@runnable
def scan_of_opset_8():
    body = h.make_graph([h.make_node("Add", ["s", "e"], ["n"]), h.make_node("Identity", ["n"], ["o"])], "body",
                        [value("s"), value("e")], [value("n"), value("o")])
    return model([h.make_node("Scan", ["", "x", "seq"], ["y", "ys"], body=body, num_scan_inputs=1, directions=[1])],
                 [value("x", (2, 2)), value("seq", (2, "t", 2))], [value("y", (2, 2)), value("ys", (2, "t", 2))], opset=8)


@runnable
def scan_by_axes():
    body = h.make_graph([h.make_node("MatMul", ["s", "w"], ["n"]), h.make_node("Add", ["n", "e"], ["o"])], "body",
                        [value("s", (1, 2)), value("e", (1, 2))], [value("n", (1, 2)), value("o", (1, 2))], [weights("w", 2, 2)])
    return model([h.make_node("Scan", ["x", "seq"], ["y", "ys"], body=body, num_scan_inputs=1, scan_input_axes=[-1],
                              scan_input_directions=[1], scan_output_axes=[2], scan_output_directions=[1])],
                 [value("x", (1, 2)), value("seq", (1, 2, "t"))], [value("y", None), value("ys", None)])


ML = "ai.onnx.ml"


@runnable
def classical_trees():
    nodes = [h.make_node("Scaler", ["x"], ["f"], domain=ML, offset=[0.5, 0.25], scale=[2.0]),
             h.make_node("TreeEnsembleClassifier", ["f"], ["label", "scores"], domain=ML, nodes_treeids=[0, 0, 0, 0, 0, 1, 1, 1],
                         nodes_nodeids=[0, 1, 2, 3, 4, 0, 1, 2], nodes_featureids=[0, 1, 0, 0, 0, 1, 0, 0],
                         nodes_values=[1., 2., 0., 0., 0., 5., 0., 0.],
                         nodes_modes=["BRANCH_LEQ", "BRANCH_LT", "LEAF", "LEAF", "LEAF", "BRANCH_EQ", "LEAF", "LEAF"],
                         nodes_truenodeids=[1, 3, 0, 0, 0, 1, 0, 0], nodes_falsenodeids=[2, 4, 0, 0, 0, 2, 0, 0],
                         class_treeids=[0, 0, 0, 1, 1], class_nodeids=[3, 4, 2, 1, 2], class_ids=[0, 1, 2, 0, 1],
                         class_weights=[1., 2., 3., 4., 5.], classlabels_strings=["a", "b", "c"], post_transform="SOFTMAX"),
             h.make_node("ZipMap", ["scores"], ["y"], domain=ML, classlabels_strings=["a", "b", "c"])]
    return model(nodes, [value("x", ("n", 2))], [value("label", ("n",), T.STRING), value("y", None)], others=[(ML, 3)])


@runnable
def classical_vectors():
    nodes = [h.make_node("SVMClassifier", ["x"], ["label", "scores"], domain=ML, support_vectors=[1., 0., 0., 1., 1., 1.],
                         coefficients=[1., -1., .5, .25, 2., -2.], rho=[.1, .2, .3], prob_a=[1., 1., 1.], prob_b=[0., 0., 0.],
                         vectors_per_class=[1, 1, 1], kernel_type="RBF", kernel_params=[.5, 0., 3.], classlabels_ints=[4, 5, 6]),
             h.make_node("LabelEncoder", ["label"], ["y"], domain=ML, keys_int64s=[4, 5], values_strings=["four", "five"])]
    return model(nodes, [value("x", ("n", 2))], [value("y", ("n",), T.STRING), value("scores", None)], others=[(ML, 3)])


@runnable
def words():
    nodes = [h.make_node("StringNormalizer", ["s"], ["u"], case_change_action="UPPER", stopwords=["no"]),
             h.make_node("StringConcat", ["u", "c"], ["j"]), h.make_node("StringSplit", ["j"], ["p", "n"], delimiter="-"),
             h.make_node("OneHotEncoder", ["p"], ["y"], domain=ML, cats_strings=["A", "B"])]
    return model(nodes, [value("s", (3,), T.STRING)], [value("y", None), value("n", None, T.INT64), value("p", None, T.STRING)],
                 [h.make_tensor("c", T.STRING, [1], ["a-B"])], opset=20, others=[(ML, 3)])


@runnable
def einsums():
    nodes = [h.make_node("Einsum", ["x", "w"], ["h"], equation="bsc,chd->bshd"), h.make_node("Einsum", ["h", "h"], ["s"], equation="bshd,bthd->bhst"),
             h.make_node("Einsum", ["s", "h", "v"], ["y"], equation="bhst,bthd,hd->bs"), h.make_node("Einsum", ["s"], ["d"], equation="bhss->sb")]
    return model(nodes, [value("x", ("b", 2, 3))], [value("y", None), value("d", None)], [weights("w", 3, 2, 2), weights("v", 2, 2)])


@runnable
def flex_attention():
    def graph(op, name):
        return h.make_graph([h.make_node(op, ["s", "c"], ["o"])], name, [value("s", None)], [value("o", None)], [weights("c", 1)])
    made = model([h.make_node("FlexAttention", ["q", "k", "v"], ["y"], domain="ai.onnx.preview", scale=.5, score_mod=graph("Add", "more"),
                              prob_mod=graph("Mul", "less"))],
                 [value("q", (1, 2, "n", 2)), value("k", (1, 1, 2, 2)), value("v", (1, 1, 2, 3))], [value("y", None)])
    made.opset_import.append(h.make_opsetid("ai.onnx.preview", 1))
    return made


@runnable
def box_pools():
    return model([h.make_node("MaxRoiPool", ["x", "r"], ["y"], pooled_shape=[2, 1], spatial_scale=.5), h.make_node("GlobalLpPool", ["x"], ["z"], p=3)],
                 [value("x", (1, 2, 4, 4)), value("r", ("n", 5))], [value("y", None), value("z", None)])


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "corpus")
    for target, seeds in (("onnx", SEEDS), ("model", RUNNABLE)):
        os.makedirs(os.path.join(folder, target), exist_ok=True)
        for name, build in seeds.items():
            with open(os.path.join(folder, target, name + ".onnx"), "wb") as file:
                file.write(build().SerializeToString(deterministic=True))
        print(f"{len(seeds)} seeds in {folder}/{target}, made with onnx {onnx.__version__}")


if __name__ == "__main__":
    main()
