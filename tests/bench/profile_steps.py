"""Where a model's time goes in quantd's engine, by function: the samples that `perf` takes while one core runs the model again
and again. Without perf, or without leave to use it, the sentence that says so."""
import bisect
import collections
import os
import shutil
import signal
import subprocess
import tempfile
import time

SECONDS = 4.0
SHARE_SHOWN = 2.0


def functions(program):
    """(sorted addresses, their `file.c: name`) of a program that is not relocated (make/targets.mk links runner so)."""
    table, source = [], ""
    text = subprocess.run(["readelf", "-sW", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    for words in (line.split() for line in text.splitlines()):
        if len(words) < 8 or not words[0].rstrip(":").isdigit():
            continue
        if words[3] == "FILE":
            source = words[7]
        elif words[3] == "FUNC" and words[6] != "UND":
            table.append((int(words[1], 16), f"{source}: {words[7]}" if words[4] == "LOCAL" else words[7]))
    table.sort()
    return [address for address, _ in table], [name for _, name in table]


def samples(program, data):
    """Counter of functions."""
    addresses, names = functions(program)
    script = subprocess.run(["perf", "script", "-i", data, "-F", "ip,sym"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                            check=False)
    found = collections.Counter()
    for line in script.stdout.splitlines():
        ip, _, symbol = line.strip().partition(" ")
        try:
            address = int(ip, 16)
        except ValueError:
            continue
        mine = address < 1 << 32  # not a shared library, which lie far above
        found[names[bisect.bisect_right(addresses, address) - 1] if mine else symbol or "unknown"] += 1
    return found


def profile(process, request_ms):
    """Lines of text: share and function, most first, of a loaded and warmed-up process of models.py."""
    if not shutil.which("perf") or not shutil.which("readelf"):
        return ["perf or readelf is not installed"]
    with tempfile.TemporaryDirectory(prefix="quantd-perf-") as folder:
        data = os.path.join(folder, "perf.data")
        perf = subprocess.Popen(["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "-o", data, "-p", str(process.child.pid)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(0.3)  # until it has attached
        process.run(min(100000, max(3, int(SECONDS * 1000 / request_ms))))
        perf.send_signal(signal.SIGINT)
        said = perf.communicate()[1]
        found = samples(process.program, data)
    total = sum(found.values())
    if not total:
        return ["perf took no samples: " + " ".join(said.split())[:200]]
    shown = [(100 * n / total, name) for name, n in found.most_common() if 100 * n / total >= SHARE_SHOWN]
    return [f"{share:5.1f} %  {name}" for share, name in shown] + [
        f"{100 - sum(share for share, _ in shown):5.1f} %  the rest, each below {SHARE_SHOWN:.0f} %"]
