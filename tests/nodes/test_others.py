#!/usr/bin/env python3
"""Operators of the standard in forms that its node tests don't have, against onnxruntime: one small graph each.

    test_others.py [part-of-a-name ...]"""
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import compare  # noqa: E402  (ends with status 77 when a package is missing)

import numpy as np  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

RANDOM = np.random.default_rng(5)


def f32(*shape, scale=1.):
    return (RANDOM.standard_normal(shape) * scale).astype(np.float32)


def boxes(*rows):
    return np.array(rows, np.float32)


def case(op, *inputs, constants=(), opset=17, known=True, gives=None, **attributes):
    """Inputs by position, None for one that is left out; `constants` are those that the file holds. Not known: the file
    tells no sizes. `gives`: the output's type, when it is not that of input 0."""
    return op, inputs, constants, opset, known, np.dtype(gives or inputs[0].dtype), attributes


def einsum(equation, sizes, constants=(), known=True):
    inputs = [f32(*(sizes[c] for c in term)) for term in equation.split("->", 1)[0].split(",")]
    return case("Einsum", *inputs, constants=constants, known=known, equation=equation)


def einsums():
    """Equations that networks have, and some that nobody would write: one to three terms of up to four letters."""
    sizes = dict(zip("abcdehst", (2, 3, 4, 5, 1, 2, 3, 4)))
    for equation, constants in (("bsc,chd->bshd", (1,)), ("bshd,bthd->bhst", ()), ("bhst,bthd->bshd", ()), ("bshd,hdc->bsc", (1,)),
                                ("bsi,iok,bsk->bso".translate(str.maketrans("iok", "cde")), (1,)), ("dc,bsc->bsd", (0,)),
                                ("bsd,d->bs", (1,)), ("bs,bt->bst", ()), ("a,b->", ()), ("abc,abc->", ()), ("sbc,tbc->bst", ()),
                                ("bacd,cde->bae", (1,)), ("aecd,abcd->acbe", ()), ("acbe,aecd->abcd", ()), ("bc", ()), ("cb,b", ())):
        for known in (True, False):
            yield f"Einsum {equation}{'' if known else ', no sizes known'}", einsum(equation, sizes, constants, known)
    for i in range(60):
        terms = ["".join(RANDOM.choice(list("abcdhst"), RANDOM.integers(1, 5), replace=False)) for _ in range(RANDOM.integers(1, 4))]
        met = sorted(set("".join(terms)))
        out = "".join(RANDOM.permutation(met)[:RANDOM.integers(0, min(len(met), 5) + 1)])
        equation = ",".join(terms) + "->" + out
        yield f"Einsum {equation}, {i}", einsum(equation, sizes, (1,) if i % 3 == 0 and len(terms) > 1 else (), i % 2 == 0)


CASES = {
    "GlobalLpPool": case("GlobalLpPool", f32(2, 3, 5, 7)),
    "GlobalLpPool, p 1, three dimensions": case("GlobalLpPool", f32(2, 3, 5, 2, 3), p=1),
    "GlobalLpPool, p 3, one dimension": case("GlobalLpPool", f32(2, 3, 5), p=3),
    "MaxRoiPool": case("MaxRoiPool", f32(2, 3, 12, 10), boxes([0, 0, 0, 9, 11], [1, 2, 3, 7, 5]), pooled_shape=[3, 2]),
    "MaxRoiPool, scaled, beyond the image, a point, turned round": case(
        "MaxRoiPool", f32(2, 3, 12, 10), boxes([1, 1, 1, 30, 30], [0, -6, 4, 5, 50], [0, 8, 8, 8, 8], [1, 9, 9, 2, 2]),
        pooled_shape=[4, 3], spatial_scale=.5),
}


CASES |= dict(einsums())


def numbers(dtype, *shape):
    return RANDOM.integers(0 if np.dtype(dtype).kind == "u" else -50, 50, shape).astype(dtype)


def integers():
    """Types that networks seldom have, as far as onnxruntime knows them."""
    words = np.array([["a", "bb"], ["", "d"]], object)
    for t in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64):
        name = np.dtype(t).name
        for op in ("Abs", "Sign"):
            yield f"{op} {name}", case(op, numbers(t, 3, 4))
        for how in ("add", "mul", "max", "min"):
            yield f"ScatterElements {how} {name}", case("ScatterElements", numbers(t, 4, 3), np.array([[0, 2, 0], [0, 1, 3]]),
                                                        numbers(t, 2, 3), axis=0, reduction=how, opset=18)
    for t in (np.uint8, np.int8, np.int32):
        yield f"ArgMax {np.dtype(t).name}", case("ArgMax", numbers(t, 3, 9) // 20, axis=1, gives=np.int64)
        yield f"Resize {np.dtype(t).name}", case(
            "Resize", numbers(t, 1, 2, 5, 6), None, np.float32([1, 1, 2, 4]), mode="linear", constants=(2,))
    for t in (np.uint32, np.int32, np.uint64, np.int64):
        name = np.dtype(t).name
        yield f"MatMul {name}", case("MatMul", numbers(t, 2, 3, 4), numbers(t, 2, 4, 5))
        yield f"MatMul {name}, a constant", case("MatMul", numbers(t, 2, 3, 4), numbers(t, 4, 5), constants=(1,))
    yield "MatMul int32, that wraps", case("MatMul", np.int32([[2**30, 2**30]]), np.int32([[5], [7]]))
    yield "Neg int16", case("Neg", np.int16([-32768, 5, 0]))
    yield "Range int16", case("Range", *(np.array(v, np.int16) for v in (3, -9, -2)))
    yield "PRelu int32", case("PRelu", numbers(np.int32, 2, 3, 4), numbers(np.int32, 3, 1))
    yield "PRelu uint32", case("PRelu", numbers(np.uint32, 2, 3), numbers(np.uint32, 3))
    yield "Tile of strings", case("Tile", words, np.int64([2, 1]))
    yield "ReverseSequence of strings", case("ReverseSequence", words, np.int64([2, 1]))
    yield "ScatterND of strings", case("ScatterND", words, np.int64([[1, 0]]), np.array(["new"], object))


CASES |= dict(integers())
CASES |= {
    "HannWindow double": case("HannWindow", np.array(9), gives=np.float64, output_datatype=11),
    "Resize, half a pixel as FP32 counts it": case("Resize", f32(1, 1, 6, 7), None, np.float32([1, 1, 1.5, 1.3]), mode="nearest"),
    "Resize, half a pixel of sizes": case("Resize", f32(1, 1, 6, 7), None, None, np.int64([1, 1, 9, 4]), mode="nearest",
                                          coordinate_transformation_mode="asymmetric", nearest_mode="round_prefer_ceil"),
}
for corners in (0, 1):
    for padding in ("zeros", "border", "reflection"):
        CASES[f"GridSample cubic {padding} {corners}"] = case(
            "GridSample", f32(2, 3, 5, 6), RANDOM.uniform(-1.4, 1.4, (2, 4, 3, 2)).astype(np.float32), mode="bicubic",
            padding_mode=padding, align_corners=corners)


def model_of(op, inputs, constants, opset, known, gives, attributes):
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    node = helper.make_node(op, names, ["y"], name="the_node", **attributes)

    def info(name, array):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype),
                                             array.shape if known else [None] * array.ndim)
    feeds = {n: a for i, (n, a) in enumerate(zip(names, inputs)) if n and i not in constants}
    graph = helper.make_graph([node], "case", [info(n, a) for n, a in feeds.items()],
                              [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(gives), None)],
                              [numpy_helper.from_array(inputs[i], names[i]) for i in constants])
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", opset)]), feeds


def main():
    parts, passed, failed = sys.argv[1:], 0, 0
    for name, how in CASES.items():
        if parts and not any(p in name for p in parts):
            continue
        with tempfile.TemporaryDirectory(prefix="others-") as root:
            model, feeds = model_of(*how)
            wrong = compare.judge_fp32(root, "case", model, [feeds], [compare.session(model).run(None, feeds)])
        print(f"FAIL {name}: {wrong}" if wrong else f"ok {name}")
        failed += bool(wrong)
        passed += not wrong
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
