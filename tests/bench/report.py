#!/usr/bin/env python3
"""Writes docs/BENCHMARKS.md and docs/pictures/benchmark.svg from what models.py measured, and runs the kernels' benchmark.

    report.py [--build build] RESULTS.json

Only the standard library; measures no model itself.
"""
import argparse
import datetime
import json
import math
import os
import shutil
import subprocess

import chart
import peers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
# What quantd is to reach, as a share of ONNX Runtime FP32's time; every other model: not slower than it.
GOALS = {"minilm_l6": .27, "resnet50": .29, "whisper_tiny_en_encoder": .34, "mobilenetv2": .40, "efficientnet_lite0": .38, "ppocrv4_rec": .40,
         "ppocrv4_det": .40, "magika": .38, "resemblyzer_lstm": .28, "basic_pitch": .50}
GOAL_OF_MEAN = .45
SAME_COSINE = 5e-5  # half of the last digit shown
HEAD = """# Benchmarks

Made by `make bench BENCH_MODELS=FOLDER` (`tests/bench/`) on {date}; do not edit. Absolute times say little about another machine, or
about this one on another day: compare what stands in one table only.

{machine}

## How it is measured
- Every peer is a process of its own that holds the model and waits on a pipe; they take turns, a turn lasts some milliseconds or one
  request, and the median over turns counts. One core: all are pinned to the same one. Ratios are to ONNX Runtime FP32 in the same run.
- Inputs are real data (`test_data_set_0` is timed). quantd and ONNX Runtime are called from C (`tests/bench/runner.c`), the others
  from Python: some 10 µs a request, which counts below a millisecond.
- quantd's time is a whole request: made, run, observed, folded into the ranges, freed. It has served {warm_ups} requests before (fewer where
  they would take more than five seconds) out of every other data set, the same half that the static quantizers calibrate on. `ema` goes
  on learning while it is measured; `static` is the same process with its ranges frozen for the turn.
- Peers: ONNX Runtime `quantize_dynamic` and `quantize_static` (QDQ, min-max) after its preprocessing, per channel where it can;
  OpenVINO with NNCF's default calibration; LiteRT with converted files where there are some (dynamic ranges); CTranslate2 with the
  weights out of the ONNX file.{amx}
- Accuracy is the cosine to the model's FP32 outputs, mean over all data sets / the worst one. ResNet-50 has its structure from the
  `onnx` package and random weights, so its accuracy means nothing and is left out.

"""
RULES = """## Rules
- Compare in one run, interleaved, medians, pinned to a core; ratios, not absolute times.
- A benchmark uses its results; a compiler removes what nobody reads.
- Kernel folders are compiled with `-O2 -fno-tree-vectorize -fno-schedule-insns2`: with gcc 12's vectorizer on, the accumulators of a
  large tile are spilled to the stack and the kernel runs at half its speed. Look at the inner loop's disassembly when you change one.
"""


def run(command):
    pin = ["taskset", "-c", str(max(os.sched_getaffinity(0)))] if shutil.which("taskset") else []
    return subprocess.run(pin + command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip()


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def geometric_mean(values):
    values = [v for v in values if v]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def digits(value):
    return "" if value is None else f"{value:.3f}" if value < 0.0995 else f"{value:.2f}"


def bold(value):
    return f"**{digits(value)}**" if value else ""


class Rows:
    """One model's rows of one run; ratios to ONNX Runtime FP32."""

    def __init__(self, rows, suffix=""):
        self.rows, self.suffix = rows, suffix
        self.base = self.ms("ort_fp32")

    def ms(self, peer, suffix=None):
        return self.rows.get(peer + (self.suffix if suffix is None else suffix), {}).get("ms")

    def ratio(self, peer, suffix=None):
        ms = self.ms(peer, suffix)
        return ms / self.base if ms and self.base else None

    def best(self, names, suffix=None):
        """(ratio, peer) of the fastest."""
        return min(((self.ratio(n, suffix), n) for n in names if self.ratio(n, suffix)), default=(None, None))

    def learning(self):
        """Of `ema` over `static`, as this machine runs them by default."""
        suffix = "+amx" if "quantd_ema+amx" in self.rows else ""
        ema, static = self.ms("quantd_ema", suffix), self.ms("quantd_static", suffix)
        return ema / static if ema and static else None

    def gain(self, one, many):
        """How much faster several threads are than one; both as suffixes."""
        one, many = self.ms("quantd_ema", one), self.ms("quantd_ema", many)
        return one / many if one and many else None

    def cosine(self, peer):
        row = self.rows.get(peer, {})
        return f"{row['cosine']:.4f} / {row['worst']:.3f}" if "cosine" in row else ""


class Report:
    def __init__(self, build, results):
        self.build, self.results = build, results
        self.peers = {p.name: p for p in peers.everyone()}
        self.int8 = [p.name for p in self.peers.values() if p.kind == "int8"]
        self.models = {name: Rows(rows) for name, rows in results["models"].items()}

    def label(self, name):
        return self.peers[name].label if name else ""

    def machine(self):
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            lines = [line.split(":", 1) for line in f if ":" in line]
        about = {key.strip(): value.strip() for key, value in lines}
        cores = sum(key.strip() == "processor" for key, _ in lines)
        flags = [flag for flag in FLAGS if flag in about.get("flags", "").split()]
        rows = [["processor", f"{about.get('model name', 'unknown')}, {cores} of it; {' '.join(flags)}"],
                ["build", " ".join(run([f"{self.build}/quantd", "version"]).split("\n")[0:3])]]
        found = {}
        for models in self.results["models"].values():
            for key, row in models.items():
                name = key.split("+")[0]
                if row.get("version") and not name.startswith("quantd"):
                    found[self.peers[name].package] = row["version"]
        rows += [["peers", ", ".join(f"{package} {version}" for package, version in sorted(found.items()))]]
        return table(["", ""], rows)

    def summary(self):
        rows, columns = [], {key: [] for key in ("ema", "best", "ema+amx", "best+amx", "fp32", "learning")}
        for name, m in self.models.items():
            best, who = m.best(self.int8)
            with_amx, who_amx = m.best(self.int8, "+amx")
            if with_amx and best and best < with_amx:
                with_amx, who_amx = best, who
            values = {"ema": m.ratio("quantd_ema"), "best": best, "ema+amx": m.ratio("quantd_ema", "+amx"), "best+amx": with_amx,
                      "fp32": m.ratio("quantd_fp32"), "learning": m.learning()}
            for key, value in values.items():
                columns[key].append(value)
            rows.append([name, f"{m.base:.3f}" if m.base else "", bold(values["ema"]) or "refused", f"{GOALS.get(name, 1):.2f}",
                         f"{digits(best)} {self.label(who)}", bold(values["ema+amx"]), f"{digits(with_amx)} {self.label(who_amx)}",
                         digits(values["fp32"]), f"{values['learning']:.3f}" if values["learning"] else ""])
        mean = {key: geometric_mean(column) for key, column in columns.items()}
        rows.append(["geometric mean", "", bold(mean["ema"]), f"{GOAL_OF_MEAN:.2f}", digits(mean["best"]), bold(mean["ema+amx"]),
                     digits(mean["best+amx"]), digits(mean["fp32"]), f"{mean['learning']:.3f}" if mean["learning"] else ""])
        head = ["model", "ONNX Runtime FP32, ms", "quantd INT8", "goal", "best INT8 of a peer", "quantd INT8, AMX", "best of a peer, AMX",
                "quantd FP32", "`ema` / `static`"]
        return "## One core: time / ONNX Runtime FP32's\n" + table(head, rows)

    def everybody(self):
        """All peers, and under the table why some are missing."""
        names = [n for n in self.peers if n not in ("ort_fp32",)]
        reasons, rows = [], []
        for model, m in self.models.items():
            cells = []
            for name in names:
                row = m.rows.get(name, {})
                if "refused" in row:
                    text = f"{self.label(name)}: {row['refused']}"
                    if text not in reasons:
                        reasons.append(text)
                    cells.append(f"[{reasons.index(text) + 1}]")
                else:
                    cells.append(digits(m.ratio(name)))
            rows.append([model, *cells])
        notes = "\n".join(f"{i + 1}. {text}" for i, text in enumerate(reasons))
        return ("### Everybody\n" + table(["model", *map(self.label, names)], rows)
                + ("\nNot measured, because:\n\n" + notes + "\n" if reasons else ""))

    def accuracy(self):
        names = ["quantd_ema", "quantd_static", *self.int8]
        rows = []
        for model, m in self.models.items():
            dynamic = max((m.rows[n].get("cosine", -1.0) for n in ("ort_dynamic_qint8", "ort_dynamic_quint8") if n in m.rows), default=-1.0)
            ours = m.rows.get("quantd_ema", {}).get("cosine")
            reached = "" if ours is None else "yes" if ours >= dynamic - SAME_COSINE else "no"
            if m.cosine("ort_fp32"):
                rows.append([model, *(m.cosine(name) for name in names), reached])
        return ("## Accuracy: cosine to FP32, mean / worst\nThe last column: is `ema` as close as the better of ONNX Runtime's dynamic variants?\n\n"
                + table(["model", *map(self.label, names), "as close"], rows))

    def several(self):
        threads = self.results["threads"]
        if not self.results["several"]:
            return ""
        rows, scaling = [], []
        for name, models in self.results["several"].items():
            m = Rows(models, f"*{threads}")
            best, who = m.best(self.int8)
            gain, gain_amx = m.gain("", f"*{threads}"), m.gain("+amx", f"+amx*{threads}")
            scaling.append(gain)
            rows.append([name, f"{m.base:.3f}" if m.base else "", digits(m.ratio("quantd_ema")), f"{digits(best)} {self.label(who)}",
                         f"{gain:.2f}" if gain else "", f"{gain_amx:.2f}" if gain_amx else ""])
        rows.append(["geometric mean", "", digits(geometric_mean([Rows(m, f"*{threads}").ratio("quantd_ema") for m in
                                                                  self.results["several"].values()])), "",
                     f"{geometric_mean(scaling):.2f}" if any(scaling) else "", ""])
        head = ["model", "ONNX Runtime FP32, ms", "quantd INT8", "best INT8 of a peer", f"quantd, one thread / {threads}", "with AMX"]
        return f"## All {threads} cores: time / ONNX Runtime FP32's on as many\n" + table(head, rows)

    def daemon(self):
        d = self.results.get("daemon")
        if not d:
            return ""
        rows = []
        for name, label in (("quantd", "quantd, the daemon over HTTP"), ("ort", "ONNX Runtime FP32, from C")):
            cold, warm = d[name]["cold"], d[name]["warm"]
            rows.append([label, f"{1000 * cold['seconds']:.0f}", f"{1000 * (cold['seconds'] - d['read']):.0f}", f"{1000 * warm['seconds']:.0f}",
                         f"{warm['VmRSS']:.0f}", f"{warm['RssAnon']:.0f}", f"{warm['RssFile']:.0f}", f"{warm['VmRSS'] / d['file_mb']:.2f}"])
        head = ["", "file not cached, ms", "beyond reading it, ms", "file cached, ms", "resident, MB", "anonymous", "of files", "resident / file"]
        return (f"## {d['model']}: from start to the first answer, and memory after it\nThe file has {d['file_mb']:.0f} MB; reading it alone took "
                f"{1000 * d['read']:.0f} ms. Medians.\n\n" + table(head, rows))

    def kernels(self):
        text = run([f"{self.build}/tests/bench/bench_kernels"])
        return ("## Kernels\nOne thread. G multiply-adds a second; in brackets the share of the instruction's own ceiling, measured in the "
                f"same run\nby independent accumulators. Shapes are m x n x k.\n\n```\n{text}\n```\n")

    def remaining(self):
        parts = ["## Where the remaining time goes\nThe slowest ratios of quantd's INT8; functions by their share of samples on one core.\n"]
        for name, lines in self.results["profiles"].items():
            m = self.models[name]
            parts.append(f"{name}, {digits(m.ratio('quantd_ema'))} of ONNX Runtime FP32:\n\n```\n" + "\n".join(lines) + "\n```\n")
        return "\n".join(parts)

    def text(self):
        amx = ("\n- This processor has AMX. Whoever uses it is measured without it (the kernel refuses its tiles), as on a processor with\n"
               "  AVX512-VNNI alone, which the goals are for, and on one core once more with it, in columns of their own. The chart is with it."
               if any("+amx" in key for m in self.results["models"].values() for key in m) else "")
        head = HEAD.format(date=datetime.date.today().isoformat(), machine=self.machine(), amx=amx, warm_ups=self.results["warm_ups"])
        parts = (self.summary(), "![the same as a picture](pictures/benchmark.svg)\n", self.everybody(), self.accuracy(), self.several(),
                 self.daemon(), self.kernels(), self.remaining(), RULES)
        return head + "\n".join(part for part in parts if part)

    def bars(self):
        """For the chart: (model, quantd's ratio or None, the best peer's, its label), with AMX where there is any."""
        for name, m in self.models.items():
            best, who = min((found for suffix in ("", "+amx") if (found := m.best(self.int8, suffix))[0]), default=(None, None))
            yield name, m.ratio("quantd_ema", "+amx") or m.ratio("quantd_ema"), best, self.label(who)


def main():
    parser = argparse.ArgumentParser(description="write docs/BENCHMARKS.md and its chart")
    parser.add_argument("--build", default=f"{ROOT}/build")
    parser.add_argument("results")
    options = parser.parse_args()
    with open(options.results, encoding="utf-8") as f:
        report = Report(os.path.abspath(options.build), json.load(f))
    text = report.text()
    with open(f"{ROOT}/docs/BENCHMARKS.md", "w", encoding="utf-8") as f:
        f.write(text)
    with open(f"{ROOT}/docs/pictures/benchmark.svg", "w", encoding="utf-8") as f:
        f.write(chart.draw(list(report.bars())))
    print(report.summary())


if __name__ == "__main__":
    main()
