"""A BERT encoder's weights, taken out of an exported ONNX file by their names and put into CTranslate2's description, so
that CTranslate2 can be compared without the original checkpoint. Other networks: None."""
import math

import onnx
from ctranslate2.converters import utils
from ctranslate2.specs import common_spec, transformer_spec
from onnx import numpy_helper


class Weights:
    """Tensors by the name of their module: `encoder.layer.0.attention.self.query` and so on."""

    def __init__(self, graph):
        arrays = {t.name: numpy_helper.to_array(t).copy() for t in graph.initializer}  # writable
        constants = [numpy_helper.to_array(a.t) for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
        self.scalars = {round(float(c.item()), 4) for c in [*constants, *arrays.values()] if c.dtype.kind == "f" and c.size == 1}
        producers = {n.output[0]: n for n in graph.node}
        self.named = {}
        for name, array in arrays.items():
            start = min((name.find(word) for word in ("embeddings.", "encoder.layer.") if word in name), default=-1)
            if start >= 0:
                self.named[name[start:]] = array
        for add in (n for n in graph.node if n.op_type == "Add"):  # a Linear became MatMul (its weight unnamed) and Add (its bias)
            for bias, other in (add.input, reversed(add.input)):
                product = producers.get(other)
                if bias in arrays and product is not None and product.op_type == "MatMul" and product.input[1] in arrays:
                    start = bias.find("encoder.layer.")
                    if start >= 0:
                        self.named[bias[start:].replace(".bias", ".weight")] = arrays[product.input[1]].T

    def layers(self):
        return len({name.split(".")[2] for name in self.named if name.startswith("encoder.layer.")})

    def heads(self, hidden):
        """From the scale of the scores, 1 / sqrt(size of a head), or its root on both sides, whichever stands in the graph."""
        for size in (32, 64, 80, 96, 128, 16):
            if hidden % size == 0 and any(round(math.pow(size, power), 4) in self.scalars for power in (.5, -.5, .25, -.25)):
                return hidden // size
        return None

    def linear(self, spec, module):
        spec.weight = self.named[f"{module}.weight"].copy()
        spec.bias = self.named[f"{module}.bias"]

    def norm(self, spec, module):
        spec.gamma, spec.beta = self.named[f"{module}.weight"], self.named[f"{module}.bias"]


def bert_spec(path):
    weights = Weights(onnx.load(path).graph)
    words = weights.named.get("embeddings.word_embeddings.weight")
    heads = weights.heads(words.shape[1]) if words is not None else None
    if not heads or not weights.layers():
        return None
    encoder = transformer_spec.TransformerEncoderSpec(weights.layers(), heads, pre_norm=False, activation=common_spec.Activation.GELU,
                                                      layernorm_embedding=True, num_source_embeddings=2,
                                                      embeddings_merge=common_spec.EmbeddingsMerge.ADD)
    spec = transformer_spec.TransformerEncoderModelSpec(encoder)
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = words
    encoder.embeddings[1].weight = weights.named["embeddings.token_type_embeddings.weight"]
    encoder.position_encodings.encodings = weights.named["embeddings.position_embeddings.weight"]
    weights.norm(encoder.layernorm_embedding, "embeddings.LayerNorm")
    for i, layer in enumerate(encoder.layer):
        module = f"encoder.layer.{i}"
        parts = [common_spec.LinearSpec() for _ in range(3)]
        for part, name in zip(parts, ("query", "key", "value"), strict=True):
            weights.linear(part, f"{module}.attention.self.{name}")
        utils.fuse_linear(layer.self_attention.linear[0], parts)
        weights.linear(layer.self_attention.linear[1], f"{module}.attention.output.dense")
        weights.norm(layer.self_attention.layer_norm, f"{module}.attention.output.LayerNorm")
        weights.linear(layer.ffn.linear_0, f"{module}.intermediate.dense")
        weights.linear(layer.ffn.linear_1, f"{module}.output.dense")
        weights.norm(layer.ffn.layer_norm, f"{module}.output.LayerNorm")
    spec.config.layer_norm_epsilon = 1e-12
    spec.register_vocabulary([str(i) for i in range(words.shape[0])])
    return spec
