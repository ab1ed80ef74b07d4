#!/usr/bin/env python3
"""Draws docs/pictures/ranges.svg: the ranges that the built-in model learned from its 40 test digits, as the range endpoint tells them.

    QUANTD=build/quantd python3 docs/pictures/draw_ranges.py

Each bar spans the moving average of a tensor's minimum and maximum; the thin line spans everything observed.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "e2e"))
import serving  # noqa: E402

ROW, LEFT, WIDTH, RIGHT = 34, 110, 360, 330
STYLE = """<style>
 text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#24292f} .small{font-size:11px;fill:#57606a}
 .grid{stroke:#d0d7de} .seen{stroke:#8c959f;stroke-width:2} .ema{fill:#0969da}
 @media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#8b949e}.grid{stroke:#30363d}.ema{fill:#4493f8}}
</style>"""


def learned():
    with serving.Daemon() as d:
        for _, pixels in serving.digits():
            body = {"inputs": [{"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": pixels}]}
            assert d.post("/v2/models/digits/infer", body).status == 200
        return d.get("/v2/models/digits/ranges").json()


def draw(report):
    tensors = report["tensors"]
    lo = min(0, *(t["observed_min"] for t in tensors))
    hi = max(t["observed_max"] for t in tensors)

    def x(value):
        return LEFT + WIDTH * (value - lo) / (hi - lo)
    height = ROW * len(tensors) + 60
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" role="img" '
           f'aria-label="Learned ranges of the model {report["model"]}">', STYLE,
           f'<text x="10" y="20">{report["model"]}: epoch {report["epoch"]}, {report["requests"]} requests, mode {report["mode"]}</text>']
    for tick in range(int(lo), int(hi) + 1, 2):
        out.append(f'<line class="grid" x1="{x(tick):.1f}" y1="32" x2="{x(tick):.1f}" y2="{height - 22}"/>'
                   f'<text class="small" x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick}</text>')
    for i, t in enumerate(tensors):
        y = 40 + ROW * i
        clipped = t["clipped_low"] + t["clipped_high"]
        out.append(f'<text x="10" y="{y + 16}">{t["name"]}</text>'
                   f'<rect class="ema" x="{x(t["ema_min"]):.1f}" y="{y + 4}" width="{max(2, x(t["ema_max"]) - x(t["ema_min"])):.1f}" '
                   f'height="15" rx="2"/>'
                   f'<line class="seen" x1="{x(t["observed_min"]):.1f}" y1="{y + 23}" x2="{x(t["observed_max"]):.1f}" y2="{y + 23}"/>'
                   f'<text class="small" x="{LEFT + WIDTH + 14}" y="{y + 16}">scale {t["scale"]:.4f}  zero point {t["zero_point"]}  '
                   f'clipped {clipped} of {t["elements"]:,}</text>')
    return "\n".join(out) + "\n</svg>\n"


if __name__ == "__main__":
    with open(os.path.join(HERE, "ranges.svg"), "w", encoding="ascii") as f:
        f.write(draw(learned()))
