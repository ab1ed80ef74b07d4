"""Which models are measured and on which inputs: folders of real data as they are, a sentence of 128 tokens for text
encoders, and ResNet-50's structure (with made-up weights) out of the onnx package. Nothing here runs a model."""
import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from peers import Model, load_tensors

TOKENS = 128


def data_sets(folder):
    sets = [os.path.join(folder, d) for d in os.listdir(folder) if d.startswith("test_data_set_")]
    return sorted(sets, key=lambda d: int(d.rsplit("_", 1)[1]))


def save_inputs(folder, tensors):
    os.makedirs(folder, exist_ok=True)
    for i, (name, array) in enumerate(tensors):
        onnx.save_tensor(numpy_helper.from_array(array, name), os.path.join(folder, f"input_{i}.pb"))
    return folder


def full_sentence(sets, work):
    """TOKENS real token ids with a full mask, out of the sets' sentences one after the other; None: not a text encoder."""
    first = load_tensors(sets[0])
    if [name for name, _ in first][:2] != ["input_ids", "attention_mask"]:
        return None
    words = []
    for folder in sets:
        by_name = dict(load_tensors(folder))
        words += by_name["input_ids"][by_name["attention_mask"] != 0].tolist()
        if len(words) >= TOKENS:
            break
    while len(words) < TOKENS:
        words += words
    full = {"input_ids": words[:TOKENS], "attention_mask": [1] * TOKENS}
    return save_inputs(os.path.join(work, f"input_{TOKENS}"),
                       [(name, np.array([full.get(name, [0] * TOKENS)], array.dtype)) for name, array in first])


def resnet50(work):
    """light_resnet50.onnx leaves its weights out (ConstantOfShape); these are random, of a size that keeps the signal's."""
    path = os.path.join(work, "model.onnx")
    sets = [os.path.join(work, f"test_data_set_{i}") for i in range(2)]
    if not os.path.exists(path):
        random = np.random.default_rng(1)
        model = onnx.load(os.path.join(os.path.dirname(onnx.__file__), "backend/test/data/light/light_resnet50.onnx"))
        graph = model.graph
        shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        for node in [n for n in graph.node if n.op_type == "ConstantOfShape"]:
            shape, name = shapes[node.input[0]], node.output[0]
            if len(shape) > 1:
                value = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
            elif name.endswith(("_riv_0", "_s_0")):
                value = random.uniform(0.5, 1.0, shape)  # variances and scales
            else:
                value = random.normal(0, 0.1, shape)
            graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
            graph.node.remove(node)
        for tensor in [t for t in graph.initializer if t.name.endswith("__SHAPE")]:
            graph.initializer.remove(tensor)
        image = next(i for i in graph.input if i.name not in {t.name for t in graph.initializer})
        del graph.input[:]
        graph.input.append(helper.make_tensor_value_info(image.name, TensorProto.FLOAT, [1, 3, 224, 224]))
        os.makedirs(work, exist_ok=True)
        for folder in sets:
            save_inputs(folder, [(image.name, random.normal(0, 1, (1, 3, 224, 224)).astype(np.float32))])
        model.ir_version = 8
        model = version_converter.convert_version(model, 17)  # opset 9 is too old for per-channel quantizers
        onnx.checker.check_model(model)
        onnx.save(model, path)
    return Model("resnet50", path, sets, sets[0], work, accuracy=False)


def collect(folder, work, only=(), resnet=True):
    """The models to measure, by name; `only`: these names."""
    models = []
    for name in sorted(os.listdir(folder)) if folder else []:
        path = os.path.join(folder, name, "model.onnx")
        if not os.path.exists(path) or (only and name not in only):
            continue
        sets = data_sets(os.path.join(folder, name))
        if sets:
            mine = os.path.join(work, name)
            models.append(Model(name, path, sets, full_sentence(sets, mine) or sets[0], mine))
    if resnet and (not only or "resnet50" in only):
        models.append(resnet50(os.path.join(work, "resnet50")))
    return models
