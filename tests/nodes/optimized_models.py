"""Two small float models, written as exporters write them, for onnxruntime's optimizer and quantizers to work on:
test_optimized.py. Not for accuracy: weights are random."""
import numpy as np
from onnx import helper, numpy_helper

OPSET = 13


class Builder:
    def __init__(self, seed):
        self.random, self.nodes, self.constants, self.count = np.random.default_rng(seed), [], [], 0

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape, scale=None):
        fan = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
        return self.constant((self.random.standard_normal(shape) * (scale or fan ** -.5)).astype(np.float32))

    def op(self, op, *inputs, outputs=1, **attributes):
        self.count += 1
        names = [f"{op.lower()}_{self.count}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}_{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def model(self, inputs, output, shape):
        self.nodes.append(helper.make_node("Identity", [output], ["y"], name="last"))
        graph = helper.make_graph(self.nodes, "small", inputs, [helper.make_tensor_value_info("y", 1, shape)], self.constants)
        return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", OPSET)])


def cnn():
    """Returns the model and a function that makes inputs."""
    b = Builder(3)

    def conv(x, cin, cout, size=3, **attributes):
        return b.op("Conv", x, b.weights(cout, cin // attributes.get("group", 1), size, size), b.weights(cout, scale=.1),
                    kernel_shape=[size, size], pads=[size // 2] * 4, **attributes)
    x = b.op("Relu", conv("x", 3, 16, strides=[2, 2]))
    x = b.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    side = b.op("Relu", b.op("Add", conv(b.op("Relu", conv(x, 16, 16, group=16)), 16, 16, 1), x))
    other = b.op("LeakyRelu", conv(x, 16, 16), alpha=.1)
    x = b.op("Concat", side, other, axis=1)
    gate = b.op("Sigmoid", conv(b.op("GlobalAveragePool", x), 32, 32, 1))
    x = b.op("Mul", x, gate)
    x = b.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.op("Clip", conv(x, 32, 24), b.constant(np.float32(0)), b.constant(np.float32(6)))
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    x = b.op("Softmax", b.op("Gemm", x, b.weights(24, 10), b.weights(10, scale=.1)), axis=-1)
    inputs = [helper.make_tensor_value_info("x", 1, ["N", 3, 32, 32])]
    return b.model(inputs, x, ["N", 10]), lambda r: {"x": r.standard_normal((2, 3, 32, 32)).astype(np.float32)}


def transformer(layers=2, width=32, heads=4):
    """BERT's shape: embeddings, masked attention, Gelu by Erf, LayerNormalization in pieces."""
    b = Builder(5)
    size = width // heads

    def norm(x):
        centred = b.op("Sub", x, b.op("ReduceMean", x, axes=[-1]))
        square = b.op("ReduceMean", b.op("Pow", centred, b.constant(np.float32(2))), axes=[-1])
        root = b.op("Sqrt", b.op("Add", square, b.constant(np.float32(1e-5))))
        ones = b.constant(b.random.uniform(.5, 1.5, width).astype(np.float32))
        return b.op("Add", b.op("Mul", b.op("Div", centred, root), ones), b.weights(width, scale=.2))

    def dense(x, cin, cout):
        return b.op("Add", b.op("MatMul", x, b.weights(cin, cout)), b.weights(cout, scale=.1))

    def split(x, perm):
        return b.op("Transpose", b.op("Reshape", x, b.constant(np.array([0, 0, heads, size], np.int64))), perm=perm)

    def attend(x, mask):
        q, k, v = (split(dense(x, width, width), perm) for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        scores = b.op("Div", b.op("MatMul", q, k), b.constant(np.float32(size ** .5)))
        y = b.op("MatMul", b.op("Softmax", b.op("Add", scores, mask), axis=3), v)
        y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.constant(np.array([0, 0, width], np.int64)))
        return dense(y, width, width)

    def gelu(x):
        bell = b.op("Add", b.op("Erf", b.op("Div", x, b.constant(np.float32(2 ** .5)))), b.constant(np.float32(1)))
        return b.op("Mul", b.op("Mul", x, bell), b.constant(np.float32(.5)))
    axes = b.constant(np.array([1, 2], np.int64))
    mask = b.op("Cast", b.op("Unsqueeze", "mask", axes), to=1)
    mask = b.op("Mul", b.op("Sub", b.constant(np.float32(1)), mask), b.constant(np.float32(-10000)))
    x = norm(b.op("Add", b.op("Gather", b.weights(50, width, scale=1.0), "ids"), b.weights(1, 8, width, scale=.5)))
    for _ in range(layers):
        x = norm(b.op("Add", attend(x, mask), x))
        x = norm(b.op("Add", dense(gelu(dense(x, width, 4 * width)), 4 * width, width), x))
    inputs = [helper.make_tensor_value_info(n, 7, ["B", 8]) for n in ("ids", "mask")]

    def feed(r):
        mask = np.ones((2, 8), np.int64)
        mask[0, 5:] = 0
        return {"ids": r.integers(0, 50, (2, 8)), "mask": mask}
    return b.model(inputs, x, ["B", 8, width]), feed
