"""Small quantized graphs as the tools write them: PyTorch's and TensorFlow's converters, onnxruntime's quantizer, by hand.
Each is (model, feeds, quanta): `quanta` is the step of each output, and outputs may differ by one of them. For test_qdq.py."""
import numpy as np
from onnx import TensorProto, helper, numpy_helper

U8, S8 = np.uint8, np.int8


class Graph:
    def __init__(self, seed, opset=13):
        self.random, self.opset = np.random.default_rng(seed), opset
        self.nodes, self.constants, self.inputs, self.outputs, self.quanta = [], [], [], [], []

    def name(self, kind):
        return f"{kind}_{len(self.nodes) + len(self.constants)}"

    def constant(self, array):
        name = self.name("c")
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, op, *inputs, domain="", **attributes):
        name = self.name(op.lower())
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name + "_node", domain=domain, **attributes))
        return name

    def input(self, name, shape, type=TensorProto.FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, type, shape))
        return name

    def output(self, value, quantum, type=TensorProto.FLOAT):
        self.outputs.append(helper.make_tensor_value_info(value, type, None))
        self.quanta.append(quantum)

    def params(self, scale, zero, type=U8):
        return self.constant(np.float32(scale)), self.constant(type(zero))

    def q(self, x, scale, zero, type=U8):
        return self.op("QuantizeLinear", x, *self.params(scale, zero, type))

    def dq(self, x, scale, zero, type=U8):
        return self.op("DequantizeLinear", x, *self.params(scale, zero, type))

    def pair(self, x, scale, zero, type=U8):
        return self.dq(self.q(x, scale, zero, type), scale, zero, type)

    def weights(self, shape, axis=None, type=S8, zero=0, most=63, scale=.01):
        """Integers under DequantizeLinear; returns the value, the scales."""
        n = shape[axis] if axis is not None else 1
        q = (self.random.integers(-most, most + 1, shape) + zero).astype(type)
        scales = (scale * self.random.uniform(.5, 1.5, n)).astype(np.float32)
        zeros = np.full(n, zero, type)
        if axis is None:
            return self.op("DequantizeLinear", self.constant(q), self.constant(scales[0]), self.constant(zeros[0])), scales
        return self.op("DequantizeLinear", self.constant(q), self.constant(scales), self.constant(zeros), axis=axis), scales

    def bias(self, n, scales):
        """int32 with the scale of the products, as the tools write it."""
        q = self.random.integers(-2000, 2000, n).astype(np.int32)
        scales = np.broadcast_to(scales, (n,)).astype(np.float32) if len(scales) > 1 else np.float32(scales[0])
        zeros = np.zeros(np.shape(scales), np.int32)
        axis = {"axis": 0} if np.ndim(scales) else {}
        return self.op("DequantizeLinear", self.constant(q), self.constant(scales), self.constant(zeros), **axis)

    def done(self):
        graph = helper.make_graph(self.nodes, "quantized", self.inputs, self.outputs, self.constants)
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, ir_version=8, opset_imports=imports)


def normal(shape, count=3, scale=1.0):
    random = np.random.default_rng(77)
    return [{"x": (random.standard_normal(shape) * scale).astype(np.float32)} for _ in range(count)]


def conv(activations=U8, zero=117, axis=0, weights=S8, weight_zero=0, most=63, group=1, relu=False, bias=True):
    """x -> pair -> Conv (-> Relu) -> pair."""
    g = Graph(1)
    x = g.pair(g.input("x", ["N", 8, 12, 12]), .03, zero, activations)
    w, scales = g.weights((16, 8 // group, 3, 3), axis, weights, weight_zero, most)
    y = g.op("Conv", *([x, w] + ([g.bias(16, .03 * scales)] if bias else [])), pads=[1] * 4, kernel_shape=[3, 3], group=group)
    if relu:
        y = g.op("Relu", y)
    out = .02 if relu else .04
    g.output(g.pair(y, out, 0 if relu and activations is U8 else 3, activations), out)
    return g.done(), normal((2, 8, 12, 12)), g.quanta


def depthwise():
    g = Graph(2)
    x = g.pair(g.input("x", ["N", 16, 9, 9]), .03, 128)
    w, scales = g.weights((16, 1, 3, 3), 0)
    y = g.op("Clip", g.op("Conv", x, w, g.bias(16, .03 * scales), group=16, pads=[1] * 4), g.constant(np.float32(0)),
             g.constant(np.float32(6)))
    g.output(g.pair(y, .0235, 0), .0235)
    return g.done(), normal((2, 16, 9, 9)), g.quanta


def torch_chain():
    """PyTorch's style: float weights through QuantizeLinear and DequantizeLinear, s8 activations, MaxPool between pairs of
    one scale, a residual sum, linear layers with transposed weights."""
    g = Graph(3)

    def fake(array, axis):
        scales = (np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis)) / 63).astype(np.float32)
        s, z = g.constant(scales), g.constant(np.zeros(len(scales), S8))
        q = g.op("QuantizeLinear", g.constant(array), s, z, axis=axis)
        return g.op("DequantizeLinear", q, s, z, axis=axis)
    w = g.random.standard_normal((8, 3, 3, 3)).astype(np.float32) * .2
    x = g.pair(g.input("x", ["N", 3, 16, 16]), 1 / 32, 0, S8)
    x = g.pair(g.op("Relu", g.op("Conv", x, fake(w, 0), g.constant(g.random.standard_normal(8).astype(np.float32) * .1),
                                 pads=[1] * 4)), 1 / 32, -128, S8)
    x = g.pair(g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 1 / 32, -128, S8)
    w = g.random.standard_normal((8, 8, 1, 1)).astype(np.float32) * .2
    y = g.pair(g.op("Conv", x, fake(w, 0)), 1 / 16, 5, S8)
    x = g.pair(g.op("Relu", g.op("Add", x, y)), 1 / 16, -128, S8)
    x = g.pair(g.op("GlobalAveragePool", x), 1 / 32, -128, S8)
    x = g.op("Flatten", x)
    w = g.random.standard_normal((10, 8)).astype(np.float32) * .3
    b = g.constant(g.random.standard_normal(10).astype(np.float32) * .1)
    x = g.op("Add", g.op("MatMul", x, g.op("Transpose", fake(w, 0), perm=[1, 0])), b)
    g.output(g.pair(x, 1 / 16, 0, S8), 1 / 16)
    return g.done(), normal((2, 3, 16, 16)), [3 / 16]  # three layers: each may differ by a quantum


def tf_style():
    """TensorFlow's style: channels last with Transpose around each convolution, weights turned, u8 with zero points."""
    g = Graph(4)
    x = g.pair(g.input("x", ["N", 10, 10, 4]), .025, 121)
    w, scales = g.weights((3, 3, 4, 8), 3)
    y = g.op("Conv", g.op("Transpose", x, perm=[0, 3, 1, 2]), g.op("Transpose", w, perm=[3, 2, 0, 1]),
             g.bias(8, .025 * scales), auto_pad="SAME_UPPER", strides=[2, 2])
    y = g.op("Transpose", y, perm=[0, 2, 3, 1])
    g.output(g.pair(g.op("Relu", y), .02, 0), .02)
    return g.done(), normal((2, 10, 10, 4)), g.quanta


def shared():
    """One QuantizeLinear with a DequantizeLinear for each reader, and integers given out as well."""
    g = Graph(5)
    q = g.q(g.input("x", ["N", 8, 6, 6]), .03, 100)
    g.output(q, 1, TensorProto.UINT8)
    for zero in (10, 200):
        w, scales = g.weights((8, 8, 1, 1), 0)
        y = g.op("Conv", g.dq(q, .03, 100), w, g.bias(8, .03 * scales))
        g.output(g.q(y, .03, zero), 1, TensorProto.UINT8)
    return g.done(), normal((1, 8, 6, 6)), g.quanta


def integers_in():
    """u8 in, u8 out, MaxPool and Reshape of integers between."""
    g = Graph(6)
    x = g.op("MaxPool", g.input("x", ["N", 4, 8, 8], TensorProto.UINT8), kernel_shape=[2, 2], strides=[2, 2])
    w, scales = g.weights((8, 4, 3, 3), 0)
    y = g.q(g.op("Conv", g.dq(x, .02, 50), w, g.bias(8, .02 * scales)), .03, 90)
    y = g.dq(g.op("Reshape", y, g.constant(np.array([0, -1], np.int64))), .03, 90)
    w, scales = g.weights((12, 32), 0)
    y = g.op("Gemm", y, w, g.bias(12, .03 * scales), transB=1)
    g.output(g.q(y, .1, 128), 2, TensorProto.UINT8)
    random = np.random.default_rng(5)
    return g.done(), [{"x": random.integers(0, 256, (3, 4, 8, 8)).astype(U8)} for _ in range(2)], g.quanta


def matmul(axis=1, type=S8, zero=0, shape=("N", 7, 24), most=63):
    g = Graph(7)
    x = g.pair(g.input("x", list(shape)), .03, 131)
    w, scales = g.weights((24, 20), axis, type, zero, most)
    y = g.op("Add", g.op("MatMul", x, w), g.bias(20, .03 * scales))
    g.output(g.pair(y, .05, 140), .05)
    return g.done(), normal((2,) + shape[1:]), g.quanta


def attention():
    """Products of two activations."""
    g = Graph(8)
    x = g.input("x", ["N", 2, 9, 16])
    a, b = g.pair(g.op("Mul", x, g.constant(np.float32(.5))), .02, 128), g.pair(x, .03, 120)
    y = g.pair(g.op("MatMul", a, g.op("Transpose", b, perm=[0, 1, 3, 2])), .07, 120)
    p = g.pair(g.op("Softmax", y, axis=-1), 1 / 255, 0)
    g.output(g.pair(g.op("MatMul", p, b), .02, 128), .02)
    return g.done(), normal((2, 2, 9, 16)), [.04]


def transposed():
    g = Graph(9)
    x = g.pair(g.input("x", ["N", 6, 5, 5]), .03, 128)
    w, scales = g.weights((6, 8, 4, 4), 1)
    y = g.op("ConvTranspose", x, w, g.bias(8, .03 * scales), strides=[2, 2], pads=[1] * 4)
    g.output(g.pair(y, .04, 128), .04)
    return g.done(), normal((2, 6, 5, 5)), g.quanta


def two_scales():
    """The same tensor under two scales, one after the other, and read as floats besides."""
    g = Graph(10)
    x = g.op("Relu", g.input("x", ["N", 8, 6, 6]))
    for scale in (.02, .05):
        w, scales = g.weights((8, 8, 1, 1), 0)
        y = g.op("Conv", g.pair(g.pair(x, scale, 3), scale * 2, 7), w, g.bias(8, 2 * scale * scales))
        g.output(g.pair(y, .05, 120), .05)
    g.output(g.op("Exp", g.op("Neg", x)), 1e-6)
    return g.done(), normal((2, 8, 6, 6)), g.quanta


def plain_ops():
    """Pairs around operators without an integer form have their effect all the same."""
    g = Graph(11)
    x = g.pair(g.input("x", ["N", 16]), .05, 60)
    y = g.pair(g.op("Sin", x), .01, 90)
    z = g.pair(g.op("ReduceSum", g.op("Mul", y, x), g.constant(np.array([1], np.int64)), keepdims=1), .1, 128)
    g.output(z, .1)
    g.output(g.pair(g.op("Sigmoid", y), 1 / 256, 0), 1 / 256)
    return g.done(), normal((5, 16), scale=3), g.quanta


def words(type=np.uint16, zero=30000):
    """16 bits: as they are written."""
    g = Graph(12, opset=21)
    x = g.pair(g.input("x", ["N", 8, 6, 6]), 2e-4, zero, type)
    w, scales = g.weights((8, 8, 1, 1), 0)
    g.output(g.pair(g.op("Conv", x, w), 2e-4, zero, type), 2e-4)
    return g.done(), normal((2, 8, 6, 6)), g.quanta


def qlinear_conv(type=U8, weight_zero=0, axis=0):
    g = Graph(13)
    x, weights = g.input("x", ["N", 8, 10, 10]), S8 if type is S8 else U8
    q = g.q(x, .03, 3 if type is S8 else 120, type)
    n = 12 if axis == 0 else 1
    scales = (g.random.uniform(.5, 1.5, n) * .01).astype(np.float32)
    w = (g.random.integers(-63, 64, (12, 8, 3, 3)) + weight_zero).astype(weights)
    b = g.random.integers(-2000, 2000, 12).astype(np.int32)
    zeros = np.full(n, weight_zero, weights)
    y = g.op("QLinearConv", q, *g.params(.03, 3 if type is S8 else 120, type), g.constant(w),
             g.constant(scales if axis == 0 else scales[0]), g.constant(zeros if axis == 0 else zeros[0]),
             *g.params(.04, 0 if type is S8 else 128, type), g.constant(b), pads=[1] * 4)
    y = g.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = g.op("QLinearAdd", y, *g.params(.04, 0 if type is S8 else 128, type), y,
             *g.params(.04, 0 if type is S8 else 128, type), *g.params(.08, 0 if type is S8 else 128, type),
             domain="com.microsoft")
    y = g.op("QLinearGlobalAveragePool", y, *g.params(.08, 0 if type is S8 else 128, type),
             *g.params(.04, 0 if type is S8 else 128, type), domain="com.microsoft", channels_last=0)
    g.output(g.dq(y, .04, 0 if type is S8 else 128, type), .04)
    return g.done(), normal((2, 8, 10, 10)), [.08]


def qlinear_matmul():
    g = Graph(14)
    q = g.q(g.input("x", [5, 24]), .03, 120)
    w = (g.random.integers(-63, 64, (24, 16)) + 128).astype(U8)
    y = g.op("QLinearMatMul", q, *g.params(.03, 120), g.constant(w), *g.params(.01, 128), *g.params(.05, 128))
    w = g.random.integers(-63, 64, (9, 16)).astype(S8)
    b = g.random.integers(-2000, 2000, 9).astype(np.int32)
    scales = (g.random.uniform(.5, 1.5, 9) * .01).astype(np.float32)
    y = g.op("QGemm", y, *g.params(.05, 128), g.constant(w), g.constant(scales), g.constant(np.zeros(9, S8)), g.constant(b),
             *g.params(.06, 128), domain="com.microsoft", transB=1)
    g.output(g.dq(y, .06, 128), .06)
    return g.done(), normal((5, 24)), [.12]


def dynamic(conv=False, contrib=False, axis=None):
    """onnxruntime's quantize_dynamic: each request's own range; two layers share one DynamicQuantizeLinear."""
    g = Graph(15)
    x = g.input("x", ["N", 8, 10, 10] if conv else ["N", 7, 24])
    names = [g.name("dynamic") + part for part in ("q", "s", "z")]
    if not contrib:
        g.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], names, name="dynamic"))
    for n in (16, 12):
        shape, type, zero = ((n, 8, 3, 3) if conv else (24, n)), (S8 if axis else U8), 0 if axis else 120
        w = g.constant((g.random.integers(-63, 64, shape) + zero).astype(type))
        scales = (g.random.uniform(.5, 1.5, n if axis else 1) * .01).astype(np.float32)
        s, z = g.constant(scales if axis else scales[0]), g.constant(np.full(n, zero, type) if axis else type(zero))
        if contrib:
            y = g.op("DynamicQuantizeMatMul", x, w, s, z, domain="com.microsoft")
        else:
            attributes = {"pads": [1] * 4, "kernel_shape": [3, 3]} if conv else {}
            y = g.op("ConvInteger" if conv else "MatMulInteger", names[0], w, names[2], z, **attributes)
            y = g.op("Mul", g.op("Cast", y, to=1), g.op("Mul", names[1], s))
        bias = g.random.standard_normal((1, n, 1, 1) if conv else n).astype(np.float32)
        g.output(g.op("Relu", g.op("Add", y, g.constant(bias))), .02)
    return g.done(), normal((2, 8, 10, 10) if conv else (2, 7, 24), scale=2), g.quanta


# name: (what makes it, layers that run in integers, whether onnxruntime's own integer kernels are compared too)
CASES = {
    "conv u8": (conv, 1, True),
    "conv u8, per tensor": (lambda: conv(axis=None), 1, True),
    "conv u8, Relu": (lambda: conv(relu=True), 1, True),
    "conv s8": (lambda: conv(S8, -9), 1, True),
    "conv s8, Relu": (lambda: conv(S8, 4, relu=True), 1, True),
    "conv, u8 weights": (lambda: conv(weights=U8, weight_zero=128), 1, True),
    "conv, u8 weights of zero point 70": (lambda: conv(weights=U8, weight_zero=70, axis=None), 1, True),
    "conv, weights to -128": (lambda: conv(most=128 - 1, weight_zero=-1), 1, False),
    "conv, u8 weights beyond s8": (lambda: conv(weights=U8, weight_zero=40, most=100, axis=None), 0, True),
    "conv in groups": (lambda: conv(group=4), 1, True),
    "conv without bias": (lambda: conv(bias=False), 1, True),
    "depthwise": (depthwise, 1, True),
    "transposed convolution": (transposed, 1, True),
    "PyTorch": (torch_chain, 3, True),
    "TensorFlow": (tf_style, 1, True),
    "shared": (shared, 2, True),
    "integers in and out": (integers_in, 2, True),
    "MatMul": (matmul, 1, True),
    "MatMul, per tensor, u8": (lambda: matmul(None, U8, 128), 1, True),
    "MatMul, rows": (lambda: matmul(shape=("N", 24)), 1, True),
    "attention": (attention, 0, True),
    "two scales": (two_scales, 2, False),
    "plain operators": (plain_ops, 0, True),
    "16 bits, unsigned": (words, 0, False),
    "16 bits, signed": (lambda: words(np.int16, -7), 0, False),
    "QLinearConv u8, weights beyond s8": (qlinear_conv, 0, True),
    "QLinearConv u8": (lambda: qlinear_conv(weight_zero=90), 1, True),
    "QLinearConv s8": (lambda: qlinear_conv(S8), 1, True),
    "QLinearConv, zero point 128": (lambda: qlinear_conv(weight_zero=128, axis=None), 1, True),
    "QLinearMatMul, QGemm": (qlinear_matmul, 2, True),
    "dynamic, MatMulInteger": (dynamic, 2, True),
    "dynamic, MatMulInteger, per channel": (lambda: dynamic(axis=1), 2, True),
    "dynamic, ConvInteger": (lambda: dynamic(conv=True), 2, True),
    "dynamic, DynamicQuantizeMatMul": (lambda: dynamic(contrib=True), 2, True),
}
