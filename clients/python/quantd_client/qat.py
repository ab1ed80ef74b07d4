"""Training with quantization in mind: a PyTorch model computes as its quantized form will, by the ranges that a daemon has
learned while serving, so that training finds weights that bear the rounding.

    from quantd_client import Client, qat
    ranges = Client(url).ranges("digits")               # or the file's JSON: json.load(open("ranges.json"))
    model = qat.prepare_qat(model, ranges, bits=4)      # in place; then train as always
    qat.export(model, example, "digits_qat.onnx")       # QuantizeLinear and DequantizeLinear, any runtime reads it

Linear and Conv layers get a scale for their input, from the ranges, and one per output channel for their weights, which
follow the weights. Needs torch; for export what torch.onnx.export needs (onnx)."""
import re

from .errors import QuantdError

_LAYERS = ("Linear", "Conv1d", "Conv2d", "Conv3d")


def _torch():
    try:
        import torch
    except ImportError:
        raise QuantdError(None, "qat needs PyTorch: pip install torch") from None
    return torch


def _classes():
    """The modules, made when torch is there."""
    global _made
    if _made:
        return _made
    torch = _torch()
    F = torch.nn.functional

    def round_through(x):  # the gradient passes as if nothing were rounded
        return x + (torch.round(x) - x).detach()

    class Activations(torch.nn.Module):
        """Asymmetric, a range per tensor. how: "average" moves the range with the data in training, "learn" trains it,
        "fixed" leaves it."""

        def __init__(self, lo, hi, bits, how, averaging_constant):
            super().__init__()
            self.bits, self.how, self.c = bits, how, averaging_constant
            self.constants = None  # scale and zero point as numbers, while a model is exported
            bounds = torch.tensor([min(float(lo), 0.0), max(float(hi), 0.0)])
            if not torch.isfinite(bounds).all():
                raise QuantdError(None, f"the range [{lo}, {hi}] is not finite")
            if how == "learn":
                self.bounds = torch.nn.Parameter(bounds)
            else:
                self.register_buffer("bounds", bounds)

        def scale(self):
            most = 2**self.bits - 1
            lo, hi = self.bounds[0].clamp(max=0), self.bounds[1].clamp(min=0)
            return ((hi - lo) / most).clamp(min=torch.finfo(torch.float32).tiny), lo

        def hold(self, on):
            scale, lo = self.scale()
            point = torch.round(-lo / scale).clamp(0, 2**self.bits - 1)
            self.constants = (float(scale.detach()), int(point)) if on else None

        def forward(self, x):
            most = 2**self.bits - 1
            if self.constants:
                return self.rounded(x, *self.constants)
            if self.training and self.how == "average":
                with torch.no_grad():
                    seen = torch.stack(torch.aminmax(x.detach()))
                    self.bounds += self.c * torch.where(torch.isfinite(seen), seen - self.bounds, 0)
            scale, lo = self.scale()
            point = torch.round((-lo / scale).detach()).clamp(0, most)
            if self.training and self.how == "learn":
                return (round_through(x / scale + point).clamp(0, most) - point) * scale
            return self.rounded(x, float(scale.detach()), int(point))

        def rounded(self, x, scale, point):
            if self.bits < 8:  # exporters know the limits of 8 bits: cut where fewer end
                x = x.clamp(-point * scale, (2**self.bits - 1 - point) * scale)
            return torch.fake_quantize_per_tensor_affine(x, scale, point, 0, 255)

    class Weights(torch.nn.Module):
        """Symmetric, a scale per output channel: what the daemon does with weights."""

        def __init__(self, bits):
            super().__init__()
            self.bits, self.constants = bits, None

        def scale(self, w):
            most = 2**(self.bits - 1) - 1
            scale = w.detach().abs().flatten(1).amax(1) / most
            return torch.where(scale >= torch.finfo(torch.float32).tiny, scale, torch.ones_like(scale))

        def hold(self, w, on):
            scale = self.scale(w)
            self.constants = (scale, torch.zeros_like(scale, dtype=torch.int32)) if on else None

        def forward(self, w):
            scale, zero = self.constants or (self.scale(w), None)
            zero = torch.zeros_like(scale, dtype=torch.int32) if zero is None else zero
            return torch.fake_quantize_per_channel_affine(w, scale, zero, 0, -128, 127)

    class Quantized(torch.nn.Module):
        """A Linear or Conv layer of which input and weights are rounded."""

        def __init__(self, layer, activations, weights):
            super().__init__()
            self.layer, self.activations, self.weights = layer, activations, weights

        def hold(self, on):
            """Numbers in the place of what is computed of ranges and weights, for an exporter."""
            self.activations.hold(on)
            self.weights.hold(self.layer.weight, on)

        def forward(self, x):
            x, w = self.activations(x), self.weights(self.layer.weight)
            if isinstance(self.layer, torch.nn.Linear):
                return F.linear(x, w, self.layer.bias)
            return self.layer._conv_forward(x, w, self.layer.bias)

    _made = {"Activations": Activations, "Weights": Weights, "Quantized": Quantized}
    return _made


_made = None


def _tensors(ranges):
    """The list of tensors in what Client.ranges, GET /ranges or an exported file gives."""
    if hasattr(ranges, "to_dict"):  # a data frame
        ranges = ranges.reset_index().to_dict("records")
    if isinstance(ranges, dict):
        ranges = ranges.get("tensors", ranges)
    if isinstance(ranges, dict):  # {"tensor": [lo, hi]}
        ranges = [{"name": name, "ema_min": lo, "ema_max": hi} for name, (lo, hi) in ranges.items()]
    found = []
    for entry in ranges:
        name = entry.get("name", entry.get("tensor", entry.get("index")))
        lo, hi = entry.get("ema_min", entry.get("min")), entry.get("ema_max", entry.get("max"))
        if name is None or lo is None or hi is None:
            raise QuantdError(None, f"a range needs a name and two bounds: {entry}")
        consumers = entry.get("consumers")
        found.append({"name": str(name), "lo": float(lo), "hi": float(hi),
                      "consumers": list(consumers) if isinstance(consumers, (list, tuple)) else []})
    if not found:
        raise QuantdError(None, "there are no ranges: serve some requests first")
    return found


def _words(name):
    return [w for w in re.split(r"[./]+", name) if w]


def _is_layer(module_words, node):
    """Is a node of the exporter's (/block/fc/Gemm, block.fc) the layer of that module?"""
    words = _words(node)
    return words == module_words or words[:-1] == module_words


def _match(layers, tensors, names):
    """module name -> tensor."""
    by_name = {t["name"]: t for t in tensors}
    matched, left = {}, []
    for module in layers:
        if module in names:
            if names[module] not in by_name:
                raise QuantdError(None, f"names says '{names[module]}' for '{module}', but no range has that name")
            matched[module] = by_name[names[module]]
            continue
        fits = [t for t in tensors if any(_is_layer(_words(module), node) for node in t["consumers"])]
        if len(fits) == 1:
            matched[module] = fits[0]
        else:
            left.append(module)
    if left and len(left) == len(layers) and len(layers) == len(tensors):
        return dict(zip(layers, tensors))  # other names altogether: both stand in the order in which they run
    if left:
        raise QuantdError(None, f"no range is known for the input of {', '.join(repr(m) for m in left)}: "
                                f"say which with names={{{left[0]!r}: TENSOR}}; the ranges are of "
                                f"{', '.join(repr(t['name']) for t in tensors)}")
    return matched


def prepare_qat(model, ranges, bits=8, weight_bits=None, activation_bits=None, how="average", averaging_constant=0.01,
                names=None, skip=()):
    """Puts rounding before every Linear and Conv layer of a torch.nn.Module, in place, and gives the model back.

    ranges: of Client.ranges(), the JSON of GET /ranges, or {tensor: (lo, hi)}. bits: 2..8, of weights and inputs unless
    weight_bits or activation_bits says otherwise. how: what becomes of the inputs' ranges in training: "average" goes on
    averaging them by averaging_constant, "learn" trains them, "fixed" leaves them. names: {module: tensor} for layers
    whose tensor can't be told from the names of nodes, or from the order when no name fits. skip: names of layers to
    leave. QuantdError says which layer has no range."""
    torch = _torch()
    weight_bits, activation_bits = weight_bits or bits, activation_bits or bits
    if not (2 <= weight_bits <= 8 and 2 <= activation_bits <= 8):
        raise QuantdError(None, "bits lie in 2..8")
    if how not in ("average", "learn", "fixed"):
        raise QuantdError(None, f"how is 'average', 'learn' or 'fixed', not '{how}'")
    kinds = tuple(getattr(torch.nn, name) for name in _LAYERS)
    made = _classes()
    layers = [name for name, module in model.named_modules() if isinstance(module, kinds) and name not in skip]
    if "" in layers:
        raise QuantdError(None, "the model is a single layer: put it into a torch.nn.Sequential")
    if not layers:
        raise QuantdError(None, "the model has no Linear or Conv layer")
    for name in layers:
        mode = getattr(model.get_submodule(name), "padding_mode", "zeros")
        if mode != "zeros":
            raise QuantdError(None, f"layer '{name}' pads with '{mode}': only zeros can be quantized")
    matched = _match(layers, _tensors(ranges), names or {})
    for name in layers:
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        layer, tensor = getattr(owner, child), matched[name]
        activations = made["Activations"](tensor["lo"], tensor["hi"], activation_bits, how, averaging_constant)
        quantized = made["Quantized"](layer, activations, made["Weights"](weight_bits)).to(layer.weight.device)
        quantized.train(layer.training)
        setattr(owner, child, quantized)
    return model


def export(model, example, path, input_names=None, output_names=None, batch="batch"):
    """Writes a prepared model as ONNX with QuantizeLinear and DequantizeLinear. Fewer than 8 bits are a Clip before the
    integers. example: a tensor, or a tuple of inputs; batch: the name of their first dimension, None when it is fixed."""
    torch = _torch()
    inputs = example if isinstance(example, tuple) else (example,)
    training = model.training
    quantized = [module for module in model.modules() if isinstance(module, _classes()["Quantized"])]
    trained = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for module in quantized:
        module.hold(True)
    for p in trained:
        p.requires_grad_(False)  # what computes gradients can't be exported
    try:
        # The exporter that traces: the other one has no fake quantization by numbers.
        names = list(input_names or [f"input_{i}" for i in range(len(inputs))])
        axes = None if batch is None else {name: {0: batch} for name in [*names, *(output_names or [])]}
        torch.onnx.export(model, inputs, path, input_names=names, output_names=output_names, dynamo=False,
                          dynamic_axes=axes, opset_version=17)
    finally:
        for module in quantized:
            module.hold(False)
        for p in trained:
            p.requires_grad_(True)
        model.train(training)
