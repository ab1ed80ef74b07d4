#!/usr/bin/env python3
"""Times models in quantd and its peers, who take turns, on real inputs; compares their answers with the FP32 outputs.

    models.py --models FOLDER [--only NAME]... [--quick] [--peers NAME]... [--build build] [--json FILE]

FOLDER holds one folder a model: model.onnx, test_data_set_K/input_J.pb and output_J.pb. --quick: one core, quantd INT8
(ema), quantd FP32 and ONNX Runtime FP32, a line a model. Every peer is a process of its own that waits on a pipe while
others run (runner.c, peers.py); a round gives each a turn of a few milliseconds, and medians of turns are compared.
"""
import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def use_environment():
    """Goes on in the Python that has the peers: BENCH_PYTHON, the benchmark's own environment, that of the tests."""
    try:
        import numpy  # noqa: F401
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        for python in (os.environ.get("BENCH_PYTHON"), f"{ROOT}/build/bench/venv/bin/python", f"{ROOT}/build/venv/bin/python"):
            if python and os.path.exists(python) and os.path.abspath(sys.executable) != os.path.abspath(python):
                os.execv(python, [python, *sys.argv])
        sys.exit("models.py: numpy, onnx and onnxruntime are needed: `make bench` makes their environment")


if __name__ == "__main__":
    use_environment()

import numpy as np  # noqa: E402

import daemon  # noqa: E402
import peers as taking_part  # noqa: E402
from inputs import collect  # noqa: E402
import profile_steps  # noqa: E402
from peers import Refused  # noqa: E402

TURN_NS = 5e6  # a turn lasts at least this long, and at least MIN_RUNS requests
MIN_RUNS = 3
LONG_NS = 40e6  # a request as long as this is a turn
WARM_UPS = 64
PROFILED = 3  # models with the slowest ratios
PAUSE = 0.01  # seconds before a turn of several threads, for another peer's spinning ones to fall asleep


# ---------------------------------------------------------------- one peer's process
class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("true", ctypes.c_uint8), ("false", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(Instruction))]


def deny_amx():
    """Before exec: the kernel refuses arch_prctl(ARCH_REQ_XCOMP_PERM), so libraries that ask for AMX's tiles find none and
    take their AVX512-VNNI path. x86-64 only, elsewhere without effect."""
    load_number, load_argument, equal, give = 0x20, 0x20, 0x15, 0x06
    steps = [(load_number, 0, 0, 0), (equal, 0, 3, 158), (load_argument, 0, 0, 16), (equal, 0, 1, 0x1023),
             (give, 0, 0, 0x50000 | 22), (give, 0, 0, 0x7fff0000)]
    program = Program(len(steps), (Instruction * len(steps))(*[Instruction(*step) for step in steps]))
    libc = ctypes.CDLL(None)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        os._exit(3)


class Process:
    """A peer with a model loaded, on the given cores."""

    def __init__(self, peer, command, cores, amx=True, environment=None):
        def before_exec():
            os.sched_setaffinity(0, cores)
            if not amx:
                deny_amx()

        self.peer, self.amx, self.program = peer, amx, command[0]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                      preexec_fn=before_exec, env=environment)
        try:
            self.version = self.answer()
        except Refused:
            self.close()
            raise

    def answer(self):
        line = self.child.stdout.readline().strip()
        word, _, rest = line.partition(" ")
        if word != "ok":
            raise Refused(rest or f"ended by {self.child.wait()}")
        return rest

    def ask(self, command):
        try:
            self.child.stdin.write(command + "\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            raise Refused("ended") from None
        return self.answer()

    def run(self, count=1):
        return float(self.ask(f"run {count}"))

    def close(self):
        for pipe in (self.child.stdin, self.child.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Frozen:
    """quantd in mode `static`: the process of `ema`, frozen for the time of each command, so that both run one plan."""

    def __init__(self, peer, learning):
        self.peer, self.learning, self.version = peer, learning, learning.version

    def ask(self, command):
        self.learning.ask("freeze")
        try:
            return self.learning.ask(command)
        finally:
            self.learning.ask("unfreeze")

    def run(self, count=1):
        return float(self.ask(f"run {count}"))

    def close(self):
        """The other closes."""


# ---------------------------------------------------------------- accuracy and time
def cosine(got, want):
    got, want = np.asarray(got, np.float64).ravel(), np.asarray(want, np.float64).ravel()
    if got.size != want.size or not np.all(np.isfinite(got)):
        return 0.0
    size = np.linalg.norm(got) * np.linalg.norm(want)
    return float(got @ want / size) if size else float(np.array_equal(got, want))


def accuracy(process, model, scratch):
    """Mean over the sets of the mean cosine of the float outputs to the expected ones, the worst set's, and how many sets
    the peer could take."""
    means = []
    for folder in model.sets:
        try:
            process.ask(f"inputs {folder}")
        except Refused:
            continue
        process.run()
        process.ask(f"save {scratch}")
        values = []
        for i, (_, want) in enumerate(taking_part.load_tensors(folder, "output")):
            if want.dtype.kind == "f":
                values.append(cosine(np.fromfile(f"{scratch}/output_{i}.raw", want.dtype), want))
        if values:
            means.append(statistics.fmean(values))
    return dict(cosine=statistics.fmean(means), worst=min(means), sets=len(means)) if means else {}


def warm_up(process, model, seconds):
    """WARM_UPS requests over the calibration sets (fewer, but each set once, when they would take longer than `seconds`)."""
    until = time.monotonic() + seconds
    sets = model.calibration or [model.timed]
    done = 0
    while done < WARM_UPS and (done < len(sets) or time.monotonic() < until):
        if done < len(sets) or len(sets) > 1:
            process.ask(f"inputs {sets[done % len(sets)]}")
        process.run()
        done += 1


def take_turns(processes, seconds, min_rounds, pause=0.0):
    """{name: median ns}. Every process has its inputs. `pause`: between turns, so that spinning threads fall asleep."""
    runs = {}
    for p in processes:
        once = max(p.run(2), 1.0)
        runs[p] = 1 if once > LONG_NS else max(MIN_RUNS, int(TURN_NS / once))
    turns = {p: [] for p in processes}
    until = time.monotonic() + seconds
    rounds = 0
    while rounds < min_rounds or time.monotonic() < until:
        first = rounds // 2 % len(processes)
        order = processes[first:] + processes[:first]
        for p in order if rounds % 2 else reversed(order):  # there and back: nobody always follows the same one
            if pause:
                time.sleep(pause)
            p.run()  # not counted: finds the caches full of another's data, which would favour whoever follows its own kin
            turns[p].append(p.run(min(runs[p], 50000)))
        rounds += 1
    return {p: statistics.median(turns[p]) for p in processes}, rounds


# ---------------------------------------------------------------- one model
class Entry:
    """A peer as it takes part in one run. Without AMX unless said: the bars are for AVX512-VNNI."""

    def __init__(self, peer, threads=1, amx=False):
        self.peer, self.threads, self.amx = peer, threads, amx
        self.key = peer.name + ("+amx" if amx else "") + (f"*{threads}" if threads > 1 else "")


class Bench:
    def __init__(self, options):
        self.options = options
        cores = sorted(os.sched_getaffinity(0))
        self.all_cores = set(cores)
        self.one_core = {options.core if options.core is not None else cores[-1]}
        self.refused = {}
        self.scratch = tempfile.mkdtemp(prefix="quantd-bench-")

    def prepared(self, peer, model):
        """Makes the peer's form of the model unless it is there; a refusal is remembered for the run."""
        peer.version()
        key, target = (peer.name, model.name), peer.file(model)
        if key in self.refused:
            raise Refused(self.refused[key])
        if target == model.path or os.path.exists(target):
            return
        os.makedirs(model.work, exist_ok=True)
        request = dict(name=model.name, path=model.path, sets=model.sets, timed=model.timed, work=model.work,
                       litert=self.options.litert)
        child = subprocess.run([sys.executable, f"{HERE}/peers.py", "prepare", peer.name, json.dumps(request)],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        if child.returncode:
            shutil.rmtree(target, ignore_errors=True)
            if os.path.exists(target):
                os.remove(target)
            self.refused[key] = (child.stdout.strip().splitlines() or ["its converter ended without a word"])[-1]
            raise Refused(self.refused[key])

    def start(self, entry, model):
        peer = entry.peer
        self.prepared(peer, model)
        cores = self.one_core if entry.threads == 1 else self.all_cores
        process = Process(peer, peer.command(self.options.build, model, entry.threads), cores, entry.amx)
        try:
            if peer.kind == "quantd":
                warm_up(process, model, self.options.warm_seconds)
            process.ask(f"inputs {model.timed}")
            process.run()
        except Refused:
            process.close()
            raise
        return process

    def measure(self, model, entries, with_accuracy=True):
        """{entry's key: {"ms", "cosine", "worst", "sets", "version"} or {"refused"}}, of one interleaved run."""
        rows, processes = {}, {}
        try:
            for entry in entries:
                try:
                    learning = entry.key.replace(entry.peer.name, "quantd_ema")
                    if entry.peer.frozen and learning not in processes:
                        raise Refused(rows.get(learning, {}).get("refused", "quantd_ema does not take part"))
                    processes[entry.key] = (Frozen(entry.peer, processes[learning]) if entry.peer.frozen else self.start(entry, model))
                    rows[entry.key] = {"version": processes[entry.key].version}
                except Refused as e:
                    rows[entry.key] = {"refused": str(e)}
            alone = all(entry.threads == 1 for entry in entries)
            medians, rounds = take_turns(list(processes.values()), self.options.seconds, self.options.rounds, 0.0 if alone else PAUSE)
            for key, process in processes.items():
                rows[key].update(ms=medians[process] / 1e6, rounds=rounds)
                try:
                    if with_accuracy and model.accuracy:
                        rows[key].update(accuracy(process, model, self.scratch))
                except Refused as e:
                    rows[key]["inaccurate"] = str(e)
        finally:
            for process in processes.values():
                process.close()
        return rows

    def profile(self, model, request_ms):
        process = self.start(Entry(taking_part.everyone()[0]), model)
        try:
            return profile_steps.profile(process, request_ms)
        finally:
            process.close()

    def close(self):
        shutil.rmtree(self.scratch, ignore_errors=True)


QUICK = ("quantd_ema", "quantd_fp32", "ort_fp32")


def has_amx():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        return " amx_int8" in f.read()


def line(name, rows):
    base = next((row["ms"] for key, row in rows.items() if key.startswith("ort_fp32") and "ms" in row), None)
    parts = []
    for peer, row in rows.items():
        if "refused" in row:
            parts.append(f"{peer} REFUSED ({row['refused']})")
            continue
        text = f"{peer} {row['ms']:.3f} ms"
        if base and not peer.startswith("ort_fp32"):
            text += f" = {row['ms'] / base:.3f}"
        if "cosine" in row:
            text += f" cos {row['cosine']:.4f}/{row['worst']:.3f}"
        parts.append(text)
    return f"{name:24s} " + "; ".join(parts)


def full(bench, models, peers, save):
    """Everything that report.py shows, but the kernels; saved after every model."""
    result = {"models": {}, "several": {}, "profiles": {}, "threads": len(bench.all_cores), "warm_ups": WARM_UPS}
    for model in models:
        entries = [Entry(p) for p in peers] + [Entry(p, amx=True) for p in peers if p.uses_amx and has_amx()]
        rows = result["models"][model.name] = bench.measure(model, entries)
        print(line(model.name, rows), flush=True)
        if len(bench.all_cores) > 1:
            able = [p for p in peers if p.several and "ms" in rows[p.name]]
            ours = [p for p in able if p.name == "quantd_ema"]
            entries = [Entry(p, len(bench.all_cores)) for p in able] + [Entry(p) for p in ours]
            if has_amx():
                entries += [Entry(p, threads, amx=True) for p in ours for threads in (1, len(bench.all_cores))]
            result["several"][model.name] = bench.measure(model, entries, with_accuracy=False)
            print(line(model.name, result["several"][model.name]), flush=True)
        save(result)
    ratios = {name: rows["quantd_ema"]["ms"] / rows["ort_fp32"]["ms"] for name, rows in result["models"].items()
              if "ms" in rows["quantd_ema"] and "ms" in rows["ort_fp32"]}
    by_name = {model.name: model for model in models}
    for name in sorted(ratios, key=ratios.get, reverse=True)[:PROFILED]:
        result["profiles"][name] = bench.profile(by_name[name], result["models"][name]["quantd_ema"]["ms"])
    if "minilm_l6" in by_name:
        result["daemon"] = daemon.measure(bench.options.build, by_name["minilm_l6"])
    save(result)


def arguments():
    parser = argparse.ArgumentParser(description="time models in quantd and its peers, in turns")
    parser.add_argument("--build", default=f"{ROOT}/build")
    parser.add_argument("--models", default=os.environ.get("ZOO"), help="a folder of folders of models")
    parser.add_argument("--only", action="append", default=[], help="only this model (may be repeated)")
    parser.add_argument("--peers", action="append", default=[], help="only this peer (may be repeated)")
    parser.add_argument("--litert", default=os.environ.get("LITERT_MODELS"), help="a folder of MODEL_dynamic.tflite")
    parser.add_argument("--work", default=f"{ROOT}/build/bench", help="where what peers make of the models is kept")
    parser.add_argument("--seconds", type=float, help="a model's time for turns")
    parser.add_argument("--core", type=int, help="the one core; default: the last that may be used")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--amx", action="store_true", help="let peers use AMX's tiles, where the processor has them")
    parser.add_argument("--full", metavar="JSON", help="all peers, one core and all, daemon and profiles; results are written there")
    options = parser.parse_args()
    options.rounds = 3 if options.quick else 5
    options.seconds = options.seconds or (2.0 if options.quick else 6.0)
    options.warm_seconds = 3.0 if options.quick else 5.0
    return options


def main():
    options = arguments()
    bench = Bench(options)
    if options.quick and not options.peers:
        options.peers = list(QUICK)
    peers = [p for p in taking_part.everyone(options.litert) if not options.peers or p.name in options.peers]
    models = collect(options.models, options.work, options.only, resnet=not options.quick or "resnet50" in options.only)
    try:
        if options.full:
            def save(result):
                with open(options.full, "w", encoding="utf-8") as f:
                    json.dump(result, f, indent=1)

            full(bench, models, peers, save)
        else:
            for model in models:
                print(line(model.name, bench.measure(model, [Entry(p, amx=options.amx) for p in peers])), flush=True)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
