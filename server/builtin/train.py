#!/usr/bin/env python3
"""Trains the built-in digit classifier and writes digits.onnx and digits.json beside this file.

    python3 -m venv V && V/bin/pip install numpy==2.4.6 onnx==1.23.2 && V/bin/python server/builtin/train.py

Plain numpy on one thread, about five minutes. Nothing is random but one seeded generator: the same numpy on the
same CPU writes the same bytes; another CPU may differ in the last bits of a sum. The held-out digits are looked at
only after the last epoch, to print their accuracy: nothing in a run is chosen by them. Not part of the build: its
outputs are committed. BatchNormalization stays a node, so that quantd's own fusion has something to do.
"""
import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402

import numpy as np  # noqa: E402

import dataset  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20240611
CHANNELS = (1, 16, 32, 32)  # three blocks of Conv 3x3, BatchNormalization, Relu, MaxPool 2x2
SIDE = 3  # 28 -> 14 -> 7 -> 3
HIDDEN, CLASSES = 64, 10
EPSILON = 1e-5
BATCH, PEAK_RATE, DECAY = 64, 3e-3, 1e-4
PER_CLASS = 4  # digits of each class in digits.json
F = np.float32


# ---- augmentation: rotation, scale, shear, shift and a smooth warp, sampled bilinearly ----

def augment(x, rng, strength):
    n, h, w, _ = x.shape
    angle = rng.uniform(-0.21, 0.21, n) * strength
    grow_y, grow_x = 1 + rng.uniform(-0.12, 0.12, (2, n)) * strength
    shear = rng.uniform(-0.15, 0.15, n) * strength
    shift = rng.uniform(-2, 2, (2, n)) * strength
    yy, xx = np.meshgrid(np.arange(h) - (h - 1) / 2, np.arange(w) - (w - 1) / 2, indexing="ij")
    c, s = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    sy = (c * yy - s * xx) * grow_y[:, None, None]
    sx = (s * yy + c * xx) * grow_x[:, None, None] + shear[:, None, None] * yy
    knots = 6
    at = np.linspace(0, knots - 1, h)
    hat = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(knots)))
    warp = hat @ rng.normal(0, 0.8 * strength, (2, n, knots, knots)) @ hat.T
    sy = sy + warp[0] + shift[0][:, None, None] + (h - 1) / 2
    sx = sx + warp[1] + shift[1][:, None, None] + (w - 1) / 2
    pad = np.zeros((n, h + 2, w + 2), F)  # a border of zeros takes every sample outside
    pad[:, 1:-1, 1:-1] = x[..., 0]
    sy, sx = np.clip(sy + 1, 0, h + 0.999), np.clip(sx + 1, 0, w + 0.999)
    iy, ix = sy.astype(np.int32), sx.astype(np.int32)
    fy, fx = (sy - iy).astype(F), (sx - ix).astype(F)
    flat = pad.ravel()
    base = np.arange(n)[:, None, None] * ((h + 2) * (w + 2)) + iy * (w + 2) + ix
    top = flat[base] * (1 - fx) + flat[base + 1] * fx
    bottom = flat[base + w + 2] * (1 - fx) + flat[base + w + 3] * fx
    return (top * (1 - fy) + bottom * fy)[..., None]


# ---- the network, n h w c inside; forward and backward by hand ----

def columns(x):
    n, h, w, c = x.shape
    pad = np.zeros((n, h + 2, w + 2, c), F)
    pad[:, 1:-1, 1:-1] = x
    out = np.empty((n, h, w, 9, c), F)
    for k in range(9):
        out[:, :, :, k] = pad[:, k // 3:k // 3 + h, k % 3:k % 3 + w]
    return out.reshape(n * h * w, 9 * c)


def initial(rng):
    p, running = {}, {}
    for i in (1, 2, 3):
        fan = 9 * CHANNELS[i - 1]
        p[f"conv{i}_w"] = rng.normal(0, np.sqrt(2 / fan), (fan, CHANNELS[i])).astype(F)
        p[f"bn{i}_scale"], p[f"bn{i}_bias"] = np.ones(CHANNELS[i], F), np.zeros(CHANNELS[i], F)
        running[f"bn{i}_mean"], running[f"bn{i}_var"] = np.zeros(CHANNELS[i], F), np.ones(CHANNELS[i], F)
    for name, k, n in (("fc1", SIDE * SIDE * CHANNELS[3], HIDDEN), ("fc2", HIDDEN, CLASSES)):
        p[f"{name}_w"] = rng.normal(0, np.sqrt(2 / k), (k, n)).astype(F)
        p[f"{name}_b"] = np.zeros(n, F)
    return p, running


def forward(p, running, x, rng=None):
    """-> logits, tape. With a generator it trains: batch statistics and dropout; without, it infers."""
    tape = []
    for i in (1, 2, 3):
        n, h, w, _ = x.shape
        cols = columns(x)
        y = cols @ p[f"conv{i}_w"]
        if rng is None:
            mean, var = running[f"bn{i}_mean"], running[f"bn{i}_var"]
        else:
            mean, var = y.mean(0), y.var(0)
            running[f"bn{i}_mean"] += F(0.05) * (mean - running[f"bn{i}_mean"])
            running[f"bn{i}_var"] += F(0.05) * (var - running[f"bn{i}_var"])
        inv = 1 / np.sqrt(var + F(EPSILON))
        unit = (y - mean) * inv
        y = np.maximum(unit * p[f"bn{i}_scale"] + p[f"bn{i}_bias"], 0).reshape(n, h, w, -1)
        half_h, half_w = h // 2, w // 2
        cells = y[:, :2 * half_h, :2 * half_w].reshape(n, half_h, 2, half_w, 2, -1)
        x = cells.max(axis=(2, 4))
        tape.append((cols, inv, unit, y, cells, x))
    flat = x.reshape(len(x), -1)
    hidden = np.maximum(flat @ p["fc1_w"] + p["fc1_b"], 0)
    keep = None
    if rng is not None:
        keep = (rng.random(hidden.shape) > 0.2).astype(F) / F(0.8)
        hidden = hidden * keep
    return hidden @ p["fc2_w"] + p["fc2_b"], (tape, flat, hidden, keep)


def backward(p, saved, d):
    tape, flat, hidden, keep = saved
    g = {"fc2_w": hidden.T @ d, "fc2_b": d.sum(0)}
    d = (d @ p["fc2_w"].T) * keep * (hidden > 0)
    g["fc1_w"], g["fc1_b"] = flat.T @ d, d.sum(0)
    d = (d @ p["fc1_w"].T).reshape(tape[2][5].shape)
    for i in (3, 2, 1):
        cols, inv, unit, y, cells, pooled = tape[i - 1]
        n, h, w, c = y.shape
        hit = (cells == pooled[:, :, None, :, None]) & (cells > 0)  # a tie passes to each; ties of zeros pass none
        dy = np.zeros_like(y)
        dy[:, :cells.shape[1] * 2, :cells.shape[3] * 2] = (hit * d[:, :, None, :, None]).reshape(
            n, cells.shape[1] * 2, cells.shape[3] * 2, c)
        dy = dy.reshape(-1, c)
        g[f"bn{i}_scale"], g[f"bn{i}_bias"] = (dy * unit).sum(0), dy.sum(0)
        m = F(len(dy))
        dz = (p[f"bn{i}_scale"] * inv) * (dy - g[f"bn{i}_bias"] / m - unit * (g[f"bn{i}_scale"] / m))
        g[f"conv{i}_w"] = cols.T @ dz
        if i > 1:  # the gradient of a convolution is the convolution with the mirrored kernel
            mirrored = p[f"conv{i}_w"].reshape(9, CHANNELS[i - 1], c)[::-1].transpose(0, 2, 1).reshape(9 * c, -1)
            d = (columns(dz.reshape(n, h, w, c)) @ mirrored).reshape(n, h, w, -1)
    return g


def train(x, labels, epochs, rng):
    p, running = initial(rng)
    first, second = ({k: np.zeros_like(v) for k, v in p.items()} for _ in range(2))
    steps, step = epochs * (len(x) // BATCH), 0
    for epoch in range(epochs):
        began, total = time.monotonic(), 0.0
        order = rng.permutation(len(x))
        strength = 1.0 if epoch < 0.85 * epochs else 0.5  # the last epochs settle on digits nearer to real ones
        shown, target = augment(x[order], rng, strength), labels[order]
        for at in range(0, len(x) - BATCH + 1, BATCH):
            logits, saved = forward(p, running, shown[at:at + BATCH], rng)
            e = np.exp(logits - logits.max(1, keepdims=True))
            prob = e / e.sum(1, keepdims=True)
            rows, want = np.arange(BATCH), target[at:at + BATCH]
            total -= np.log(prob[rows, want] + 1e-9).sum()
            prob[rows, want] -= 1
            g = backward(p, saved, prob / F(BATCH))
            step += 1
            done = step / steps
            rate = PEAK_RATE * min(done / 0.1, 0.5 + 0.5 * np.cos(np.pi * max(0, done - 0.1) / 0.9))
            for k in p:  # Adam with decoupled decay
                first[k] += F(0.1) * (g[k] - first[k])
                second[k] += F(0.001) * (g[k] * g[k] - second[k])
                move = (first[k] / F(1 - 0.9**step)) / (np.sqrt(second[k] / F(1 - 0.999**step)) + F(1e-8))
                p[k] -= F(rate) * (move + F(DECAY if k.endswith("_w") else 0) * p[k])
        print(f"epoch {epoch + 1}/{epochs} loss {total / len(x):.4f} {time.monotonic() - began:.1f} s", flush=True)
    return p, running


# ---- the ONNX file, made by hand so that its names and bytes are ours ----

def to_onnx(p, running):
    from onnx import TensorProto, checker, helper, numpy_helper

    weights, nodes, shapes = [], [], []

    def constant(name, value):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(value, F), name))
        return name

    def node(op, name, inputs, output=None, **attributes):
        output = output or f"{name}_out"
        nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    at, side = "image", dataset.HEIGHT
    for i in (1, 2, 3):
        w = p[f"conv{i}_w"].reshape(3, 3, CHANNELS[i - 1], CHANNELS[i]).transpose(3, 2, 0, 1)
        at = node("Conv", f"conv{i}", [at, constant(f"conv{i}_weight", w)], kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                  strides=[1, 1])
        bn = [constant(f"bn{i}_{part}", source[f"bn{i}_{part}"])
              for part, source in (("scale", p), ("bias", p), ("mean", running), ("var", running))]
        at = node("BatchNormalization", f"bn{i}", [at, *bn], epsilon=EPSILON)
        at = node("Relu", f"relu{i}", [at])
        at = node("MaxPool", f"pool{i}", [at], kernel_shape=[2, 2], strides=[2, 2])
        side //= 2
        shapes.append(helper.make_tensor_value_info(at, TensorProto.FLOAT, ["batch", CHANNELS[i], side, side]))
    at = node("Flatten", "flatten", [at], axis=1)
    # h w c -> c h w, for Flatten runs over n c h w
    w = p["fc1_w"].reshape(SIDE, SIDE, CHANNELS[3], HIDDEN).transpose(3, 2, 0, 1).reshape(HIDDEN, -1)
    at = node("Gemm", "fc1", [at, constant("fc1_weight", w), constant("fc1_bias", p["fc1_b"])], transB=1)
    at = node("Relu", "relu4", [at])
    at = node("Gemm", "fc2", [at, constant("fc2_weight", p["fc2_w"].T), constant("fc2_bias", p["fc2_b"])], "logits",
              transB=1)
    node("Softmax", "softmax", [at], "probabilities", axis=1)

    graph = helper.make_graph(
        nodes, "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, dataset.HEIGHT, dataset.WIDTH])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", CLASSES])
         for name in ("logits", "probabilities")],
        weights, "handwritten digits 0..9; image: white ink on black, pixels 0..1", shapes)
    model = helper.make_model(graph, producer_name="quantd server/builtin/train.py", ir_version=8,
                              opset_imports=[helper.make_opsetid("", 17)])
    checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def to_json(pixels, labels):
    """The first few held-out digits of each class: not chosen by whether the model gets them right."""
    seen, lines = [0] * CLASSES, []
    for image, label in zip(pixels, labels):
        if seen[label] < PER_CLASS:
            seen[label] += 1
            lines.append(json.dumps({"label": int(label), "pixels": image.ravel().tolist()}, separators=(",", ":")))
    head = f'{{"height":{dataset.HEIGHT},"width":{dataset.WIDTH},"scale":{dataset.SCALE},"digits":[\n'
    return head + ",\n".join(lines) + "\n]}\n"


def main():
    parser = argparse.ArgumentParser(description="train the built-in digit classifier")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--out", default=HERE, metavar="DIR")
    options = parser.parse_args()
    began = time.monotonic()
    (train_x, train_y), (test_x, test_y) = dataset.split(*dataset.load())
    nhwc = dataset.as_input(train_x).transpose(0, 2, 3, 1)
    p, running = train(np.ascontiguousarray(nhwc), train_y, options.epochs, np.random.Generator(np.random.PCG64(SEED)))
    logits, _ = forward(p, running, np.ascontiguousarray(dataset.as_input(test_x).transpose(0, 2, 3, 1)))
    right = int((logits.argmax(1) == test_y).sum())
    os.makedirs(options.out, exist_ok=True)
    with open(os.path.join(options.out, "digits.onnx"), "wb") as out:
        out.write(to_onnx(p, running))
    with open(os.path.join(options.out, "digits.json"), "w", encoding="ascii") as out:
        out.write(to_json(test_x, test_y))
    print(f"held-out: {right} of {len(test_y)} right; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
