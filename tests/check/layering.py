#!/usr/bin/env python3
"""Refuses an #include that points to the right: docs/ARCHITECTURE.md, "Layers". Reads text, compiles nothing."""
import os
import re

import common

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
# Each layer and what it may include of ours, by prefix. The longest matching prefix of a file decides.
ENGINE = ["base/", "engine/ir/", "engine/onnx/", "engine/quant/", "engine/kernels/", "engine/ops/", "engine/plan/"]
MAY = {
    "base/": ["base/"],
    "config/": ["base/", "config/"],
    "engine/ir/": ENGINE[:2],
    "engine/onnx/": ENGINE[:3],
    "engine/quant/": ENGINE[:4],
    "engine/kernels/": ["base/status.h", "base/parallel.h", "engine/quant/requant.h", "engine/quant/qparams.h",
                        "engine/kernels/"],
    "engine/ops/": ENGINE[:6],
    "engine/plan/": ENGINE[:7],
    "engine/": ["base/", "engine/"],
    "server/": ["base/", "config/", "engine/engine.h", "server/"],
    "clients/": ["clients/"],
}
# Libraries that only some layers may know.
ONLY = {
    "uv.h": ["server/", "tests/"],
    "microhttpd.h": ["server/", "tests/"],
    "jansson.h": ["config/", "server/", "clients/", "tests/"],
    "cmocka.h": ["tests/"],
    "immintrin.h": ["engine/kernels/avx2/", "engine/kernels/avx512vnni/", "engine/kernels/amx/", "tests/"],
    "arm_neon.h": ["engine/kernels/neon/", "tests/"],
}


def look(path, text):
    problems = []
    layer = max((p for p in MAY if path.startswith(p)), key=len, default=None)
    for mark, name in INCLUDE.findall(text):
        if mark == "<":
            homes = ONLY.get(name)
            if homes and not path.startswith(tuple(homes)):
                problems.append(f"{path}: <{name}> belongs to {', '.join(homes)} only")
        elif not os.path.exists(os.path.join(common.ROOT, name)):
            problems.append(f'{path}: "{name}" is no file from the repository\'s root')
        elif layer and not name.startswith(tuple(MAY[layer])):
            problems.append(f'{path}: "{name}" lies outside what {layer} may include')
    return problems


def main():
    problems = []
    for path in common.files(".c", ".h"):
        problems += look(path, common.read(path))
    sample = look("base/sample.c", '#include "engine/engine.h"\n')
    for path, text in [("engine/ir/sample.c", "#include <uv.h>\n"), ("server/sample.c", '#include "nowhere.h"\n'),
                       ("engine/quant/sample.h", '#  include "engine/kernels/kernels.h"\n'),
                       ("server/sample.c", '#include "engine/ir/tensor.h"\n')]:
        sample = sample and look(path, text)
    common.verdict("layering", problems, sample)


main()
