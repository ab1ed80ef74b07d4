"""The benchmark's chart as SVG, readable on light and dark pages: bars of time relative to ONNX Runtime FP32. Draws what it
is given; numbers come from report.py."""
from xml.sax.saxutils import escape

ROW, BAR, LEFT, WIDTH, RIGHT, TOP = 40, 13, 190, 460, 230, 58
MOST = 1.5  # bars are cut there; the number beside tells
STYLE = """<style>
 text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#24292f} .small{font-size:11px;fill:#57606a} .title{font-size:15px;font-weight:600}
 .grid{stroke:#d0d7de} .one{stroke:#57606a;stroke-dasharray:4 3} .ours{fill:#0969da} .theirs{fill:#afb8c1}
 @media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#8b949e}.grid{stroke:#30363d}.one{stroke:#8b949e}.ours{fill:#4493f8}
 .theirs{fill:#6e7681}}
</style>"""


def bar(y, ratio, kind, words):
    if ratio is None:
        return f'<text class="small" x="{LEFT + 6}" y="{y + 11}">{escape(words)}</text>'
    length = WIDTH * min(ratio, MOST) / MOST
    return (f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>'
            f'<text class="small" x="{LEFT + length + 6:.1f}" y="{y + 11}">{ratio:.2f}{escape(words)}</text>')


def draw(rows):
    """rows: (model, quantd's ratio or None, the best peer's ratio or None, that peer's label)."""
    height = TOP + ROW * len(rows) + 34
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" role="img" '
           'aria-label="Time of INT8 inference relative to ONNX Runtime FP32, quantd and the best peer, per model">', STYLE,
           '<text class="title" x="10" y="22">INT8 on one core: time / ONNX Runtime FP32 (shorter is faster)</text>',
           f'<rect class="ours" x="{LEFT}" y="34" width="{BAR}" height="{BAR}" rx="2"/><text class="small" x="{LEFT + 19}" y="45">quantd, '
           f'learning while it serves</text><rect class="theirs" x="{LEFT + 200}" y="34" width="{BAR}" height="{BAR}" rx="2"/>'
           f'<text class="small" x="{LEFT + 219}" y="45">the fastest INT8 of its peers</text>']
    for tick in (0, .25, .5, .75, 1, 1.25, 1.5):
        x = LEFT + WIDTH * tick / MOST
        out.append(f'<line class="{"one" if tick == 1 else "grid"}" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{height - 28}"/>'
                   f'<text class="small" x="{x:.1f}" y="{height - 12}" text-anchor="middle">{tick:g}</text>')
    for i, (model, ours, theirs, label) in enumerate(rows):
        y = TOP + 6 + ROW * i
        out += [f'<text x="10" y="{y + 19}">{escape(model)}</text>', bar(y, ours, "ours", "" if ours else "not supported yet"),
                bar(y + BAR + 2, theirs, "theirs", f"  {label}" if theirs else "none")]
    return "\n".join(out) + "\n</svg>\n"
