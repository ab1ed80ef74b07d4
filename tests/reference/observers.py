#!/usr/bin/env python3
"""Records what the observers of PyTorch, TensorFlow and ONNX Runtime make of streams of minima and maxima.

    python3 tests/reference/observers.py [--seed N] [--length N] [--only torch,torch_fused,tf,ort] [--out FILE]

The packages themselves do the arithmetic (torch, tensorflow, onnx with onnxruntime; those named by --only must be
there). One line per observation, floats as the hexadecimal of their bits:
    # COMPAT SYMMETRIC(0/1) C                 a new stream: averaging constant c
    MIN MAX LO HI SCALE ZERO_POINT            after that observation; SCALE = 0: the package gives none for such a range
ZERO_POINT is the package's own (of s8 when symmetric; of u8 always for tf). tests/unit/test_observers.c reads the file.
"""
import argparse
import os
import sys
import tempfile

import numpy as np

f32 = np.float32


def streams(seed, length):
    """Random and adversarial streams, each a list of (min, max) of floats, min <= max."""
    rng = np.random.default_rng(seed)

    def pairs(values):
        return [(min(a, b), max(a, b)) for a, b in values.astype(f32)]

    yield "stationary", pairs(rng.normal(size=(length, 2)))
    yield "activations after a ReLU", [(f32(0), f32(abs(x))) for x in rng.normal(3, 1, length)]
    yield "negative only", pairs(-rng.lognormal(0, 2, (length, 2)))
    yield "every size of float", pairs(rng.choice([-1, 1], (length, 2)) * 10.0 ** rng.uniform(-44, 38, (length, 2)))
    yield "tiny", pairs(rng.normal(size=(length, 2)) * 1e-6)
    yield "subnormal", pairs(rng.normal(size=(length, 2)) * 1e-40)
    yield "zeros", [(f32(0), f32(0))] * 20 + [(f32(-0.0), f32(1))] * 5 + [(f32(0), f32(0))] * 20
    yield "largest floats", pairs(np.clip(rng.normal(size=(length, 2)) * 3e38, -3.4e38, 3.4e38))
    yield "outliers", pairs(rng.normal(size=(length, 2)) * np.where(rng.random((length, 1)) < 0.1, 1e6, 1))
    one = f32(1)
    yield "neighbours", [(-np.nextafter(one, f32(i % 3)), np.nextafter(one, f32((i + 1) % 3))) for i in range(length)]


def torch_observer(symmetric, c):
    import torch
    from torch.ao.quantization import MovingAverageMinMaxObserver
    kind = (torch.qint8, torch.per_tensor_symmetric) if symmetric else (torch.quint8, torch.per_tensor_affine)
    observer = MovingAverageMinMaxObserver(averaging_constant=c, dtype=kind[0], qscheme=kind[1])

    def see(low, high):
        observer(torch.tensor([low, high]))
        lo, hi = float(observer.min_val), float(observer.max_val)
        if not (np.isfinite(lo) and np.isfinite(hi) and lo <= hi):
            return lo, hi, 0, 0
        scale, zero_point = observer.calculate_qparams()
        return lo, hi, float(scale), int(zero_point)
    return see


def torch_fused_observer(symmetric, c):
    import torch
    lo, hi = torch.tensor([np.inf]), torch.tensor([-np.inf])
    scale, zero_point = torch.tensor([1.0]), torch.tensor([0], dtype=torch.int32)
    on, off = torch.tensor([1]), torch.tensor([0])
    qmin, qmax = (-128, 127) if symmetric else (0, 255)

    def see(low, high):
        x = torch.tensor([low, high])

        def call(observe, fake):
            torch.fused_moving_avg_obs_fake_quant(x, observe, fake, lo, hi, scale, zero_point, c, qmin, qmax, -1,
                                                  False, symmetric)
        call(on, off)
        bounds = float(lo), float(hi)
        if not (np.isfinite(bounds[0]) and np.isfinite(bounds[1]) and bounds[0] <= bounds[1]):
            return *bounds, 0, 0
        call(off, on)
        return *bounds, float(scale), int(zero_point)
    return see


def tf_observer(symmetric, c):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    from tensorflow.python.training.moving_averages import assign_moving_average
    lo, hi = tf.Variable(-6.0), tf.Variable(6.0)

    def fake(x):
        return tf.quantization.fake_quant_with_min_max_vars(tf.constant([x], tf.float32), lo, hi).numpy()[0]

    def see(low, high):
        x = tf.constant([low, high])
        low, high = tf.math.reduce_min(x), tf.math.reduce_max(x)
        if symmetric:
            ratio = -((1 << 8) - 2) / (1 << 8)
            low, high = tf.math.minimum(low, high / ratio), tf.math.maximum(high, low * ratio)
        else:
            low, high = tf.math.minimum(low, 0.0), tf.math.maximum(high, 0.0)
        assign_moving_average(lo, low, 1 - c, zero_debias=False)
        assign_moving_average(hi, high, 1 - c, zero_debias=False)
        a, b = f32(lo.numpy()), f32(hi.numpy())
        if not (np.isfinite(a) and np.isfinite(b) and a < b):
            return a, b, 0, 0
        # The operator shows its scale only in its values: the one next to zero is the scale, the lowest is -Z scales.
        step = (b - a) / f32(255)
        lowest, highest = fake(-np.inf), fake(np.inf)
        scale = max(abs(fake(step)), abs(fake(-step)))
        if not (np.isfinite(scale) and scale >= np.finfo(f32).tiny and np.isfinite(lowest) and np.isfinite(highest)):
            return a, b, 0, 0
        return a, b, scale, int(round(-float(lowest) / float(scale)))
    return see


def ort_observer(symmetric, c):
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationDataReader, MinMaxCalibrater
    from onnxruntime.quantization.quant_utils import QuantType, compute_scale_zp, get_qmin_qmax_for_qType
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    folder = tempfile.TemporaryDirectory(prefix="quantd-observers-")
    onnx.save(model, folder.name + "/m.onnx")
    calibrater = MinMaxCalibrater(folder.name + "/m.onnx", augmented_model_path=folder.name + "/a.onnx",
                                  symmetric=symmetric, moving_average=True, averaging_constant=c)
    calibrater.augment_graph()
    calibrater.create_inference_session()
    kind = QuantType.QInt8 if symmetric else QuantType.QUInt8
    qmin, qmax = get_qmin_qmax_for_qType(kind.tensor_type, symmetric=symmetric)

    class Once(CalibrationDataReader):
        def __init__(self, item):
            self.items = [item]

        def get_next(self):
            return self.items.pop() if self.items else None

    def see(low, high, keep=folder):
        calibrater.collect_data(Once({"x": np.array([low, high], f32)}))
        lo, hi = calibrater.compute_data()["x"].range_value
        if not (np.isfinite(lo).all() and np.isfinite(hi).all() and (lo <= hi).all()):
            return float(lo[0]), float(hi[0]), 0, 0
        zero_point, scale = compute_scale_zp(lo, hi, qmin, qmax, symmetric)
        return float(lo[0]), float(hi[0]), float(np.ravel(scale)[0]), int(np.ravel(zero_point)[0])
    return see


OBSERVERS = {"torch": torch_observer, "torch_fused": torch_fused_observer, "tf": tf_observer, "ort": ort_observer}


def bits(x):
    value = f32(x)
    return f"{0x7fc00000 if np.isnan(value) else int(value.view(np.uint32)):08x}"


def record(out, names, seed, length):
    np.seterr(all="ignore")
    for name in names:
        for symmetric in (False, True):
            for number, (title, stream) in enumerate(streams(seed, length)):
                c = (0.01, 0.001, 0.5)[number % 3]
                see = OBSERVERS[name](symmetric, c)
                out.write(f"# {name} {int(symmetric)} {c} {title}\n")
                for low, high in stream:
                    lo, hi, scale, zero_point = see(low, high)
                    scale = scale if np.isfinite(scale) and scale >= np.finfo(f32).tiny else 0
                    out.write(f"{bits(low)} {bits(high)} {bits(lo)} {bits(hi)} {bits(scale)} {zero_point if scale else 0}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--length", type=int, default=60)
    parser.add_argument("--only", default=",".join(OBSERVERS))
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.out:
        with open(args.out, "w", encoding="ascii") as out:
            record(out, args.only.split(","), args.seed, args.length)
    else:
        record(sys.stdout, args.only.split(","), args.seed, args.length)


if __name__ == "__main__":
    main()
