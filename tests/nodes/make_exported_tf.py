#!/usr/bin/env python3
"""Small random networks of many kinds, written by tf2onnx: what test_exporters.py runs beside PyTorch's. They lie in
tests/nodes/exported_tf.tar.xz, so that no test needs TensorFlow; this writes them again (with tensorflow and tf2onnx).

    make_exported_tf.py OUT.tar.xz [part-of-a-name ...]

A file's metadata says how to feed it, as make_exported.py has it."""
import io
import json
import os
import sys
import tarfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

try:
    import numpy as np
    import onnx
    import tensorflow as tf
    import tf2onnx
except ImportError as error:
    print(f"SKIP: {error.name or error}: these networks are written by tf2onnx")
    sys.exit(77)

CASES = {}
L = tf.keras.layers


def case(opsets, sizes=({},), ranges=None):
    """A function without arguments that gives a TensorFlow function (or a Keras model) and the TensorSpecs of its inputs."""
    def add(function):
        for opset in opsets:
            CASES[f"{function.__name__}_{opset}"] = function, opset, list(sizes), ranges or {}
        return function
    return add


def spec(name, *shape, dtype=tf.float32):
    return tf.TensorSpec(shape, dtype, name=name)


def weights(*shape, scale=.3):
    return tf.constant(np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape) * scale, tf.float32)


BATCHES = ({"": 1}, {"": 3})  # tf2onnx's names of dimensions are of one run: "" is any


@case((9, 13, 18), BATCHES)
def mobile():
    """Separable and depthwise convolutions, batch normalization, Relu6, swish, squeeze-and-excite."""
    x = i = L.Input((17, 16, 3), name="image")
    x = L.ReLU(6)(L.BatchNormalization()(L.Conv2D(6, 3, 2, padding="same", use_bias=False)(x)))
    y = L.Activation("swish")(L.BatchNormalization()(L.DepthwiseConv2D(5, padding="same")(x)))
    s = L.Reshape((1, 1, 6))(L.GlobalAveragePooling2D()(y))
    y = L.Multiply()([y, L.Conv2D(6, 1, activation="sigmoid")(L.Conv2D(3, 1, activation="relu")(s))])
    x = L.Add()([x, L.Conv2D(6, 1)(y)])
    x = L.SeparableConv2D(8, 3, 2, padding="valid", activation="elu")(x)
    x = L.MaxPooling2D(2, padding="same")(L.ZeroPadding2D(((0, 1), (1, 0)))(x))
    x = L.Dense(5, activation="softmax")(L.Flatten()(x))
    return tf.keras.Model(i, x), [spec("image", None, 17, 16, 3)]


@case((11, 15), BATCHES)
def unet():
    x = i = L.Input((12, 12, 1), name="image")
    a = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    b = L.Conv2D(6, 3, padding="same", dilation_rate=2, activation="relu")(L.AveragePooling2D(2)(a))
    c = L.Conv2DTranspose(4, 3, 2, padding="same")(b)
    d = L.Conv2D(2, 3, padding="same")(L.Concatenate()([L.UpSampling2D(2, interpolation="bilinear")(b), c, a]))
    return tf.keras.Model(i, [L.Softmax()(d), L.UpSampling2D(2)(d)]), [spec("image", None, 12, 12, 1)]


@case((11, 13), BATCHES)
def lstm():
    x = i = L.Input((7, 4), name="x")
    x = L.Bidirectional(L.LSTM(4, return_sequences=True))(x)
    return tf.keras.Model(i, [L.Dense(3)(x), L.GRU(3)(x), L.GRU(3, reset_after=False, return_sequences=True)(x)]), \
        [spec("x", None, 7, 4)]


@case((13, 17), ({"": 6},), {"ids": [0, 20]})
def attention():
    """keras.layers.MultiHeadAttention over embeddings."""
    i = L.Input((6,), dtype="int32", name="ids")
    x = L.Embedding(20, 8)(i)
    y = L.MultiHeadAttention(2, 4)(L.LayerNormalization()(x), L.LayerNormalization()(x))
    x = L.Add()([x, y])
    return tf.keras.Model(i, L.Add()([x, L.Dense(8)(L.Dense(12, activation=lambda t: tf.keras.activations.gelu(t, approximate=True))(x))])), [spec("ids", None, 6, dtype=tf.int32)]


@case((11, 13), ({"": 4}, {"": 6}))
def resizing():
    @tf.function
    def net(image):
        size = tf.shape(image)[1:3]
        return (tf.image.resize(image, size * 2), tf.image.resize(image, (5, 9), "nearest"),
                tf.compat.v1.image.resize_bilinear(image, size + 3, align_corners=True),
                tf.compat.v1.image.resize_nearest_neighbor(image, size * 2),
                tf.image.crop_and_resize(image, [[.1, .2, .8, 1.]], [0], [3, 3]),
                tf.pad(image, [[0, 0], [1, 2], [2, 1], [0, 0]], "REFLECT"), tf.nn.depth_to_space(tf.concat([image, image], 3), 2))
    return net, [spec("image", 1, None, None, 2)]


@case((13, 17), ({"": 2}, {"": 5}))
def slicing():
    @tf.function
    def net(x):
        n = tf.shape(x)[0]
        y = tf.reshape(x, tf.stack([n, -1, 2]))
        z = x[:, ::-2, 1:-1, tf.newaxis]
        mask = tf.sequence_mask([1, 3, 4], 4)
        return (y, z, x[..., -1], tf.tile(x[:1], [n, 1, 1]), tf.reverse(x, [1]), tf.cumsum(x, 1, exclusive=True),
                tf.where(x > 0, x, tf.zeros_like(x)), tf.gather(x, [3, 0], axis=1), tf.one_hot(tf.argmax(x, 2), 4),
                tf.reduce_logsumexp(x, 1), tf.nn.top_k(x, 2).values, tf.cast(mask, tf.float32) + x[0, 0, 0],
                tf.gather_nd(x, [[0, 1], [1, 2]]), tf.linalg.band_part(x, 1, 0), tf.einsum("abc,adc->abd", x, x),
                tf.broadcast_to(x[:, :1], tf.shape(x)), tf.math.floormod(x, .3),
                tf.space_to_batch_nd(tf.expand_dims(x, -1), [2, 2], [[0, 0], [0, 0]]),
                tf.range(n), tf.fill([n, 2], 1.5), tf.tensor_scatter_nd_update(x[0], [[0], [2]], x[1, :2]))
    return net, [spec("x", None, 4, 4)]


@case((11, 13), ({"": 3}, {"": 6}))
def loop():
    """tf.while_loop with a TensorArray, and tf.cond."""
    w = weights(9, 5)

    @tf.function
    def net(x):
        frames = tf.TensorArray(tf.float32, tf.shape(x)[0])

        def step(i, state, frames):
            state = tf.tanh(tf.concat([x[i], state], 1) @ w)
            return i + 1, state, frames.write(i, state)
        _, state, frames = tf.while_loop(lambda i, *_: i < tf.shape(x)[0], step, (0, tf.zeros((2, 5)), frames))
        return frames.stack(), tf.cond(tf.reduce_sum(x) > 0, lambda: state * 2, lambda: state - 1)
    return net, [spec("x", None, 2, 4)]


@case((11, 13))
def detection():
    @tf.function
    def net(boxes, scores):
        corners = tf.concat([boxes[:, :2] - .2, boxes[:, :2] + tf.exp(boxes[:, 2:] * .2) * .3], 1)
        chosen = tf.image.non_max_suppression(corners, scores[:, 0], 5, .4, .1)
        return tf.gather(corners, chosen), tf.gather(scores, chosen), tf.size(chosen)
    return net, [spec("boxes", 16, 4), spec("scores", 16, 3)]


def settle(model):
    random = np.random.default_rng(7)
    for variable in getattr(model, "variables", ()):
        name = variable.path.rsplit("/", 1)[-1]
        if name in ("moving_variance", "gamma"):
            variable.assign(random.uniform(.5, 1.5, variable.shape))
        elif name in ("moving_mean", "beta", "bias"):
            variable.assign(random.standard_normal(variable.shape) * .2)


def export(name):
    make, opset, sizes, ranges = CASES[name]
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(7)
    net, specs = make()
    settle(net)
    function = net if not isinstance(net, tf.keras.Model) else tf.function(lambda x: net(x, training=False))
    model, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=opset)
    onnx.helper.set_model_props(model, {"sizes": json.dumps(sizes), "ranges": json.dumps(ranges)})
    return model


def main():
    parts, failed = sys.argv[2:], 0
    with tarfile.open(sys.argv[1], "w:xz", preset=9) as out:
        for name in CASES:
            if parts and not any(p in name for p in parts):
                continue
            try:
                model = export(name)
            except Exception as error:  # the converter's own, of many classes
                print(f"FAIL {name}: {str(error).strip().splitlines()[:3]}")
                failed += 1
                continue
            data = model.SerializeToString(deterministic=True)
            about = tarfile.TarInfo(name + ".onnx")
            about.size = len(data)
            out.addfile(about, io.BytesIO(data))
            print(f"{name}: {len(data)} bytes, opset {model.opset_import[0].version}, "
                  + " ".join(sorted({n.op_type for n in model.graph.node})))
    print(f"{os.path.getsize(sys.argv[1])} bytes, tensorflow {tf.__version__}, tf2onnx {tf2onnx.__version__}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
