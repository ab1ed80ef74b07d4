#!/usr/bin/env python3
"""Small random networks of many kinds, written by PyTorch's exporter (dynamo): what test_exporters.py runs. The files lie in
tests/nodes/exported.tar.xz, so that no test needs PyTorch; this writes them again (with torch and onnxscript).

    make_exported.py OUT.tar.xz [part-of-a-name ...]

A file's metadata says how to feed it: `sizes`, what the named dimensions are in each trial, and `ranges`, from where to
where its integer inputs go."""
import io
import json
import logging
import os
import sys
import tarfile
import warnings

try:
    import onnx
    import torch
    from torch import nn
    from torch.export import Dim
    from torch.nn import functional as F
except ImportError as error:
    print(f"SKIP: {error.name or error}: the exported networks are written by PyTorch")
    sys.exit(77)

CASES = {}


def case(sizes=({},), ranges=None, opset=None):
    """A function without arguments that gives the network, example inputs by name, and dynamic_shapes by name."""
    def add(function):
        CASES[function.__name__] = function, list(sizes), ranges or {}, opset
        return function
    return add


BATCHES = ({"batch": 1}, {"batch": 3})
LENGTHS = ({"batch": 1, "length": 7}, {"batch": 3, "length": 12})


def batch(*names):
    return {name: {0: Dim("batch", min=1, max=64)} for name in names}


def batch_and_length(*names):
    return {name: {0: Dim("batch", min=1, max=64), 1: Dim("length", min=2, max=16)} for name in names}


# ------------------------------------------------------------------ images

class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x):
        return x * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


def unit(cin, cout, size=3, act=nn.Hardswish, **more):
    return nn.Sequential(nn.Conv2d(cin, cout, size, padding=size // 2, bias=False, **more), nn.BatchNorm2d(cout), act())


@case(BATCHES)
def mobile():
    """Depthwise separable convolutions with batch normalization, squeeze-and-excite, and a residual."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = unit(3, 8, stride=2)
            self.block = nn.Sequential(unit(8, 12, 1), unit(12, 12, 5, groups=12), SqueezeExcite(12),
                                       unit(12, 8, 1, nn.Identity))
            self.head = nn.Sequential(unit(8, 12, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(.2), nn.Linear(12, 5))

        def forward(self, image):
            x = self.stem(image)
            return self.head(x + self.block(x))
    return Net(), {"image": torch.randn(2, 3, 24, 24)}, batch("image")


@case(({"batch": 1, "height": 16, "width": 20}, {"batch": 2, "height": 25, "width": 16}))
def residual():
    """Two blocks of a ResNet, of any size of image."""
    class Block(nn.Module):
        def __init__(self, cin, cout, stride):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(),
                                      nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout))
            self.side = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)) if stride > 1 else None

        def forward(self, x):
            return F.relu(self.body(x) + (self.side(x) if self.side else x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
            self.blocks, self.head = nn.Sequential(Block(6, 6, 1), Block(6, 8, 2)), nn.Linear(8, 5)

        def forward(self, image):
            return self.head(self.blocks(self.stem(image)).mean((2, 3)))
    dims = {0: Dim("batch", min=1, max=16), 2: Dim("height", min=16, max=64), 3: Dim("width", min=16, max=64)}
    return Net(), {"image": torch.randn(2, 3, 20, 24)}, {"image": dims}


@case(({"batch": 1, "height": 16, "width": 20}, {"batch": 2, "height": 25, "width": 16}))
def pyramid():
    """Dilated convolutions beside a pooled branch, resized to sizes that the graph computes."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.pooled, self.last = unit(3, 8, stride=2, act=nn.ReLU), nn.Conv2d(8, 6, 1), nn.Conv2d(24, 4, 1)
            self.branches = nn.ModuleList([nn.Conv2d(8, 6, 3, padding=d, dilation=d) for d in (1, 2, 4)])

        def forward(self, image):
            x = self.stem(image)
            pooled = F.interpolate(self.pooled(F.adaptive_avg_pool2d(x, 1)), size=x.shape[2:], mode="bilinear")
            x = self.last(torch.cat([*(F.relu(branch(x)) for branch in self.branches), pooled], 1))
            return F.interpolate(x, size=image.shape[2:], mode="bilinear", align_corners=True)
    dims = {0: Dim("batch", min=1, max=16), 2: Dim("height", min=16, max=64), 3: Dim("width", min=16, max=64)}
    return Net(), {"image": torch.randn(2, 3, 20, 24)}, {"image": dims}


@case(BATCHES)
def unet():
    """Down by pooling, up by transposed convolution and by interpolation, joined by Concat."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = unit(1, 4, act=nn.ReLU), unit(4, 6, act=nn.ELU), unit(6, 8, act=nn.SiLU)
            self.up = nn.ConvTranspose2d(8, 6, 2, 2)
            self.back, self.last = unit(12, 6, act=nn.PReLU), nn.Conv2d(10, 2, 1)

        def forward(self, image):
            a = self.one(image)
            b = self.two(F.max_pool2d(a, 2))
            c = self.three(F.avg_pool2d(b, 2))
            d = self.back(torch.cat([self.up(c), b], 1))
            e = F.interpolate(d, scale_factor=2, mode="bilinear", align_corners=False)
            f = F.interpolate(self.last(torch.cat([e, a], 1)), size=(24, 20), mode="bicubic", align_corners=True)
            return f.softmax(1), F.interpolate(f, scale_factor=2, mode="nearest")
    return Net(), {"image": torch.randn(2, 1, 16, 16)}, batch("image")


@case(BATCHES)
def sampling():
    """What moves pixels: grid_sample, affine_grid, pixel_shuffle, roll, flip, reflection padding, unfold, fold."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.theta = nn.Conv2d(2, 8, 3), nn.Linear(8, 6)

        def forward(self, image):
            x = self.conv(F.pad(image, (1, 1, 1, 1), mode="reflect"))
            theta = self.theta(x.mean((2, 3))).view(-1, 2, 3) * .1 + torch.tensor([[1., 0, 0], [0, 1, 0]])
            x = F.grid_sample(x, F.affine_grid(theta, [image.shape[0], 8, 8, 8], align_corners=False), align_corners=False)
            y = F.pixel_shuffle(x, 2).roll((1, -2), (2, 3)).flip(3)
            z = F.unfold(y, 3, padding=1, stride=2)
            return F.pixel_unshuffle(y, 4), z, F.pad(x, (0, 1, 2, 0), mode="replicate")
    return Net(), {"image": torch.randn(2, 2, 8, 8)}, batch("image")


@case(BATCHES)
def volume():
    """Three dimensions: Conv3d, pooling, adaptive pooling, transposed convolution."""
    net = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.LeakyReLU(.1), nn.MaxPool3d(2), nn.Conv3d(4, 4, 3, groups=4, padding=1),
                        nn.BatchNorm3d(4), nn.AvgPool3d(2, ceil_mode=True), nn.ConvTranspose3d(4, 2, 2, 2), nn.Softplus(),
                        nn.AvgPool3d((2, 4, 2), (2, 4, 2)), nn.Flatten(), nn.Linear(8, 3))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)
    return Net(), {"x": torch.randn(2, 1, 8, 8, 8)}, batch("x")


@case(BATCHES)
def norms():
    """Every normalization, and weights under a parametrization."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, padding=1))
            self.group, self.instance = nn.GroupNorm(4, 8), nn.InstanceNorm2d(8, affine=True)
            self.plain, self.layer = nn.InstanceNorm2d(8), nn.LayerNorm([8, 6, 6])
            self.local, self.rms = nn.LocalResponseNorm(3), nn.RMSNorm(6)

        def forward(self, x):
            x = self.conv(x)
            x = F.gelu(self.group(x)) + self.instance(x) + F.gelu(self.plain(x), approximate="tanh")
            return self.rms(self.local(self.layer(x))), F.normalize(x, dim=1), x.var((2, 3)), x.std(1, unbiased=False)
    return Net(), {"x": torch.randn(2, 3, 6, 6)}, batch("x")


# ------------------------------------------------------------------ sequences

@case(LENGTHS, {"ids": [0, 20], "mask": [0, 2]})
def encoder():
    """Embeddings and nn.TransformerEncoderLayer (nn.MultiheadAttention) under a padding mask."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.places = nn.Embedding(20, 8), nn.Embedding(16, 8)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0., "gelu", batch_first=True, norm_first=True)
            self.head = nn.Linear(8, 5)

        def forward(self, ids, mask):
            x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
            bias = torch.where(mask[:, None, :].bool(), 0., -1e4).expand(-1, ids.shape[1], -1)
            return self.head(self.layer(x, src_mask=bias.repeat_interleave(2, 0)))
    inputs = {"ids": torch.randint(0, 20, (2, 6)), "mask": torch.ones(2, 6, dtype=torch.int64)}
    return Net(), inputs, batch_and_length("ids", "mask")


@case(BATCHES)
def vision():
    """Patches, a class token, scaled_dot_product_attention over one matrix for queries, keys and values."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.token = nn.Conv2d(3, 12, 4, 4), nn.Parameter(torch.randn(1, 1, 12))
            self.place, self.norm = nn.Parameter(torch.randn(1, 17, 12)), nn.LayerNorm(12)
            self.qkv, self.out, self.head = nn.Linear(12, 36), nn.Linear(12, 12), nn.Linear(12, 5)
            self.mlp = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 12))

        def forward(self, image):
            x = self.patch(image).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
            b, n, c = x.shape
            q, k, v = self.qkv(self.norm(x)).view(b, n, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
            x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))
            return self.head((x + self.mlp(x))[:, 0])
    return Net(), {"image": torch.randn(2, 3, 16, 16)}, batch("image")


@case(LENGTHS, {"ids": [0, 20]})
def decoder():
    """A language model's layer: rotary positions, grouped queries, causal attention, RMSNorm, SiLU gates."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.norm, self.norm2 = nn.Embedding(20, 16), nn.RMSNorm(16), nn.RMSNorm(16)
            self.q, self.k, self.v = nn.Linear(16, 16, False), nn.Linear(16, 8, False), nn.Linear(16, 8, False)
            self.o, self.gate, self.up, self.down = (nn.Linear(16, 16, False), nn.Linear(16, 24, False),
                                                     nn.Linear(16, 24, False), nn.Linear(24, 16, False))
            self.register_buffer("frequencies", 1 / 100 ** (torch.arange(0, 4, 2) / 4))

        def rotate(self, x):
            angles = torch.arange(x.shape[2])[:, None] * self.frequencies
            angles = torch.cat([angles, angles], -1)
            a, b = x.chunk(2, -1)
            return x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()

        def forward(self, ids):
            x = self.words(ids)
            b, n, _ = x.shape
            y = self.norm(x)
            q = self.rotate(self.q(y).view(b, n, 4, 4).transpose(1, 2))
            k = self.rotate(self.k(y).view(b, n, 2, 4).transpose(1, 2)).repeat_interleave(2, 1)
            v = self.v(y).view(b, n, 2, 4).transpose(1, 2).repeat_interleave(2, 1)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.o(y.transpose(1, 2).reshape(b, n, 16))
            y = self.norm2(x)
            return F.linear(x + self.down(F.silu(self.gate(y)) * self.up(y)), self.words.weight)
    return Net(), {"ids": torch.randint(0, 20, (2, 6))}, batch_and_length("ids")


@case(({"batch": 1}, {"batch": 2}))
def cached():
    """One step of a decoder with keys and values of the past: in and out."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

        def forward(self, x, keys, values):
            b = x.shape[0]
            q, k, v = (part.view(b, 1, 2, 4).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
            keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
            y = F.scaled_dot_product_attention(q, keys, values).transpose(1, 2).reshape(b, 1, 8)
            return self.out(y), keys, values
    inputs = {"x": torch.randn(2, 1, 8), "keys": torch.randn(2, 2, 5, 4), "values": torch.randn(2, 2, 5, 4)}
    return Net(), inputs, batch(*inputs)


@case(({"batch": 1}, {"batch": 3}))
def lstm():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True), nn.Linear(8, 4)

        def forward(self, x):
            y, (h, c) = self.lstm(x)
            return self.head(y), h, c
    return Net(), {"x": torch.randn(2, 9, 5)}, batch("x")


@case(({"batch": 1}, {"batch": 3}), {"ids": [0, 20]})
def gru():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.gru, self.rnn = nn.Embedding(20, 6), nn.GRU(6, 5, batch_first=True), nn.RNN(5, 4, batch_first=True)

        def forward(self, ids, state):
            y, h = self.gru(self.words(ids), state.transpose(0, 1))
            return F.log_softmax(self.rnn(y)[0], -1), h
    return Net(), {"ids": torch.randint(0, 20, (2, 9)), "state": torch.randn(2, 1, 5)}, batch("ids", "state")


@case(LENGTHS)
def audio():
    """Dilated causal Conv1d with gates, a transposed one, and pooling over time."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv1d(4, 12, 3, dilation=2), nn.Conv1d(6, 6, 5, padding=2, groups=3)
            self.up, self.norm = nn.ConvTranspose1d(6, 4, 4, 2, 1), nn.BatchNorm1d(4)

        def forward(self, frames):
            x = F.glu(self.first(F.pad(frames.transpose(1, 2), (4, 0))), 1)
            x = torch.tanh(self.norm(self.up(x * torch.sigmoid(self.second(x)))))
            mean = x.mean(-1)
            return x, torch.cat([mean, (x - mean[..., None]).square().mean(-1).clamp(min=1e-4).sqrt()], 1)
    return Net(), {"frames": torch.randn(2, 9, 4)}, batch_and_length("frames")


@case()
def spectrum():
    """torch.stft and a filter bank."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("window", torch.hann_window(16))
            self.register_buffer("bank", torch.rand(6, 9))

        def forward(self, wave):
            x = torch.view_as_real(torch.stft(wave, 16, 8, window=self.window, center=False, return_complex=True))
            power = x.square().sum(-1)
            return (self.bank @ power).clamp(min=1e-6).log10()
    return Net(), {"wave": torch.randn(2, 64)}, None


# ------------------------------------------------------------------ indices, einsum, control flow

@case(({"batch": 1}, {"batch": 3}))
def einsum():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Parameter(torch.randn(8, 2, 4)), nn.Parameter(torch.randn(8, 2, 4))
            self.out, self.core = nn.Parameter(torch.randn(2, 4, 8)), nn.Parameter(torch.randn(8, 3, 8) * .3)

        def forward(self, x):
            q, k = torch.einsum("bsc,chd->bshd", x, self.q), torch.einsum("bsc,chd->bshd", x, self.k)
            weights = torch.einsum("bshd,bthd->bhst", q, k).softmax(-1)
            y = torch.einsum("bhst,bthd->bshd", weights, k)
            y = torch.einsum("bshd,hdc->bsc", y, self.out)
            bilinear = torch.einsum("bsi,iok,bsk->bso", y, self.core, x)
            return bilinear, torch.einsum("bsc->cb", y), torch.einsum("bss->bs", weights.sum(1)), torch.einsum("bi,bj->bij", y[:, 0], y[:, 1])
    return Net(), {"x": torch.randn(2, 5, 8)}, batch("x")


@case(({"batch": 2}, {"batch": 4}), {"at": [0, 6]})
def indices():
    """index_put, gather, scatter_add, masks, topk, sort, one_hot, cumsum, slices with steps, boolean selection."""
    class Net(nn.Module):
        def forward(self, x, at):
            rows = torch.arange(x.shape[0])
            y = x.clone()
            y[rows, at[:, 0]] = 1.5
            y = y.index_put((rows, at[:, 1]), torch.tensor(.25), accumulate=True)
            z = torch.zeros_like(x).scatter_add(1, at, x[:, :3])
            values, order = x.topk(3, 1)
            s, i = torch.sort(x, 1, descending=True)
            picked = torch.gather(x, 1, order)
            ranks = F.one_hot(at, 6).float().sum(1).cumsum(1)
            tail = x[:, 1::2].masked_fill(x[:, 1::2] < 0, -9) + x[:, [0, 2, 4]]
            triangle = torch.tril(x[:, :, None] * x[:, None, :], -1)
            return y, z, values, order, s, i, picked, ranks, tail, triangle, x.argmax(1), torch.where(x > 0, x, x.exp())
    return Net(), {"x": torch.randn(3, 6), "at": torch.tensor([[0, 1, 5], [2, 0, 3], [4, 3, 1]])}, batch("x", "at")


@case()
def selection():
    """Sizes that depend on data: nonzero, boolean masks."""
    class Net(nn.Module):
        def forward(self, x):
            kept = x[x[:, 0] > 0]
            return kept * 2, torch.nonzero(x > .5), x[x < 0].sum()
    return Net(), {"x": torch.randn(8, 3)}, None


@case(BATCHES)
def windows():
    """Attention within shifted windows with a relative position bias, as Swin has it."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
            self.table = nn.Parameter(torch.randn(49, 2))
            place = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
            apart = (place[:, :, None] - place[:, None, :] + 3)
            self.register_buffer("index", apart[0] * 7 + apart[1])

        def forward(self, x):
            b = x.shape[0]
            y = torch.roll(self.norm(x), (-2, -2), (1, 2)).view(b, 2, 4, 2, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 8)
            q, k, v = self.qkv(y).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
            scores = q * .5 @ k.transpose(-2, -1) + self.table[self.index.view(-1)].view(16, 16, 2).permute(2, 0, 1)
            y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, 8))
            y = torch.roll(y.view(b, 2, 2, 4, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(b, 8, 8, 8), (2, 2), (1, 2))
            return x + y
    return Net(), {"x": torch.randn(2, 8, 8, 8)}, batch("x")


@case(BATCHES)
def experts():
    """Two of four experts for each token, their results weighed."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(6, 4), nn.Parameter(torch.randn(4, 6, 8)), nn.Parameter(torch.randn(4, 8, 6))

        def forward(self, x):
            weights, which = self.gate(x).softmax(-1).topk(2, -1)
            mix = torch.zeros(x.shape[0], 5, 4).scatter(-1, which, weights / weights.sum(-1, keepdim=True))
            y = torch.matmul(F.relu(torch.matmul(x[:, None], self.up)), self.down)
            return torch.einsum("besd,bse->bsd", y, mix)
    return Net(), {"x": torch.randn(2, 5, 6)}, batch("x")


@case()
def branches():
    """torch.cond: both ways are taken by the trials' inputs."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))

        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda x: self.one(x), lambda x: self.two(x).tanh(), (x,))
    return Net(), {"x": torch.randn(3, 4)}, None


@case()
def steps():
    """A scan over time written in Python: torch's higher order scan."""
    from torch._higher_order_ops.scan import scan

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(8, 5)

        def forward(self, x, state):
            def step(carry, frame):
                carry = torch.tanh(self.cell(torch.cat([carry, frame], -1)))
                return carry, carry * 2
            return scan(step, state, x, dim=0)
    return Net(), {"x": torch.randn(7, 2, 3), "state": torch.randn(2, 5)}, None


@case()
def repeat():
    """while_loop: as often as the data say."""
    from torch._higher_order_ops.while_loop import while_loop

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            def go(i, y):
                return i < 5

            def body(i, y):
                return i + 1, torch.tanh(self.layer(y))
            return while_loop(go, body, (torch.tensor(0), x))[1]
    return Net(), {"x": torch.randn(2, 4)}, None


@case(BATCHES)
def half():
    """Weights and activations of 16 bits."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.Linear(8, 5)

        def forward(self, image):
            return self.head(F.silu(self.norm(self.conv(image))).amax((2, 3)))
    return Net().half(), {"image": torch.randn(2, 3, 9, 9).half()}, batch("image")


@case(BATCHES)
def pieces():
    """What else is common: chunk, split, stack, expand, clamp, powers, comparisons, integer arithmetic, logarithms."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Bilinear(4, 4, 3)

        def forward(self, x):
            a, b = x.chunk(2, 1)
            c, d, e = x.split([1, 3, 4], 1)
            y = torch.stack([a, b], 1).logsumexp(1) + c.expand(-1, 4) ** 2 + e.abs().rsqrt().clamp(max=3) * e.sign()
            z = torch.addmm(a, b, torch.eye(4)) + F.mish(e) + F.celu(e) - F.selu(e) + torch.erf(e) * torch.atan2(a, b + 4)
            n = (x * 7).round().int()
            return self.mix(a, b), y, z, n // 3, n % 5, (n > 2) & (x < 1), torch.cumsum(x, 1).floor(), d.prod(1), x.cosh().log1p(), \
                F.cosine_similarity(a, b, 1), x.remainder(.7), x.amin(1), torch.maximum(a, b).norm(dim=1)
    return Net(), {"x": torch.randn(2, 8)}, batch("x")


# The same by operators that later opsets have: Attention, RMSNormalization, RotaryEmbedding; and by those of an older one.
CASES |= {f"{name}_{opset}": (*CASES[name][:3], opset)
          for name, opset in (("decoder", 23), ("vision", 24), ("cached", 23), ("norms", 23), ("unet", 18), ("experts", 18))}


# ------------------------------------------------------------------ writing

def settle(net):
    """Statistics and factors of normalizations as training leaves them: not 0 and 1."""
    for module in net.modules():
        for name in ("running_mean", "bias"):
            tensor = getattr(module, name, None)
            if isinstance(tensor, torch.Tensor):
                tensor.data.copy_(torch.randn_like(tensor.float()) * .2)
        if getattr(module, "running_var", None) is not None:
            module.running_var.uniform_(.5, 1.5)
            module.weight.data.uniform_(.5, 1.5)
    return net.eval()


def bare(graph):
    """Without the exporter's notes on where in whose file an operator was written."""
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                bare(inner)
    for value in [*graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    graph.ClearField("metadata_props")


def export(name):
    make, sizes, ranges, opset = CASES[name]
    torch.manual_seed(7)
    net, inputs, dynamic = make()
    net = settle(net)
    program = torch.onnx.export(net, (), kwargs=inputs, dynamo=True, dynamic_shapes=dynamic, verbose=False, opset_version=opset)
    model = program.model_proto
    bare(model.graph)
    for function in model.functions:
        for node in function.node:
            node.ClearField("metadata_props")
        function.ClearField("metadata_props")
    model.ClearField("metadata_props")
    onnx.helper.set_model_props(model, {"sizes": json.dumps(sizes), "ranges": json.dumps(ranges)})
    return model


def main():
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    parts, failed = sys.argv[2:], 0
    with tarfile.open(sys.argv[1], "w:xz", preset=9) as out:
        for name in CASES:
            if parts and not any(p in name for p in parts):
                continue
            try:
                model = export(name)
            except Exception as error:  # the exporter's own, a class for each stage
                print(f"FAIL {name}: {str(error).strip().splitlines()[:3]}")
                failed += 1
                continue
            data = model.SerializeToString(deterministic=True)
            about = tarfile.TarInfo(name + ".onnx")
            about.size = len(data)
            out.addfile(about, io.BytesIO(data))
            print(f"{name}: {len(data)} bytes, opset {model.opset_import[0].version}, "
                  + " ".join(sorted({n.op_type for n in model.graph.node})))
    print(f"{os.path.getsize(sys.argv[1])} bytes, torch {torch.__version__}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
