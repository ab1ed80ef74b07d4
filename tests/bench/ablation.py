#!/usr/bin/env python3
"""What each part of the quantization gives: models served one configuration after the other, taught with their own samples, and
compared with FP32; a Markdown table.

    ablation.py --models FOLDER [--only NAME]... [--requests 64] [--build build] [--write FILE] [--times]

ROWS says which configurations there are. One whose options this build doesn't know is left out. --write: the table takes the
place of what stands between `<!-- ablation -->` and `<!-- /ablation -->` in FILE."""
import argparse
import os
import re
import sys

from models import use_environment

if __name__ == "__main__":
    use_environment()

import onnx  # noqa: E402

import peers  # noqa: E402
import precision  # noqa: E402
from served import MODEL, Served, compare, samples, times, use_own_fp32  # noqa: E402

PLAIN = {"precision": "int8", "guard": "clip", "bias_correction": False, "smoothing": False, "activation": {"granularity": "tensor"}}
ROWS_OF_TOKENS = {"activation": {"granularity": "auto"}}
CHOSEN = ("minilm_l6", "efficientnet_lite0", "mobilenetv2", "ppocrv4_rec", "ppocr_cls", "resemblyzer_lstm")


def depthwise(server, path):
    """Pins to FP32 of the layers with one input channel for each output channel."""
    graph = onnx.load(path, load_external_data=False).graph
    channels = {w.name: w.dims[1] for w in graph.initializer if len(w.dims) > 2}
    nodes = {node.name or f"{node.op_type}@{i}" for i, node in enumerate(graph.node)
             if node.op_type == "Conv" and channels.get(node.input[1]) == 1 and
             any(a.name == "group" and a.i > 1 for a in node.attribute)}
    names = {s["node"] for s in server.get(MODEL + "/quantization")["steps"]} & nodes
    if not names:
        raise peers.Refused("no depthwise layers")
    return {"precision": {name: "fp32" for name in names}}


# (name, options over PLAIN, target cosine or 0); options: a dictionary, a function of server and path that gives one, or a list
ROWS = [
    ("INT8, moving averages only", {}, 0),
    ("and the guard", {"guard": "widen"}, 0),
    ("guard, each request's own range", {"guard": "widen", "mode": "request"}, 0),
    ("guard, rows of tokens", {"guard": "widen", **ROWS_OF_TOKENS}, 0),
    ("guard, bias correction", {"guard": "widen", "bias_correction": True}, 0),
    ("guard, smoothing", {"guard": "widen", "smoothing": True}, 0),
    ("guard, rows of tokens, bias correction", {"guard": "widen", "bias_correction": True, **ROWS_OF_TOKENS}, 0),
    ("guard, rows of tokens, bias correction, smoothing",
     {"guard": "widen", "bias_correction": True, "smoothing": True, **ROWS_OF_TOKENS}, 0),
    ("guard, bias correction, depthwise layers in FP32", [{"guard": "widen", "bias_correction": True}, depthwise], 0),
    ("linear layers in 16 bits", {"guard": "widen", "precision": "int16"}, 0),
    ("the default, target .999", {}, 0.999),
]


def apply(server, path, options):
    """The row's options over PLAIN. Refused: this build does not know one of the row's, or the model has nothing of the kind."""
    for key, value in PLAIN.items():
        try:
            server.change({key: value})
        except peers.Refused:
            pass  # what isn't there is off
    for part in options if isinstance(options, list) else [options]:
        part = part(server, path) if callable(part) else part
        if part:
            server.change(part)


def row(build, folder, options, target, requests, base):
    """{cosine, least, top1, ratio} of one configuration; Refused when it isn't to be had."""
    path, sets = os.path.join(folder, "model.onnx"), samples(folder)
    flags = ("--precision", "auto" if target else "int8") + (("--shadow-rate", "1") if target else ())
    with Served(build, path, *flags) as server:
        use_own_fp32(server, sets)
        if target:
            server.change({"guard": "widen", "target_cosine": target})
            precision.teach(server, sets, max(requests, 128))
        else:
            apply(server, path, options)
            for k in range(requests):
                server.ask(sets[k % len(sets)])
        mean, least, top1 = compare(server, sets)
        ratio = None
        if base:
            mine, plain = times([server, base], sets)
            ratio = mine / plain
        return dict(cosine=mean, least=least, top1=top1, ratio=ratio)


def table(a):
    yield "| model | configuration | cosine, mean | least | top-1 |" + (" time |" if a.times else "")
    yield "|---|---|---|---|---|" + ("---|" if a.times else "")
    for name in a.only or CHOSEN:
        folder = os.path.join(a.models, name)
        if not os.path.exists(os.path.join(folder, "model.onnx")):
            continue
        sets = samples(folder)
        base = Served(a.build, os.path.join(folder, "model.onnx"), "--precision", "int8") if a.times else None
        for k in range(16 if base else 0):
            base.ask(sets[k % len(sets)])
        for label, options, target in ROWS:
            try:
                r = row(a.build, folder, options, target, a.requests, base)
            except peers.Refused as why:
                print(f"{name}: {label}: left out: {str(why).strip()[:100]}", file=sys.stderr)
                continue
            top1 = f"{100 * r['top1']:.1f} %" if r["top1"] is not None else "–"
            yield (f"| {name} | {label} | {r['cosine']:.5f} | {r['least']:.5f} | {top1} |" +
                   (f" {r['ratio']:.2f} |" if a.times else ""))
        if base:
            base.__exit__()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", required=True)
    parser.add_argument("--only", action="append")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--build", default="build")
    parser.add_argument("--write")
    parser.add_argument("--times", action="store_true", help="also time beside the default in INT8")
    a = parser.parse_args()
    lines = []
    for line in table(a):
        print(line, flush=True)
        lines.append(line)
    if a.write:
        with open(a.write, encoding="utf-8") as f:
            text = f.read()
        made = "<!-- ablation -->\n" + "\n".join(lines) + "\n<!-- /ablation -->"
        new, found = re.subn(r"<!-- ablation -->.*?<!-- /ablation -->", lambda _: made, text, flags=re.S)
        if not found:
            sys.exit(f"{a.write} has no place for the table")
        with open(a.write, "w", encoding="utf-8") as f:
            f.write(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
