"""Small graphs of contrib operators (domain com.microsoft), and of sequences, as test_contrib.py runs them: each case is a
function that returns (nodes, {input: array}, {constant: array}, [output names]). Not for whole models: test_optimized.py."""
import numpy as np
from onnx import helper

MS = "com.microsoft"
RANDOM = np.random.default_rng(7)


def f32(*shape, scale=1.0):
    return (RANDOM.standard_normal(shape) * scale).astype(np.float32)


def ints(low, high, dtype, *shape):
    return RANDOM.integers(low, high, shape).astype(dtype)


def one(value, dtype=np.float32):
    return np.array(value, dtype)


def node(op, inputs, outputs=("y",), domain=MS, **attributes):
    return helper.make_node(op, list(inputs), list(outputs), name="n_" + outputs[0], domain=domain, **attributes)


def conv(activation=None, params=None, more=False, **attributes):
    if activation:
        attributes["activation"] = activation
    if params:
        attributes["activation_params"] = params
    inputs = {"x": f32(2, 3, 9, 9)}
    if more:
        inputs["z"] = f32(2, 8, 9, 9)
    return ([node("FusedConv", ["x", "w", "b"] + (["z"] if more else []), pads=[1, 1, 1, 1], kernel_shape=[3, 3],
                  **attributes)], inputs, {"w": f32(8, 3, 3, 3, scale=.3), "b": f32(8)}, ["y"])


def gemm(activation, **attributes):
    return ([node("FusedGemm", "xwb", activation=activation, transB=1, alpha=.5, **attributes)],
            {"x": f32(5, 12)}, {"w": f32(7, 12), "b": f32(7)}, ["y"])


def elementwise(op, bias=False, **attributes):
    return ([node(op, ["x", "b"] if bias else ["x"], **attributes)], {"x": f32(2, 5, 16, scale=2)},
            {"b": f32(16)} if bias else {}, ["y"])


def norm(op, domain, bias=True, **attributes):
    return ([node(op, ["x", "g", "b"] if bias else ["x", "g"], domain=domain, **attributes)], {"x": f32(2, 5, 16)},
            {"g": f32(16), "b": f32(16)} if bias else {"g": f32(16)}, ["y"])


def skip(simple=False, bias=False, total=True, broadcast=False):
    inputs = ["x", "s", "g"] + ([] if simple else ["b"]) + (["e"] if bias else [])
    outputs = ["y", "", "", "sum"] if total else ["y"]
    op = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
    constants = {"g": f32(16), "b": f32(16), "e": f32(16)}
    return ([node(op, inputs, outputs, epsilon=1e-5)],
            {"x": f32(2, 5, 16), "s": f32(1, 5, 16) if broadcast else f32(2, 5, 16)},
            {n: v for n, v in constants.items() if n in inputs}, [o for o in outputs if o])


def matmul(a, b, **attributes):
    return [node("FusedMatMul", "ab", **attributes)], {"a": f32(*a), "b": f32(*b)}, {}, ["y"]


def matmul_unknown(**attributes):
    """Squeeze without axes: nobody knows how many dimensions are left."""
    return ([helper.make_node("Squeeze", ["a"], ["s"]), node("FusedMatMul", "sb", **attributes)],
            {"a": f32(1, 2, 4, 3), "b": f32(2, 4, 5)}, {}, ["y"])


def embed(segments=True, positions=False, mask=False, total=False):
    inputs = ["ids", "seg" if segments else "", "words", "places", "kinds" if segments else "", "g", "b"]
    given = {"ids": ints(0, 20, np.int32, 2, 6)}
    if segments:
        given["seg"] = ints(0, 2, np.int32, 2, 6)
    inputs.append("mask" if mask else "")
    if mask:
        given["mask"] = np.array([[1, 1, 1, 1, 0, 0], [1] * 6], np.int32)
    if positions:
        inputs.append("at")
        given["at"] = ints(0, 10, np.int32, 2, 6)
    while not inputs[-1]:
        inputs.pop()
    outputs = ["y", "count"] + (["sum"] if total else [])
    constants = {"words": f32(20, 16), "places": f32(10, 16), "g": f32(16), "b": f32(16)}
    if segments:
        constants["kinds"] = f32(2, 16)
    return [node("EmbedLayerNormalization", inputs, outputs, epsilon=1e-5)], given, constants, outputs


def attention(mask=None, past=False, extra=False, sizes=None, **attributes):
    """D 16, 4 heads; B 2, S 5."""
    wide = sum(sizes) if sizes else 48
    if sizes:
        attributes["qkv_hidden_sizes"] = sizes
    given, names = {"x": f32(2, 5, 16)}, ["x", "w", "b", "", "", ""]
    all_keys = 8 if past else 5
    masks = {"lengths": np.array([3, 5], np.int32), "raw": np.array([[1] * (all_keys - 2) + [0, 0], [1] * all_keys], np.int32),
             "square": np.array(RANDOM.integers(0, 2, (2, 5, all_keys)) | np.eye(5, all_keys, dtype=int), np.int32)}
    if mask:
        given["m"], names[3] = masks[mask], "m"
    if past:
        given["p"], names[4] = f32(2, 2, 4, 3, 4), "p"
    if extra:
        given["e"], names[5] = f32(2, 4, 5, all_keys), "e"
    while not names[-1]:
        names.pop()
    outputs = ["y", "present"] if past else ["y"]
    return ([node("Attention", names, outputs, num_heads=4, **attributes)], given,
            {"w": f32(16, wide, scale=.4), "b": f32(wide)}, outputs)


def heads(bias=True, mask=None, extra=False, past=False, keys=5, value=16, split=False, **attributes):
    given = {"q": f32(2, 5, 16), "k": f32(2, keys, 16), "v": f32(2, keys, value)}
    if split:
        given["k"], given["v"] = f32(2, 4, keys, 4), f32(2, 4, keys, value // 4)
    names, outputs = ["q", "k", "v", "b" if bias else "", "", "", "", ""], ["y"]
    total = keys + (3 if past else 0)
    if mask:
        given["m"], names[4] = {"lengths": np.array([3, keys], np.int32), "raw": np.array(
            [[1] * (total - 2) + [0, 0], [1] * total], np.int32)}[mask], "m"
    if extra:
        given["e"], names[5] = f32(1, 4, 5, total), "e"
    if past:
        given["pk"], given["pv"], names[6:8] = f32(2, 4, 3, 4), f32(2, 4, 3, value // 4), ["pk", "pv"]
        outputs = ["y", "ak", "av"]
    while not names[-1]:
        names.pop()
    return ([node("MultiHeadAttention", names, outputs, num_heads=4, **attributes)], given,
            {"b": f32(32 + value)} if bias else {}, outputs)


def q_conv(last=True, signed=False):
    kind = np.int8 if signed else np.uint8
    x = ints(0, 100, kind, 2, 7, 6, 4) if last else ints(0, 100, kind, 2, 4, 7, 6)
    constants = {"sx": one(.05), "zx": one(50, kind), "w": ints(-99, 99, np.int8, 6, 2, 3, 3), "sw": np.abs(f32(6)) * .01 + .005,
                 "zw": np.zeros(6, np.int8), "sy": one(.2), "zy": one(40, kind), "b": ints(-99, 99, np.int32, 6)}
    return ([node("QLinearConv", ["x", *constants], channels_last=int(last), group=2, pads=[1, 0, 1, 1], strides=[2, 1])],
            {"x": x}, constants, ["y"])


def max_pool_last():
    return ([node("NhwcMaxPool", ["x"], kernel_shape=[2, 3], pads=[0, 1, 1, 1], strides=[2, 2], dilations=[1, 2])],
            {"x": ints(0, 256, np.uint8, 2, 7, 8, 3)}, {}, ["y"])


def integer_matmul(bias=True, columns=True, signed=False):
    dtype = np.int8 if signed else np.uint8
    scale = np.abs(f32(7, scale=.02)) + one(.01) if columns else one(.02)
    zero = ints(-3, 3, np.int8, 7) if columns else one(2, np.int8)
    names = ["a", "b", "sa", "sb", "za", "zb"] + (["c"] if bias else [])
    constants = {"b": ints(-127, 127, np.int8, 12, 7), "sa": one(.03), "sb": scale, "za": one(3, dtype), "zb": zero}
    if bias:
        constants["c"] = f32(7)
    return ([node("MatMulIntegerToFloat", names)], {"a": ints(*(-128, 128) if signed else (0, 256), dtype, 4, 5, 12)},
            constants, ["y"])


def dynamic_matmul(bias=True, zero=True):
    names = ["a", "b", "sb", "zb" if zero else ""] + (["c"] if bias else [])
    constants = {"b": ints(-127, 127, np.int8, 12, 7), "sb": one(.02)}
    if zero:
        constants["zb"] = one(2, np.int8)
    if bias:
        constants["c"] = f32(7)
    while not names[-1]:
        names.pop()
    return [node("DynamicQuantizeMatMul", names)], {"a": f32(4, 5, 12)}, constants, ["y"]


def lstm(directions=1, columns=False):
    """Weights by direction, or by gate; the result is compared loosely: x is not quantized here."""
    def scale(*by):
        return np.full(by, .01, np.float32)
    by = (directions, 32) if columns else (directions,)
    zero = np.zeros(by, np.int8)
    names = ["x", "w", "r", "b", "", "", "", "", "sw", "zw", "sr", "zr"]
    return ([node("DynamicQuantizeLSTM", names, ("y", "h", "c"), hidden_size=8,
                  direction="bidirectional" if directions == 2 else "forward")], {"x": f32(6, 2, 5)},
            {"w": ints(-60, 60, np.int8, directions, 5, 32), "r": ints(-60, 60, np.int8, directions, 8, 32),
             "b": f32(directions, 64, scale=.2), "sw": scale(*by), "zw": zero, "sr": scale(*by), "zr": zero},
            ["y", "h", "c"])


def binary(op, signed=False):
    dtype, span = (np.int8, (-128, 128)) if signed else (np.uint8, (0, 256))
    constants = {"sa": one(.03), "za": one(4, dtype), "sb": one(.02), "zb": one(7, dtype), "sy": one(.05),
                 "zy": one(100 if not signed else 5, dtype)}
    return ([node(op, ["a", "sa", "za", "b", "sb", "zb", "sy", "zy"])],
            {"a": ints(*span, dtype, 2, 4, 6), "b": ints(*span, dtype, 4, 6)}, constants, ["y"])


def quantized(op, shape=(2, 4, 6, 6), scale=.03, zero=100, **attributes):
    constants = {"sx": one(.04), "zx": one(120, np.uint8), "sy": one(scale), "zy": one(zero, np.uint8)}
    return ([node(op, ["x", "sx", "zx", "sy", "zy"], **attributes)], {"x": ints(0, 256, np.uint8, *shape)}, constants, ["y"])


def mean_of_quantized(x):
    """onnxruntime declares this operator, but has no kernel for it."""
    mean = ((x.astype(np.float64) - 120) * .04).mean(axis=(2, 3))
    return [np.clip(np.rint(mean / .03) + 100, 0, 255).astype(np.uint8)]


def concat():
    constants = {"sy": one(.03), "zy": one(110, np.uint8), "sa": one(.02), "za": one(4, np.uint8), "sb": one(.04),
                 "zb": one(120, np.uint8)}
    return ([node("QLinearConcat", ["sy", "zy", "a", "sa", "za", "b", "sb", "zb"], axis=1)],
            {"a": ints(0, 256, np.uint8, 2, 3, 5), "b": ints(0, 256, np.uint8, 2, 4, 5)}, constants, ["y"])


def where():
    constants = {"sa": one(.02), "za": one(4, np.uint8), "sb": one(.04), "zb": one(120, np.uint8), "sy": one(.03),
                 "zy": one(110, np.uint8)}
    return ([node("QLinearWhere", ["c", "a", "sa", "za", "b", "sb", "zb", "sy", "zy"])],
            {"c": RANDOM.integers(0, 2, (2, 4, 5)).astype(bool), "a": ints(0, 256, np.uint8, 2, 4, 5),
             "b": ints(0, 256, np.uint8, 4, 5)}, constants, ["y"])


def q_gemm(floats=False, trans_b=0, columns=False):
    names = ["a", "sa", "za", "b", "sb", "zb", "c"] + ([] if floats else ["sy", "zy"])
    by = (7,) if columns else ()
    constants = {"sa": one(.03), "za": one(120, np.uint8), "b": ints(-127, 127, np.int8, *((7, 12) if trans_b else (12, 7))),
                 "sb": np.full(by, .02, np.float32), "zb": np.zeros(by, np.int8), "c": ints(-900, 900, np.int32, 7)}
    if not floats:
        constants |= {"sy": one(.4), "zy": one(110, np.uint8)}
    return ([node("QGemm", names, transB=trans_b)], {"a": ints(0, 256, np.uint8, 5, 12)}, constants, ["y"])


def q_attention(mask=False):
    names = ["x", "w", "b", "sx", "sw", "m" if mask else "", "zx", "zw"]
    given = {"x": ints(0, 256, np.uint8, 2, 5, 16)}
    if mask:
        given["m"] = np.array([3, 5], np.int32)
    return ([node("QAttention", names, num_heads=4)], given,
            {"w": ints(-127, 127, np.int8, 16, 48), "b": f32(48), "sx": one(.02), "sw": one(.004), "zx": one(120, np.uint8),
             "zw": one(0, np.int8)}, ["y"])


def round_trip():
    return ([node("QuantizeLinear", ["x", "s", "z"], ("q",)), node("DequantizeLinear", ["q", "s", "z"])],
            {"x": f32(2, 4, 6)}, {"s": one(.03), "z": one(120, np.uint8)}, ["q", "y"])


def in_a_body():
    """A contrib node in both branches of an If, one of which reads a value from outside."""
    def branch(name, op):
        out = helper.make_tensor_value_info("out_" + name, 1, None)
        return helper.make_graph([node(op, ["x"], ("out_" + name,))], name, [], [out])
    return ([helper.make_node("If", ["c"], ["y"], then_branch=branch("a", "Gelu"), else_branch=branch("b", "FastGelu"))],
            {"c": np.array(False), "x": f32(2, 6)}, {}, ["y"])


EXACT, STEP, LOOSE = (1e-4, 1e-5), (0, 1.01), (0, .05)  # relative, absolute: floats, a step of 8 bits, other roundings

def seq(op, inputs, outputs=("y",), **attributes):
    return node(op, inputs, outputs, domain="", **attributes)


def unbound(keepdims, axis, at):
    """torch.unbind: parts of one, by constant positions and by one that is given."""
    places = {f"i{k}": one(v, np.int64) for k, v in enumerate(at)}
    nodes = [seq("SplitToSequence", ["x"], ["s"], axis=axis, keepdims=keepdims)]
    nodes += [seq("SequenceAt", ["s", name], [f"p{k}"]) for k, name in enumerate([*places, "at"])]
    nodes += [seq("Concat", [f"p{k}" for k in range(len(at) + 1)], axis=0), seq("SequenceLength", ["s"], ["count"])]
    return nodes, {"x": f32(3, 4, 5), "at": one(1, np.int64)}, places, ["y", "count"]


def split(sizes, given=False, axis=1):
    """torch.split by sizes, or by one size."""
    sizes = {"sizes": np.array(sizes, np.int64)}
    nodes = [seq("SplitToSequence", ["x", "sizes"], ["s"], axis=axis), seq("SequenceAt", ["s", "i0"], ["a"]),
             seq("SequenceAt", ["s", "i1"], ["b"]), seq("Concat", ["b", "a"], axis=axis)]
    places = {"i0": one(0, np.int64), "i1": one(1, np.int64)}
    inputs = {"x": f32(2, 7, 3)}
    return nodes, inputs | sizes if given else inputs, places if given else places | sizes, ["y"]


def listed(stack):
    """A list that is begun empty, appended to, inserted into, shortened; joined."""
    nodes = [seq("SequenceEmpty", [], ["s0"]), seq("SequenceInsert", ["s0", "a"], ["s1"]),
             seq("SequenceInsert", ["s1", "b"], ["s2"]), seq("SequenceInsert", ["s2", "c", "zero"], ["s3"]),
             seq("SequenceInsert", ["s3", "a"], ["s4"]), seq("SequenceErase", ["s4", "last_but_one"], ["s5"]),
             seq("ConcatFromSequence", ["s5"], axis=1, new_axis=stack), seq("SequenceLength", ["s5"], ["count"])]
    return (nodes, {n: f32(2, 3) for n in "abc"}, {"zero": one(0, np.int64), "last_but_one": one(-2, np.int64)}, ["y", "count"])


def constructed():
    nodes = [seq("SequenceConstruct", ["a", "b"], ["s"]), seq("SequenceAt", ["s", "last"], ["b1"]),
             seq("ConcatFromSequence", ["s"], ["both"], axis=0), seq("Mul", ["both", "b1"])]
    return nodes, {n: f32(2, 3) for n in "a"} | {"b": f32(1, 3)}, {"last": one(-1, np.int64)}, ["y"]


CASES = {
    "conv": (EXACT, conv), "conv_relu": (EXACT, lambda: conv("Relu")), "conv_leaky": (EXACT, lambda: conv("LeakyRelu", [.1])),
    "conv_clip": (EXACT, lambda: conv("Clip", [-.5, .8])), "conv_hard": (EXACT, lambda: conv("HardSigmoid", [.2, .5])),
    "conv_sum_relu": (EXACT, lambda: conv("Relu", more=True)), "conv_sum": (EXACT, lambda: conv(more=True)),
    "gemm_relu": (EXACT, lambda: gemm("Relu")), "gemm_leaky": (EXACT, lambda: gemm("LeakyRelu", activation_alpha=.2)),
    "gelu": (EXACT, lambda: elementwise("Gelu")), "bias_gelu": (EXACT, lambda: elementwise("BiasGelu", True)),
    "fast_gelu": (EXACT, lambda: elementwise("FastGelu")), "fast_gelu_bias": (EXACT, lambda: elementwise("FastGelu", True)),
    "quick_gelu": (EXACT, lambda: elementwise("QuickGelu")), "quick_gelu_2": (EXACT, lambda: elementwise("QuickGelu", alpha=2.0)),
    "layer_norm_old": (EXACT, lambda: norm("LayerNormalization", "", epsilon=1e-5, axis=-1)),
    "simplified_norm": (EXACT, lambda: norm("SimplifiedLayerNormalization", "", False, epsilon=1e-5, axis=-1)),
    "skip": (EXACT, skip), "skip_bias": (EXACT, lambda: skip(bias=True)), "skip_only": (EXACT, lambda: skip(total=False)),
    "skip_broadcast": (EXACT, lambda: skip(broadcast=True)), "skip_simple": (EXACT, lambda: skip(True)),
    "skip_simple_bias": (EXACT, lambda: skip(True, True)),
    "matmul": (EXACT, lambda: matmul((2, 3, 4), (2, 4, 5), alpha=.5)),
    "matmul_a": (EXACT, lambda: matmul((2, 4, 3), (2, 4, 5), transA=1)),
    "matmul_b": (EXACT, lambda: matmul((2, 2, 3, 4), (2, 2, 5, 4), transB=1, alpha=.125)),
    "matmul_batch_a": (EXACT, lambda: matmul((3, 2, 4), (2, 4, 5), transBatchA=1)),
    "matmul_batch_b": (EXACT, lambda: matmul((2, 2, 3, 4), (5, 2, 2, 4), transBatchB=1, transB=1)),
    "matmul_unknown": (EXACT, lambda: matmul_unknown(transA=1, alpha=.5)),
    "embed": (EXACT, embed), "embed_mask": (EXACT, lambda: embed(mask=True)), "embed_plain": (EXACT, lambda: embed(False)),
    "embed_positions": (EXACT, lambda: embed(positions=True)), "embed_sum": (EXACT, lambda: embed(mask=True, total=True)),
    "attention": (EXACT, attention), "attention_lengths": (EXACT, lambda: attention("lengths")),
    "attention_raw": (EXACT, lambda: attention("raw")), "attention_square": (EXACT, lambda: attention("square")),
    "attention_causal": (EXACT, lambda: attention(unidirectional=1)), "attention_scale": (EXACT, lambda: attention(scale=.3)),
    "attention_causal_raw": (EXACT, lambda: attention("raw", unidirectional=1)),
    "attention_past": (EXACT, lambda: attention(past=True, unidirectional=1)),
    "attention_past_raw": (EXACT, lambda: attention("raw", past=True)),
    "attention_bias": (EXACT, lambda: attention("raw", extra=True)),
    "attention_sizes": (EXACT, lambda: attention(sizes=[8, 8, 20])),
    "heads": (EXACT, heads), "heads_no_bias": (EXACT, lambda: heads(False)), "heads_cross": (EXACT, lambda: heads(keys=7)),
    "heads_lengths": (EXACT, lambda: heads(mask="lengths")), "heads_raw": (EXACT, lambda: heads(mask="raw")),
    "heads_extra": (EXACT, lambda: heads(extra=True)), "heads_past": (EXACT, lambda: heads(False, past=True)),
    "heads_value": (EXACT, lambda: heads(value=24)), "heads_split": (EXACT, lambda: heads(False, split=True, keys=7)),
    "heads_causal": (EXACT, lambda: heads(unidirectional=1, scale=.2)),
    "integer_matmul": (EXACT, integer_matmul), "integer_matmul_plain": (EXACT, lambda: integer_matmul(False, False)),
    "integer_matmul_signed": (EXACT, lambda: integer_matmul(signed=True)),
    "dynamic_matmul": (EXACT, dynamic_matmul), "dynamic_matmul_plain": (EXACT, lambda: dynamic_matmul(False, False)),
    "lstm": (LOOSE, lstm), "lstm_both": (LOOSE, lambda: lstm(2)), "lstm_columns": (LOOSE, lambda: lstm(1, True)),
    "add": (STEP, lambda: binary("QLinearAdd")), "add_signed": (STEP, lambda: binary("QLinearAdd", True)),
    "mul": (STEP, lambda: binary("QLinearMul")), "mul_signed": (STEP, lambda: binary("QLinearMul", True)),
    "concat": (STEP, concat), "where": (STEP, where),
    "sigmoid": (STEP, lambda: quantized("QLinearSigmoid", scale=1 / 256, zero=0)),
    "leaky": (STEP, lambda: quantized("QLinearLeakyRelu", alpha=.1)),
    "softmax": (STEP, lambda: quantized("QLinearSoftmax", (2, 4, 6), 1 / 256, 0, axis=-1, opset=13)),
    "softmax_flat": (STEP, lambda: quantized("QLinearSoftmax", (2, 4, 6), 1 / 256, 0, axis=1, opset=12)),
    "global_pool": (STEP, lambda: quantized("QLinearGlobalAveragePool", channels_last=0)),
    "global_pool_last": (STEP, lambda: quantized("QLinearGlobalAveragePool", channels_last=1)),
    "pool": (STEP, lambda: quantized("QLinearAveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])),
    "pool_counted": (STEP, lambda: quantized("QLinearAveragePool", kernel_shape=[2, 2], pads=[1, 0, 0, 1], count_include_pad=1)),
    "q_conv_last": (STEP, q_conv), "q_conv": (STEP, lambda: q_conv(False)), "q_conv_signed": (STEP, lambda: q_conv(signed=True)),
    "max_pool_last": (STEP, max_pool_last),
    "q_gemm": (STEP, q_gemm), "q_gemm_turned": (STEP, lambda: q_gemm(trans_b=1)), "q_gemm_floats": (EXACT, lambda: q_gemm(True)),
    "q_gemm_columns": (STEP, lambda: q_gemm(trans_b=1, columns=True)),
    "q_attention": (EXACT, q_attention), "q_attention_lengths": (EXACT, lambda: q_attention(True)),
    "reduce_mean": (STEP, lambda: quantized("QLinearReduceMean", axes=[2, 3], keepdims=0), mean_of_quantized),
    "unbound": (EXACT, lambda: unbound(0, 1, [0, 3, -1])), "unbound_kept": (EXACT, lambda: unbound(1, 0, [2, 0])),
    "split": (EXACT, lambda: split([3, 4])), "split_given": (EXACT, lambda: split([3, 4], True)),
    "split_even": (EXACT, lambda: split(4)), "split_one": (EXACT, lambda: split([1, 1], axis=0)),
    "listed": (EXACT, lambda: listed(0)), "stacked": (EXACT, lambda: listed(1)), "constructed": (EXACT, constructed),
    "round_trip": (EXACT, round_trip), "in_a_body": (EXACT, in_a_body),
}
