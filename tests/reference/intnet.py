"""The digit network in integers, written a second time: numpy and the formulas of docs/QUANTIZATION.md, nothing of the daemon's.

Numbers in brackets are the document's equations. One Learner folds observations as section 3 says and publishes epochs as section 5
says; IntNet runs one request under an epoch and returns its outputs and observations.
"""
import numpy as np

f32 = np.float32


def weight_scale(absmax):
    return f32(float(absmax) / 127) if absmax > 0 else f32(1)


def qparams(lo, hi):
    """(3), from a range without zero; returns scale, zero point."""
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    if lo == hi:
        return f32(1), 0
    scale = max(f32((hi - lo) / 255), np.finfo(f32).tiny)
    zero = int(np.clip(np.rint(255 - hi / float(scale)), 0, 255))
    return scale, zero


def quantize(real, scale, zero):
    """(1), division."""
    return np.clip(np.rint(real / scale), -zero, 255 - zero).astype(np.int64) + zero


def window_scale(rows, channels):
    """(4b): of the scales up to an eighth above absmax / 127, the one that moves the sums over taps least. rows [N, channels * taps]."""
    scales = []
    for row in rows:
        least, best = weight_scale(np.abs(row).max()), None
        for i in range(64):
            scale = f32(float(least) * (1 + i / 512))
            error = row.astype(np.float64) - float(scale) * np.rint(row / scale).astype(np.float64)
            cost = (error ** 2).sum() + 16 * (error.reshape(channels, -1).sum(1) ** 2).sum()
            if best is None or cost < best[0]:
                best = (cost, scale)
        scales.append(best[1])
    return np.array(scales, f32)


class Accumulators:
    """Of a layer without residual: the real values (7), and the bytes that (8a) makes of them."""

    def __init__(self, acc, scale, bias, relu, shape):
        self.acc, self.scale, self.bias, self.relu, self.shape = acc.astype(np.int32).astype(f32), scale[:, None], bias[:, None], relu, shape
        real = self.acc * self.scale + self.bias
        self.real = (np.where(real > 0, real, f32(0)) if relu else real).reshape(shape)

    def bytes(self, scale, zero):
        """Fused: exact in double, then rounded to float once."""
        inverse = f32(1) / scale
        factor, term = self.scale * inverse, self.bias * inverse + f32(zero)
        value = (self.acc.astype(np.float64) * factor + term).astype(f32)
        return np.clip(np.rint(value), zero if self.relu else 0, 255).astype(np.int64).reshape(self.shape)


class Layer:
    """Conv 3x3 same padding or Gemm, batch normalization merged, optional Relu."""

    def __init__(self, weight, bias, norm, relu, conv):
        self.conv, self.relu = conv, relu
        n = weight.shape[0]
        factor, self.bias = np.ones(n, f32), np.zeros(n, f32) if bias is None else bias.astype(f32)
        if norm is not None:
            gamma, beta, mean, var, eps = norm
            gain = gamma / np.sqrt(var + f32(eps))
            self.bias = (self.bias - mean) * gain + beta
            factor = factor * gain
        rows = (weight.reshape(n, -1) * factor[:, None]).astype(f32)
        small = conv and weight.shape[1] <= 4
        self.scale = window_scale(rows, weight.shape[1]) if small else np.array([weight_scale(a) for a in np.abs(rows).max(1)], f32)
        self.q = np.clip(np.rint(rows / self.scale[:, None]), -127, 127).astype(np.int64)
        self.sums = self.q.sum(1)

    def run(self, x, x_scale, x_zero):
        """(6): x integers [C, H, W] or [K] -> accumulators [N, H, W] or [N]."""
        if self.conv:
            c, h, w = x.shape
            padded = np.full((c, h + 2, w + 2), x_zero, np.int64)
            padded[:, 1:-1, 1:-1] = x
            columns = np.stack([padded[:, i:i + h, j:j + w] for i in range(3) for j in range(3)], 1)
            acc = self.q @ columns.reshape(c * 9, h * w)
        else:
            acc = (self.q @ x.reshape(-1))[:, None]
        acc = acc - x_zero * self.sums[:, None]
        shape = (-1, *x.shape[1:]) if self.conv else (-1,)
        return Accumulators(acc, f32(x_scale) * self.scale, self.bias, self.relu, shape)


class Site:
    def __init__(self):
        self.lo = self.hi = 0.0
        self.n = self.elements = self.clipped = self.guarded = 0


class Learner:
    def __init__(self, names, c=0.01, max_step=2.0, publish=0.01, min_observations=8):
        self.c, self.max_step, self.publish, self.min_observations = c, max_step, publish, min_observations
        self.sites = {name: Site() for name in names}
        self.epoch, self.epoch_id = {name: None for name in names}, 1  # None: not ready

    def fold(self, seen):
        changed = False
        for name, (lo, hi, elements, clipped, guarded) in seen.items():
            s = self.sites[name]
            s.elements, s.clipped, s.guarded = s.elements + elements, s.clipped + clipped, s.guarded + guarded
            if s.n == 0:
                s.lo, s.hi = lo, hi
            else:
                rate = max(self.c, 1 / (s.n + 1))
                width = max(s.hi, 0) - min(s.lo, 0)
                limit = rate * self.max_step * width if width > 0 else np.inf
                s.lo += float(np.clip(rate * (lo - s.lo), -limit, limit))
                s.hi += float(np.clip(rate * (hi - s.hi), -limit, limit))
            s.n += 1
            now = self.epoch[name]
            if now is None:
                changed |= s.n >= self.min_observations
            else:
                tolerance = self.publish * (now[1] - now[0])
                changed |= abs(min(s.lo, 0) - now[0]) > tolerance or abs(max(s.hi, 0) - now[1]) > tolerance
        if changed:
            self.epoch_id += 1
            self.epoch = {name: (min(s.lo, 0), max(s.hi, 0)) if s.n >= self.min_observations else None
                          for name, s in self.sites.items()}


def pool(x):
    c, h, w = x.shape
    return x[:, :h // 2 * 2, :w // 2 * 2].reshape(c, h // 2, 2, w // 2, 2).max((2, 4))


class IntNet:
    """image -> [conv relu pool] x 3 -> fc relu -> fc, by the tensors' names in the model."""

    def __init__(self, model):
        from onnx import numpy_helper
        w = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        eps = {n.name: next((a.f for a in n.attribute if a.name == "epsilon"), 1e-5) for n in model.graph.node}
        gemm = {n.name: {a.name: a.i for a in n.attribute} for n in model.graph.node if n.op_type == "Gemm"}

        def norm(i):
            return [w[f"bn{i}_{p}"] for p in ("scale", "bias", "mean", "var")] + [eps[f"bn{i}"]]

        def matrix(name):
            m = w[f"{name}_weight"]
            return m if gemm[name].get("transB") else m.T
        self.convs = [Layer(w[f"conv{i}_weight"], w.get(f"conv{i}_bias"), norm(i), True, True) for i in (1, 2, 3)]
        self.fc1 = Layer(matrix("fc1"), w["fc1_bias"], None, True, False)
        self.fc2 = Layer(matrix("fc2"), w["fc2_bias"], None, False, False)
        self.sites = ["image", "relu1_out", "relu2_out", "relu3_out", "relu4_out"]

    def _site(self, name, made, epoch, seen, tolerance):
        """Quantizes one site under the epoch, with warm-up and the guard `widen` (section 6)."""
        summed = isinstance(made, Accumulators)
        real = made.real if summed else made
        lo, hi = float(real.min()), float(real.max())
        clipped = guarded = 0
        ready = epoch[name]
        if ready is None:
            scale, zero = qparams(lo, hi)
        else:
            scale, zero = qparams(*ready)
            scaled = np.rint(real * (f32(1) / scale) if summed else real / scale)
            clipped = int((scaled < -zero).sum() + (scaled > 255 - zero).sum())
            excess = max(ready[0] - lo, hi - ready[1])
            if excess > tolerance * (ready[1] - ready[0]):
                guarded = 1
                scale, zero = qparams(min(lo, ready[0]), max(hi, ready[1]))
        seen[name] = (lo, hi, real.size, clipped, guarded)
        return made.bytes(scale, zero) if summed else quantize(real, scale, zero), scale, zero

    def run(self, image, epoch, tolerance=0.1):
        seen = {}
        x, scale, zero = self._site("image", image.astype(f32), epoch, seen, tolerance)
        for i, layer in enumerate(self.convs, 1):
            x, scale, zero = self._site(f"relu{i}_out", layer.run(x, scale, zero), epoch, seen, tolerance)
            x = pool(x)
        x, scale, zero = self._site("relu4_out", self.fc1.run(x.reshape(-1), scale, zero), epoch, seen, tolerance)
        return self.fc2.run(x, scale, zero).real, seen
