"""Graphs as tf2onnx writes them, by kinds: images with channels last and Transpose around what wants them first, paddings
spelled out, sizes computed by Shape, Slice, Squeeze, Concat; recurrent networks as one node, as Loop and as Scan; resizing
with TensorFlow's coordinates; detection. For test_exporters.py: random weights, and how to feed each in its metadata."""
import json

import numpy as np
from onnx import TensorProto as T
from onnx import helper, numpy_helper

CASES = {}


class Graph:
    def __init__(self, opset, seed=3):
        self.opset, self.random = opset, np.random.default_rng(seed)
        self.nodes, self.constants, self.count = [], [], 0

    def constant(self, array, dtype=None):
        name = f"const_fold_opt__{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def ints(self, *values):
        return self.constant(values, np.int64)

    def scalar(self, value, dtype=np.float32):
        return self.constant(value, dtype)

    def weights(self, *shape, scale=None):
        fan = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
        return self.constant(self.random.standard_normal(shape) * (scale or fan ** -.5), np.float32)

    def positive(self, *shape):
        return self.constant(self.random.uniform(.5, 1.5, shape), np.float32)

    def op(self, kind, *inputs, outputs=1, **attributes):
        self.count += 1
        name = f"StatefulPartitionedCall/model/{kind.lower()}_{self.count}"
        names = [f"{name}:{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=name, **attributes))
        return names[0] if outputs == 1 else names

    # Squeeze and Unsqueeze had their axes as an attribute before opset 13, ReduceSum too; the other Reduces before 18.
    def axes(self, kind, x, axes, since=13, **attributes):
        if self.opset < since:
            return self.op(kind, x, axes=axes, **attributes)
        return self.op(kind, x, self.ints(*axes), **attributes)

    def slice(self, x, starts, ends, axes):
        if self.opset < 10:
            return self.op("Slice", x, starts=starts, ends=ends, axes=axes)
        return self.op("Slice", x, self.ints(*starts), self.ints(*ends), self.ints(*axes))

    def size(self, x, axis, keep=True):
        """One dimension, by way of int32 as TensorFlow's Shape and StridedSlice have it."""
        shape = self.op("Cast", self.op("Shape", x), to=T.INT32)
        part = self.op("Cast", self.slice(self.op("Cast", shape, to=T.INT64), [axis], [axis + 1], [0]), to=T.INT32)
        return self.axes("Squeeze", part, [0]) if not keep else part

    def shape(self, *parts):
        """Concat of sizes (names, already of one element) and numbers, as int64."""
        lists = [p if isinstance(p, str) else self.constant([p], np.int32) for p in parts]
        return self.op("Cast", self.op("Concat", *lists, axis=0), to=T.INT64)

    def to_first(self, x):
        return self.op("Transpose", x, perm=[0, 3, 1, 2])

    def to_last(self, x):
        return self.op("Transpose", x, perm=[0, 2, 3, 1])

    def conv(self, x, cin, cout, size=3, **attributes):
        return self.op("Conv", x, self.weights(cout, cin // attributes.get("group", 1), size, size),
                       kernel_shape=[size, size], **attributes)

    def batch_norm(self, x, channels):
        return self.op("BatchNormalization", x, self.positive(channels), self.weights(channels, scale=.2),
                       self.weights(channels, scale=.2), self.positive(channels), epsilon=.001)

    def clip(self, x, low, high):
        if self.opset < 11:
            return self.op("Clip", x, min=float(low), max=float(high))
        return self.op("Clip", x, self.scalar(low), self.scalar(high))

    def model(self, inputs, outputs, sizes=({},), ranges=None):
        """inputs: {name: (type, shape)}; outputs: {given name: (value, type, rank)}"""
        for name, (value, _, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [name], name=name + "_identity"))
        graph = helper.make_graph(
            self.nodes, "tf2onnx", [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
            [helper.make_tensor_value_info(n, t, [None] * rank) for n, (_, t, rank) in outputs.items()], self.constants)
        model = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", self.opset)])
        helper.set_model_props(model, {"sizes": json.dumps(list(sizes)), "ranges": json.dumps(ranges or {})})
        return model


def case(*opsets):
    def add(function):
        for opset in opsets:
            CASES[f"{function.__name__}_{opset}"] = lambda opset=opset: function(Graph(opset))
        return function
    return add


BATCHES = ({"unk__1": 1}, {"unk__1": 3})


@case(7, 9, 11, 13, 15)
def image(g):
    """MobileNet: channels last outside, SAME padding of stride 2 (nothing before, one behind), normalization as a node."""
    x = g.to_first("image")
    x = g.clip(g.batch_norm(g.conv(x, 3, 8, strides=[2, 2], pads=[0, 0, 1, 1]), 8), 0, 6)
    y = g.clip(g.batch_norm(g.conv(x, 8, 8, group=8, pads=[1, 1, 1, 1]), 8), 0, 6)
    y = g.batch_norm(g.conv(y, 8, 8, 1), 8)
    y = g.to_last(g.op("Add", y, x))  # the same operation may follow in either layout
    y = g.op("Relu", g.op("Add", g.op("Mul", y, g.positive(8)), g.weights(8, scale=.2)))
    y = g.op("Reshape", g.op("ReduceMean", y, axes=[1, 2], keepdims=1), g.ints(-1, 8))
    y = g.op("Add", g.op("MatMul", y, g.weights(8, 6)), g.weights(6, scale=.2))
    y = g.op("Softmax", y, **({} if g.opset >= 13 else {"axis": 1}))
    return g.model({"image": (T.FLOAT, ["unk__1", 17, 16, 3])}, {"probs": (y, T.FLOAT, 2)}, BATCHES)


@case(9, 12)
def folded(g):
    """Frozen and optimized: a bias in each Conv, Relu6 and swish in pieces, squeeze-and-excite by ReduceMean over NHWC."""
    def conv(x, cin, cout, size, **more):
        return g.op("Conv", x, g.weights(cout, cin // more.get("group", 1), size, size), g.weights(cout, scale=.2),
                    kernel_shape=[size, size], dilations=[1, 1], **more)
    x = g.op("Relu", conv(g.to_first("image"), 3, 8, 3, strides=[2, 2], pads=[1, 1, 1, 1], group=1))
    x = g.op("Mul", x, g.op("Sigmoid", x))
    s = g.op("ReduceMean", g.to_last(x), axes=[1, 2], keepdims=1)
    s = g.op("Relu", conv(g.to_first(s), 8, 4, 1))
    x = g.op("Mul", x, g.op("Sigmoid", conv(s, 4, 8, 1)))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    x = g.op("AveragePool", conv(x, 8, 8, 5, auto_pad="SAME_UPPER", group=8), kernel_shape=[2, 2], strides=[1, 1], auto_pad="VALID")
    x = g.op("Reshape", g.to_last(x), g.ints(-1, 128))
    x = g.op("Gemm", x, g.weights(5, 128), g.weights(5, scale=.1), transB=1)
    return g.model({"image": (T.FLOAT, ["unk__1", 20, 20, 3])}, {"logits": (x, T.FLOAT, 2)}, BATCHES)


@case(9, 11, 13)
def sizes(g):
    """Reshape to what Shape says by StridedSlice, Pack and Prod; Tile and Expand by computed counts."""
    x = g.op("Relu", g.op("MatMul", "x", g.weights(6, 8)))
    n, t = g.size(x, 0), g.size(x, 1)
    y = g.op("Transpose", g.op("Reshape", x, g.shape(n, t, 2, 4)), perm=[0, 2, 1, 3])
    y = g.op("Reshape", y, g.shape(n, -1, 4))
    flat = g.op("Reshape", x, g.shape(g.op("Mul", n, t), 8))
    z = g.op("Reshape", g.op("MatMul", flat, g.weights(8, 3)), g.shape(n, t, 3))
    rows = g.op("Tile", g.weights(1, 1, 3), g.shape(n, t, 1))
    steps = g.op("Cast", g.op("Range", g.scalar(0, np.int32), g.size(x, 1, keep=False), g.scalar(1, np.int32)), to=T.FLOAT) \
        if g.opset >= 11 else g.op("Cast", g.op("Squeeze", g.op("NonZero", g.op("ConstantOfShape", g.op("Cast", t, to=T.INT64),
                                   value=numpy_helper.from_array(np.ones(1, np.float32)))), axes=[0]), to=T.FLOAT)
    z = g.op("Add", g.op("Add", z, rows), g.axes("Unsqueeze", g.axes("Unsqueeze", steps, [0]), [2]))
    last = g.axes("Squeeze", g.slice(z, [-1], [2**31 - 1], [1]), [1])
    ones = g.op("Expand", g.scalar(1.), g.shape(n, 2))
    return g.model({"x": (T.FLOAT, ["unk__1", "unk__2", 6])},
                   {"y": (y, T.FLOAT, 3), "z": (z, T.FLOAT, 3), "last": (last, T.FLOAT, 2), "ones": (ones, T.FLOAT, 2)},
                   ({"unk__1": 1, "unk__2": 5}, {"unk__1": 3, "unk__2": 2}))


@case(11, 13, 18)
def resize(g):
    """ResizeBilinear and ResizeNearestNeighbor in TensorFlow's three spellings of coordinates, to computed sizes."""
    x = g.conv(g.to_first("image"), 2, 4, pads=[1, 1, 1, 1])
    outs = {}
    shape = g.slice(g.op("Shape", x), [0], [2], [0])
    for i, (mode, coordinates, more) in enumerate((("linear", "half_pixel", {}), ("linear", "align_corners", {}),
                                                   ("linear", "asymmetric", {}), ("cubic", "half_pixel", {"cubic_coeff_a": -.5}),
                                                   ("nearest", "asymmetric", {"nearest_mode": "floor"}),
                                                   ("nearest", "half_pixel", {"nearest_mode": "round_prefer_floor"}),
                                                   ("nearest", "tf_half_pixel_for_nn", {"nearest_mode": "floor"}))):
        if coordinates == "tf_half_pixel_for_nn" and g.opset > 12:
            continue
        to = g.op("Concat", shape, g.ints(9 + i, 5), axis=0)
        empty = g.constant([], np.float32)
        y = g.op("Resize", x, empty, empty, to, mode=mode, coordinate_transformation_mode=coordinates, **more)
        outs[f"y{i}"] = g.to_last(g.op("Relu", y)), T.FLOAT, 4
    crop = g.op("Resize", x, g.constant([0, 0, .1, .2, 1, 1, .8, 1.1], np.float32), g.constant([], np.float32),
                g.op("Concat", shape, g.ints(4, 4), axis=0), mode="linear", coordinate_transformation_mode="tf_crop_and_resize",
                extrapolation_value=.5)
    outs["crop"] = crop, T.FLOAT, 4
    return g.model({"image": (T.FLOAT, ["unk__1", 6, 8, 2])}, outs, BATCHES)


@case(8, 9)
def upsample(g):
    """Before Resize there was Upsample; and everything else in its oldest spelling: Slice, Pad, TopK, Split by attributes."""
    x = g.conv(g.to_first("image"), 2, 6, pads=[0, 1, 2, 1])
    a, b = g.op("Split", x, outputs=2, axis=1, split=[2, 4])
    scales = {"scales": [1., 1., 2., 2.]} if g.opset < 9 else {}
    names = [] if g.opset < 9 else [g.constant([1, 1, 2, 2], np.float32)]
    a = g.op("Upsample", a, *names, mode="linear", **scales)
    b = g.op("Upsample", b, *names, mode="nearest", **scales)
    y = g.op("Pad", g.op("Concat", a, b, axis=1), pads=[0, 0, 1, 0, 0, 0, 0, 2], mode="reflect")
    y = g.op("Pad", g.slice(y, [1, -9], [6, 2**31 - 1], [1, 3]), pads=[0] * 4 + [0, 0, 1, 1], value=.5, mode="constant")
    flat = g.op("Flatten", y, axis=1)
    values, order = g.op("TopK", flat, outputs=2, k=3, axis=1)
    z = g.op("Gemm", g.slice(flat, [0], [10], [1]), g.weights(10, 4), g.weights(4), alpha=.5)
    return g.model({"image": (T.FLOAT, ["unk__1", 5, 6, 2])},
                   {"y": (y, T.FLOAT, 4), "values": (values, T.FLOAT, 2), "order": (order, T.INT64, 2), "z": (z, T.FLOAT, 2)},
                   BATCHES)


@case(9, 11, 14)
def recurrent(g):
    """Keras' LSTM and GRU as single nodes: time first, states made of zeros by computed sizes, one direction squeezed."""
    x = g.op("Transpose", "x", perm=[1, 0, 2])
    zeros = g.op("ConstantOfShape", g.shape(1, g.size("x", 0), 5), value=numpy_helper.from_array(np.zeros(1, np.float32)))
    lengths = g.op("Cast", g.op("Tile", g.constant([7], np.int32), g.shape(g.size("x", 0))), to=T.INT32)
    y, h, c = g.op("LSTM", x, g.weights(1, 20, 4), g.weights(1, 20, 5), g.weights(1, 40, scale=.1), lengths, zeros, zeros,
                   outputs=3, hidden_size=5, direction="forward")
    y = g.axes("Squeeze", y, [1])
    gru = {"linear_before_reset": 1} if g.opset > 9 else {}
    z, _ = g.op("GRU", y, g.weights(2, 9, 5), g.weights(2, 9, 3), g.weights(2, 18, scale=.1), outputs=2, hidden_size=3,
                direction="bidirectional", **gru)
    z = g.op("Reshape", g.op("Transpose", z, perm=[2, 0, 1, 3]), g.shape(g.size("x", 0), 7, 6))
    h = g.axes("Squeeze", h, [0])
    return g.model({"x": (T.FLOAT, ["unk__1", 7, 4])}, {"z": (z, T.FLOAT, 3), "h": (h, T.FLOAT, 2), "c": (c, T.FLOAT, 3)}, BATCHES)


def cell(g, x, state, inner):
    """A GRU's cell in TensorFlow's words, on the nodes of `inner`."""
    both = inner.op("Concat", x, state, axis=1)
    gates = inner.op("Sigmoid", inner.op("Add", inner.op("MatMul", both, g.weights(9, 10)), g.weights(10, scale=.1)))
    reset, update = inner.op("Split", gates, outputs=2, axis=1)
    candidate = inner.op("Tanh", inner.op("MatMul", inner.op("Concat", x, inner.op("Mul", reset, state), axis=1), g.weights(9, 5)))
    return inner.op("Add", inner.op("Mul", update, state),
                    inner.op("Mul", inner.op("Sub", g.scalar(1.), update), candidate))


@case(9, 11, 13)
def loop(g):
    """A while_v2 over time: a counter, Gather of one step, a TensorArray as scan output, weights of the outer scope."""
    inner = Graph(g.opset)
    step = inner.op("Gather", "time_first", "i", axis=0)
    state = cell(g, step, "state", inner)
    again = inner.op("Less", inner.op("Add", "counter", g.scalar(1, np.int32)), "count")
    body = helper.make_graph(
        inner.nodes + [helper.make_node("Identity", [state], ["state_out"]), helper.make_node("Identity", [state], ["frame"]),
                       helper.make_node("Add", ["counter", g.scalar(1, np.int32)], ["counter_out"]),
                       helper.make_node("Identity", [again], ["again"])],
        "while_body", [helper.make_tensor_value_info("i", T.INT64, []), helper.make_tensor_value_info("go", T.BOOL, []),
                       helper.make_tensor_value_info("counter", T.INT32, []),
                       helper.make_tensor_value_info("state", T.FLOAT, [None, 5])],
        [helper.make_tensor_value_info("again", T.BOOL, []), helper.make_tensor_value_info("counter_out", T.INT32, []),
         helper.make_tensor_value_info("state_out", T.FLOAT, [None, 5]), helper.make_tensor_value_info("frame", T.FLOAT, [None, 5])])
    g.nodes.append(helper.make_node("Transpose", ["x"], ["time_first"], perm=[1, 0, 2]))
    g.nodes.append(helper.make_node("Identity", [g.size("x", 1, keep=False)], ["count"]))
    start = g.op("ConstantOfShape", g.shape(g.size("x", 0), 5), value=numpy_helper.from_array(np.zeros(1, np.float32)))
    most = g.op("Cast", "count", to=T.INT64)
    _, last, frames = g.op("Loop", most, g.scalar(True, np.bool_), g.scalar(0, np.int32), start, outputs=3, body=body)
    frames = g.op("Transpose", frames, perm=[1, 0, 2])
    return g.model({"x": (T.FLOAT, ["unk__1", "unk__2", 4])}, {"frames": (frames, T.FLOAT, 3), "last": (last, T.FLOAT, 2)},
                   ({"unk__1": 1, "unk__2": 4}, {"unk__1": 2, "unk__2": 6}))


@case(9, 13)
def scan(g):
    inner = Graph(g.opset)
    state = cell(g, "frame", "state", inner)
    body = helper.make_graph(
        inner.nodes + [helper.make_node("Identity", [state], ["state_out"]), helper.make_node("Identity", [state], ["frame_out"])],
        "scan_body", [helper.make_tensor_value_info("state", T.FLOAT, [None, 5]), helper.make_tensor_value_info("frame", T.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("state_out", T.FLOAT, [None, 5]), helper.make_tensor_value_info("frame_out", T.FLOAT, [None, 5])])
    start = g.op("ConstantOfShape", g.shape(g.size("x", 0), 5), value=numpy_helper.from_array(np.zeros(1, np.float32)))
    last, frames = g.op("Scan", start, g.op("Transpose", "x", perm=[1, 0, 2]), outputs=2, body=body, num_scan_inputs=1)
    return g.model({"x": (T.FLOAT, ["unk__1", 6, 4])}, {"frames": (frames, T.FLOAT, 3), "last": (last, T.FLOAT, 2)}, BATCHES)


@case(12, 15)
def attention(g):
    """keras.layers.MultiHeadAttention: EinsumDense over [B,T,C] with heads as an axis, a mask by Select, normalization in
    pieces, gelu by Erf."""
    def norm(x):
        mean = g.op("ReduceMean", x, axes=[2], keepdims=1)
        apart = g.op("Sub", x, mean)
        variance = g.op("ReduceMean", g.op("Mul", apart, apart), axes=[2], keepdims=1)
        factor = g.op("Mul", g.op("Reciprocal", g.op("Sqrt", g.op("Add", variance, g.scalar(1e-6)))), g.positive(8))
        return g.op("Add", g.op("Mul", x, factor), g.op("Sub", g.weights(8, scale=.1), g.op("Mul", mean, factor)))
    x = g.op("Add", g.op("Gather", g.weights(20, 8, scale=1), "ids", axis=0), g.weights(1, 6, 8))
    y = norm(x)
    q, k, v = (g.op("Add", g.op("Einsum", y, g.weights(8, 2, 4, scale=.35), equation="abc,cde->abde"), g.weights(2, 4)) for _ in "qkv")
    q = g.op("Mul", q, g.scalar(.5))
    scores = g.op("Einsum", k, q, equation="aecd,abcd->acbe")
    seen = g.axes("Unsqueeze", g.axes("Unsqueeze", g.op("Not", g.op("Equal", "ids", g.scalar(0, np.int32))), [1]), [2])
    bias = g.op("Mul", g.op("Sub", g.scalar(1.), g.op("Cast", seen, to=T.FLOAT)), g.scalar(-1e9))
    weights = g.op("Softmax", g.op("Add", scores, bias), axis=3)
    z = g.op("Einsum", weights, v, equation="acbe,aecd->abcd")
    x = g.op("Add", x, g.op("Einsum", z, g.weights(2, 4, 8, scale=.35), equation="abcd,cde->abe"))
    flat = g.op("Reshape", norm(x), g.ints(-1, 8))
    h = g.op("Add", g.op("MatMul", flat, g.weights(8, 16)), g.weights(16, scale=.1))
    h = g.op("Mul", g.op("Mul", h, g.scalar(.5)), g.op("Add", g.op("Erf", g.op("Mul", h, g.scalar(2 ** -.5))), g.scalar(1.)))
    h = g.op("Reshape", g.op("MatMul", h, g.weights(16, 8)), g.shape(g.size("ids", 0), 6, 8))
    return g.model({"ids": (T.INT32, ["unk__1", 6])}, {"y": (g.op("Add", x, h), T.FLOAT, 3)}, BATCHES, {"ids": [0, 20]})


@case(10, 11, 13)
def detection(g):
    """SSD's end: boxes from anchors, scores by class, NonMaxSuppression, and what it selected gathered."""
    raw = g.op("Reshape", "boxes", g.ints(1, 16, 4))
    y, x, h, w = g.op("Split", raw, outputs=4, axis=2)
    centres = [g.op("Add", g.op("Mul", a, g.scalar(.1)), g.constant(g.random.uniform(0, 1, (1, 16, 1)), np.float32)) for a in (y, x)]
    halves = [g.op("Mul", g.op("Exp", g.op("Mul", a, g.scalar(.2))), g.scalar(.15)) for a in (h, w)]
    corners = g.op("Concat", *[g.op(op, c, s) for op in ("Sub", "Add") for c, s in zip(centres, halves)], axis=2)
    corners = g.clip(corners, 0, 1)
    scores = g.op("Transpose", g.op("Sigmoid", "logits"), perm=[0, 2, 1])
    count = g.op("Cast", g.op("Min", g.op("Cast", g.size("logits", 1), to=T.FLOAT), g.constant([5], np.float32)), to=T.INT64)
    chosen = g.op("NonMaxSuppression", corners, scores, count, g.constant([.5], np.float32), g.constant([.4], np.float32))
    which = g.axes("Squeeze", g.slice(chosen, [2], [3], [1]), [1])
    picked = g.op("Gather", g.axes("Squeeze", corners, [0]), g.op("Cast", which, to=T.INT32), axis=0)
    number = g.op("Cast", g.slice(g.op("Shape", which), [0], [1], [0]), to=T.FLOAT)
    return g.model({"boxes": (T.FLOAT, [1, 16, 1, 4]), "logits": (T.FLOAT, [1, 16, 3])},
                   {"picked": (picked, T.FLOAT, 2), "chosen": (chosen, T.INT64, 2), "number": (number, T.FLOAT, 1)})


@case(9, 11, 13)
def segmentation(g):
    """Atrous convolution by SpaceToBatch and BatchToSpace, a transposed convolution cut to size, the labels by ArgMax."""
    x = g.op("Relu", g.batch_norm(g.conv(g.to_first("image"), 3, 6, pads=[1, 1, 1, 1]), 6))
    pads = [0, 0, 2, 2, 0, 0, 2, 2]
    y = g.op("Pad", x, pads=pads) if g.opset < 11 else g.op("Pad", x, g.ints(*pads))
    y = g.op("Reshape", y, g.ints(-1, 6, 6, 2, 6, 2))
    y = g.op("Reshape", g.op("Transpose", y, perm=[3, 5, 0, 1, 2, 4]), g.ints(-1, 6, 6, 6))
    y = g.conv(y, 6, 6)
    y = g.op("Transpose", g.op("Reshape", y, g.ints(2, 2, -1, 6, 4, 4)), perm=[2, 3, 4, 0, 5, 1])
    y = g.op("Reshape", y, g.ints(-1, 6, 8, 8))
    y = g.op("DepthToSpace", g.op("Concat", x, y, axis=1), blocksize=2)
    up = g.op("ConvTranspose", y, g.weights(3, 4, 3, 3, scale=.3), kernel_shape=[3, 3], strides=[2, 2])
    up = g.slice(up, [0, 0], [32, 32], [2, 3])
    last = g.to_last(g.op("Softmax", g.to_last(up), axis=3)) if g.opset >= 13 else g.op("Sigmoid", g.to_last(up))
    labels = g.op("Cast", g.op("ArgMax", g.to_last(up), axis=3, keepdims=0), to=T.INT32)
    return g.model({"image": (T.FLOAT, ["unk__1", 8, 8, 3])}, {"probs": (last, T.FLOAT, 4), "labels": (labels, T.INT32, 3)}, BATCHES)


@case(11, 13)
def tabular(g):
    """Feature columns: OneHot, hash-like remainders, embeddings with a masked mean, Where, comparisons, ReduceProd, CumSum."""
    ids = g.op("Mod", "ids", g.scalar(10, np.int32))
    one = g.op("OneHot", ids, g.scalar(10, np.int32), g.constant([0, 1], np.float32), axis=-1)
    rows = g.op("Gather", g.weights(10, 4, scale=1), ids, axis=0)
    mask = g.axes("Unsqueeze", g.op("Cast", g.op("Greater", "ids", g.scalar(0, np.int32)), to=T.FLOAT), [2])
    total = g.axes("ReduceSum", g.op("Mul", rows, mask), [1], keepdims=0)
    mean = g.op("Div", total, g.op("Max", g.axes("ReduceSum", mask, [1], keepdims=0), g.scalar(1.)))
    x = g.op("Where", g.op("Less", "x", g.scalar(0.)), g.op("Mul", "x", g.scalar(.2)), "x")
    x = g.op("Concat", x, mean, g.axes("ReduceSum", one, [1], keepdims=0), axis=1)
    y = g.op("Add", g.op("MatMul", x, g.weights(17, 3)), g.weights(3))
    sums = g.op("CumSum", "x", g.scalar(1, np.int32), exclusive=1)
    return g.model({"ids": (T.INT32, ["unk__1", 5]), "x": (T.FLOAT, ["unk__1", 3])},
                   {"y": (y, T.FLOAT, 2), "sums": (sums, T.FLOAT, 2), "label": (g.op("ArgMax", y, axis=1, keepdims=0), T.INT64, 1)},
                   BATCHES, {"ids": [0, 30]})
