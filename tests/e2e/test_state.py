#!/usr/bin/env python3
"""--state-dir: what was learned, the plan and what was changed survive a restart; kill -9 loses an interval at most; a damaged
file is set aside with one warning."""
import glob
import os
import random
import resource
import signal
import sys
import tempfile
import time

import serving
from digit_requests import change, infer, teach

RANGES = "/v2/models/digits/ranges"
PLAN = "/v2/models/digits/quantization"
LEARNED = ("name", "ema_min", "ema_max", "observed_min", "observed_max", "observations", "elements", "scale", "zero_point", "updated")


def learned(daemon):
    return [{key: t[key] for key in LEARNED} for t in daemon.get(RANGES).json()["tensors"]]


def restart(folder, *flags):
    return serving.Daemon("--state-dir", folder, "--state-interval-s", "1", *flags)


def test_a_restart_goes_on():
    with tempfile.TemporaryDirectory() as folder:
        images = serving.digits()
        with restart(folder) as d:
            teach(d, images)
            assert change(d, {"precision": {"conv2": "fp32"}, "guard": "clip"}).status == 200
            teach(d, images)
            before, plan, report = learned(d), d.get(PLAN).json(), d.get(RANGES).json()
            answer = infer(d, images[0][1], {"quant_observe": False}).json()
        with restart(folder) as d:
            assert learned(d) == before, (learned(d), before)
            again = d.get(PLAN).json()
            assert again["plan"] == plan["plan"] and [s["pinned"] for s in again["steps"]] == [s["pinned"] for s in plan["steps"]], (plan, again)
            now = d.get(RANGES).json()
            assert now["epoch"] == report["epoch"] and now["requests"] >= report["requests"], (now, report)
            other = infer(d, images[0][1], {"quant_observe": False}).json()
            assert other["outputs"] == answer["outputs"] and other["parameters"] == answer["parameters"], (other, answer)
            teach(d, images)


def test_frozen_stays_frozen():
    with tempfile.TemporaryDirectory() as folder:
        images = serving.digits()[:8]
        with restart(folder) as d:
            teach(d, images)
            assert d.post(RANGES + "/freeze").status == 200
        with restart(folder) as d:
            assert d.get(RANGES).json()["frozen"] is True
            teach(d, images)


def test_kill_loses_an_interval_at_most():
    with tempfile.TemporaryDirectory() as folder:
        images = serving.digits()[:8]
        d = restart(folder).__enter__()
        teach(d, images)
        requests = d.get(RANGES).json()["requests"]
        deadline = time.monotonic() + 20
        while not glob.glob(folder + "/*.json") and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2.5)  # two intervals more
        d.process.send_signal(signal.SIGKILL)
        d.process.wait()
        with restart(folder) as again:
            assert again.get(RANGES).json()["requests"] == requests


def test_kills_at_random_moments():
    """A dozen kills under load: each time what the last file said is there again, nothing is set aside, and no file is half."""
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        images, known, saved = serving.digits()[:8], 0, 0
        for _ in range(12):
            d = restart(folder).__enter__()
            started = d.get(RANGES).json()["requests"]
            assert started >= saved and started <= known, (started, saved, known)
            assert "can't be used" not in d.output(), d.output()
            known, saved = started, started
            end, timeline = time.monotonic() + draw.uniform(0.2, 2.5), []
            while time.monotonic() < end:
                assert infer(d, images[known % 8][1]).status == 200
                known += 1
                timeline.append((time.monotonic(), known))
            d.process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            d.process.wait()
            # written each second: what had been learned two intervals before is on the disk (a busy machine is given one more)
            saved = max([n for at, n in timeline if at < killed - 3 * serving_slow()], default=started)
        assert known > 100, known
        assert len(glob.glob(folder + "/*.json")) == 1 and not glob.glob(folder + "/*.damaged")


def serving_slow():
    return float(os.environ.get("TEST_SLOW", "1"))


def test_a_full_disk_stops_nothing():
    """Files may grow to 1 KiB only: saving fails, is said once, and the daemon serves on."""
    with tempfile.TemporaryDirectory() as folder:
        images = serving.digits()[:8]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        d = restart(folder)
        resource.prlimit(d.process.pid, resource.RLIMIT_FSIZE, (1024, before[1]))
        with d:
            for _ in range(3):
                teach(d, images, 1)
                time.sleep(1.1)
            made = d.post(RANGES + "/snapshots", {"name": "x"})
            assert made.status == 500 and b"can't be written" in made.body, made.body
            metrics = d.get("/metrics").body.decode()
            failed = [line for line in metrics.splitlines() if line.startswith('quantd_state_saves_total{result="error"}')]
            assert float(failed[0].split()[-1]) >= 2, failed
            assert not glob.glob(folder + "/*"), os.listdir(folder)
            resource.prlimit(d.process.pid, resource.RLIMIT_FSIZE, before)
            teach(d, images, 1)
            assert d.post(RANGES + "/snapshots", {"name": "x"}).status == 200
            assert d.output().count("can't be written") <= 1, d.output()
        assert len(glob.glob(folder + "/*.json")) == 2


def test_damage_is_set_aside():
    with tempfile.TemporaryDirectory() as folder:
        images = serving.digits()[:8]
        with restart(folder) as d:
            teach(d, images)
        path, = glob.glob(folder + "/*.json")
        with open(path, "rb") as f:
            good = f.read()
        for bad in (good[:-3], good.replace(b'"epoch"', b'"epoxy"', 1), b"", b"{}", good[: len(good) // 2], b"[" * 100000):
            with open(path, "wb") as f:
                f.write(bad)
            with restart(folder) as d:
                assert d.get(RANGES).json()["requests"] == 0, bad[:40]
                assert d.output().count("can't be used") == 1, d.output()
                assert os.path.exists(path + ".damaged")
            for left in glob.glob(folder + "/*"):
                os.remove(left)


def test_bad_folder_is_said():
    import subprocess
    run = subprocess.run([serving.QUANTD, "serve", "--listen", "127.0.0.1:0", "--state-dir", "/nowhere/at/all"], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert run.returncode == 1 and "state_dir" in run.stdout, (run.returncode, run.stdout)


sys.exit(serving.run([test_a_restart_goes_on, test_frozen_stays_frozen, test_kill_loses_an_interval_at_most, test_kills_at_random_moments,
                      test_a_full_disk_stops_nothing, test_damage_is_set_aside, test_bad_folder_is_said]))
