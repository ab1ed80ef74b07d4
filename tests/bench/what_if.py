#!/usr/bin/env python3
"""What other choices of weights and scales would give convolutional networks, before they are built: fake quantization in
onnxruntime, ranges of all samples, biases corrected by the inputs' means; a Markdown table.

    what_if.py --models FOLDER [--only NAME]... [--write FILE]

--write: the table takes the place of what stands between `<!-- what if -->` and `<!-- /what if -->` in FILE."""
import argparse
import os
import re
import sys
import tempfile

from models import use_environment

if __name__ == "__main__":
    use_environment()

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

import peers  # noqa: E402

CHOSEN = ("mobilenetv2", "efficientnet_lite0")


def session(model, optimized=False):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_BASIC if optimized else level.ORT_DISABLE_ALL
    if isinstance(optimized, str):
        options.optimized_model_filepath = optimized
    return ort.InferenceSession(model.SerializeToString(), options)


class Network:
    """A network with its constants folded, its samples, and what its convolutions' inputs are like, by channel."""

    def __init__(self, folder, scratch):
        original = onnx.load(os.path.join(folder, "model.onnx"))
        path = os.path.join(scratch, "folded.onnx")
        session(original, path)
        self.model = onnx.load(path)
        self.weights = {w.name: numpy_helper.to_array(w) for w in self.model.graph.initializer}
        sets = sorted(d for d in os.listdir(folder) if d.startswith("test_data_set"))
        self.samples = [dict(peers.load_tensors(os.path.join(folder, d))) for d in sets]
        self.convs = [n for n in self.model.graph.node if n.op_type == "Conv" and n.input[1] in self.weights and len(n.input) == 3]
        self.inputs = sorted({n.input[0] for n in self.convs})
        self.observe()

    def observe(self):
        watched = onnx.ModelProto()
        watched.CopyFrom(self.model)
        inner = [name for name in self.inputs if name not in self.samples[0]]
        watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in inner)
        runner, self.want, seen = session(watched), [], {name: [] for name in self.inputs}
        for sample in self.samples:
            found = dict(zip([o.name for o in runner.get_outputs()], runner.run(None, sample)))
            self.want.append(found[self.model.graph.output[0].name])
            for name in self.inputs:
                x = found.get(name, sample.get(name))
                seen[name].append([f(x, axis=(0, *range(2, x.ndim))) for f in (np.min, np.max, np.mean)])
        self.low = {name: np.minimum(np.min([s[0] for s in seen[name]], 0), 0) for name in self.inputs}
        self.high = {name: np.maximum(np.max([s[1] for s in seen[name]], 0), 0) for name in self.inputs}
        self.mean = {name: np.mean([s[2] for s in seen[name]], 0) for name in self.inputs}

    def depthwise(self, node):
        shape = self.weights[node.input[1]].shape
        return shape[1] == 1 and shape[0] == self.mean[node.input[0]].size


def rounded(w, bits, least_error):
    """Weights of one scale an output channel: by the largest, or by the least squared error of twenty-one scales."""
    most, axes = 2 ** (bits - 1) - 1, tuple(range(1, w.ndim))
    scale = np.maximum(np.abs(w).max(axis=axes, keepdims=True) / most, 1e-30)
    tried = [np.clip(np.rint(w / (scale * f)), -most, most) * scale * f for f in (np.linspace(0.6, 1, 21) if least_error else (1,))]
    errors = np.array([((t - w) ** 2).sum(axis=axes) for t in tried])
    return np.choose(errors.argmin(0).reshape((-1,) + (1,) * (w.ndim - 1)), tried)


def quantize(network, channels, depthwise_bits, least_error, correct):
    """The network as a session. channels: inputs of depthwise layers have a scale per channel, else per tensor."""
    made = onnx.ModelProto()
    made.CopyFrom(network.model)
    for imported in made.opset_import:
        if imported.domain == "":
            imported.version = max(imported.version, 13)
    nodes, convs = [], {n.output[0] for n in network.convs}

    def constant(name, value):
        made.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    for i, node in enumerate(made.graph.node):
        if node.output[0] in convs:
            source, w, alone = node.input[0], network.weights[node.input[1]].astype(float), network.depthwise(node)
            low, high = network.low[source], network.high[source]
            if not (alone and channels):
                low, high = low.min(), high.max()
            scale = np.maximum((high - low) / 255, 1e-12)
            pair = [constant(f"s{i}", scale.astype(np.float32)), constant(f"z{i}", np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8))]
            axis = {"axis": 1} if np.ndim(scale) else {}
            nodes.append(helper.make_node("QuantizeLinear", [source, *pair], [f"q{i}"], **axis))
            nodes.append(helper.make_node("DequantizeLinear", [f"q{i}", *pair], [f"d{i}"], **axis))
            q = rounded(w, depthwise_bits if alone else 8, least_error)
            lost = (w - q).sum(axis=tuple(range(2, w.ndim)))
            mean = network.mean[source].astype(float)
            bias = network.weights[node.input[2]] + (0 if not correct else lost[:, 0] * mean if alone else
                                                     lost @ mean if lost.shape[1] == mean.size else 0)
            node.input[:] = [f"d{i}", constant(f"w{i}", q.astype(np.float32)), constant(f"b{i}", bias.astype(np.float32))]
        nodes.append(node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return session(made)


# (name, scale per channel into depthwise layers, bits of their weights, weight scales of least error, corrected biases)
ROWS = [
    ("as everybody does", False, 8, False, False),
    ("biases corrected (what is built)", False, 8, False, True),
    ("and weights of depthwise layers in 16 bits", False, 16, False, True),
    ("and weight scales of least squared error", False, 8, True, True),
    ("and a scale per channel into depthwise layers", True, 8, False, True),
]


def table(a, scratch):
    yield "| model | configuration | cosine, mean | least | top-1 |"
    yield "|---|---|---|---|---|"
    for name in a.only or CHOSEN:
        network = Network(os.path.join(a.models, name), scratch)
        for label, *options in ROWS:
            runner, cosines, same = quantize(network, *options), [], []
            for sample, want in zip(network.samples, network.want):
                got = runner.run(None, sample)[0]
                x, y = got.ravel().astype(float), want.ravel().astype(float)
                cosines.append(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
                same += list(got.argmax(-1).ravel() == want.argmax(-1).ravel())
            yield f"| {name} | {label} | {np.mean(cosines):.5f} | {np.min(cosines):.5f} | {100 * np.mean(same):.1f} % |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", required=True)
    parser.add_argument("--only", action="append")
    parser.add_argument("--write")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        lines = []
        for line in table(a, scratch):
            print(line, flush=True)
            lines.append(line)
    if a.write:
        with open(a.write, encoding="utf-8") as f:
            text = f.read()
        made = "<!-- what if -->\n" + "\n".join(lines) + "\n<!-- /what if -->"
        new, found = re.subn(r"<!-- what if -->.*?<!-- /what if -->", lambda _: made, text, flags=re.S)
        if not found:
            sys.exit(f"{a.write} has no place for the table")
        with open(a.write, "w", encoding="utf-8") as f:
            f.write(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
