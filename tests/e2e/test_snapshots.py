#!/usr/bin/env python3
"""Snapshots of learned ranges, comparing and rolling back, drift, history, the stream of events, and states that replicas give
each other: over HTTP, over a restart, with files that are damaged."""
import glob
import json
import os
import sys
import tempfile
import threading
import time

import serving
from digit_requests import change, infer, teach

M = "/v2/models/digits"
R = M + "/ranges"
IMAGES = serving.digits()[:8]


def ok(reply, status=200):
    assert reply.status == status, (reply.status, reply.body[:400])
    return reply.json()


def put(daemon, state, query=""):
    return daemon.ask("PUT", R + "/state" + query, json.dumps(state))


def averages(daemon):
    return {t["name"]: (t["ema_min"], t["ema_max"]) for t in daemon.get(R).json()["tensors"]}


def scales(daemon):
    return {t["name"]: (t["scale"], t["zero_point"]) for t in daemon.get(R).json()["tensors"]}


def brighter(times):
    return [(label, [p * times for p in pixels]) for label, pixels in IMAGES]


def test_rollback_gives_the_same_bytes():
    with serving.Daemon() as d:
        teach(d, IMAGES)
        made = ok(d.post(R + "/snapshots", {"name": "good"}))
        assert made["persisted"] is False and made["epoch"] == d.get(R).json()["epoch"], made
        before, bounds = scales(d), averages(d)
        answer = infer(d, IMAGES[0][1], {"quant_observe": False}).json()
        teach(d, brighter(5))
        assert averages(d) != bounds
        rolled = ok(d.post(R + "/rollback", {"name": "good"}))
        assert rolled["epoch"] > made["epoch"] and rolled["tensors"] == len(bounds), rolled
        assert scales(d) == before and averages(d) == bounds
        again = infer(d, IMAGES[0][1], {"quant_observe": False}).json()
        assert again["outputs"] == answer["outputs"] and again["parameters"]["quant_epoch"] == rolled["epoch"]
        teach(d, brighter(5))
        assert averages(d) != bounds  # it goes on learning


def test_rollback_takes_the_plan_along():
    with serving.Daemon() as d:
        teach(d, IMAGES)
        ok(d.post(R + "/snapshots", {"name": "plain"}))
        plan = d.get(M + "/quantization").json()["plan"]
        ok(change(d, {"precision": {"conv2": "fp32"}, "guard": "clip"}))
        assert d.get(M + "/quantization").json()["plan"] != plan
        assert ok(d.post(R + "/rollback", {"name": "plain", "plan": False}))["plan"] != plan
        assert ok(d.post(R + "/rollback", {"name": "plain"}))["plan"] == plan


def test_an_epoch_comes_back():
    with serving.Daemon() as d:
        teach(d, IMAGES)
        epoch, before = d.get(R).json()["epoch"], scales(d)
        for _, pixels in brighter(3)[:2]:
            infer(d, pixels)
        assert scales(d) != before
        ok(d.post(R + "/rollback", {"epoch": epoch}))
        assert scales(d) == before
        ok(d.post(R + "/rollback", {"epoch": 10**6}), 409)
        for body in ({}, {"name": "x", "epoch": 1}, {"epoch": "1"}, {"epoch": 0}, {"name": 3}, {"nam": "x"}, []):
            ok(d.post(R + "/rollback", body), 400)
        ok(d.post(R + "/rollback", {"name": "nobody"}), 404)


def test_diff_and_drift():
    with serving.Daemon() as d:
        teach(d, IMAGES)
        ok(d.get(M + "/drift"), 409)
        ok(d.post(R + "/snapshots", {"name": "one"}))
        same = ok(d.get(R + "/diff?from=one"))
        assert same["tensors"] and all(t["status"] == "same" and t["distance"] == 0 for t in same["tensors"]), same
        assert ok(d.get(M + "/drift"))["alarm"] is False
        teach(d, brighter(6))
        ok(d.post(R + "/snapshots", {"name": "two"}))
        diff = ok(d.get(R + "/diff?from=one&to=two"))
        for t in diff["tensors"]:
            lo, hi, width = t["from"]["min"], t["from"]["max"], t["from"]["width"]
            assert abs(width - (max(hi, 0) - min(lo, 0))) < 1e-12
            want = max(abs(t["to"]["min"] - lo), abs(t["to"]["max"] - hi)) / width
            assert t["status"] == "changed" and abs(t["distance"] - want) <= 1e-9 * want, t
        assert [t["distance"] for t in diff["tensors"]] == sorted((t["distance"] for t in diff["tensors"]), reverse=True)
        deadline, drift = time.monotonic() + 10, None
        while time.monotonic() < deadline and not (drift and drift["tensors"][0]["since"]):
            drift = ok(d.get(M + "/drift"))
            time.sleep(0.1)
        assert drift["baseline"]["name"] == "one" and drift["alarm"] and drift["first_mover"] and drift["tensors"][0]["since"], drift
        assert ok(d.get(M + "/drift?threshold=1000"))["alarm"] is False
        assert ok(d.get(M + "/drift?baseline=two"))["distance"] == 0
        metrics = d.get("/metrics").body.decode()
        assert 'quantd_range_drift_alarm{model="digits",version="1"} 1' in metrics
        assert d.output().count("widths away from the snapshot") == 1, d.output()
        for path, status in (("/diff?from=three", 404), ("/drift?threshold=x", 400), ("/drift?threshold=-1", 400)):
            ok(d.get((M if "drift" in path else R) + path), status)


def test_names_and_limits():
    with serving.Daemon() as d:
        for name in ("", ".", "../x", "a/b", "a b", "-a", "x" * 65, 7, None):
            ok(d.post(R + "/snapshots", {"name": name}), 400)
        ok(d.post(R + "/snapshots", b"{"), 400)
        for i in range(32):
            ok(d.post(R + "/snapshots", {"name": f"s{i}"}))
        ok(d.post(R + "/snapshots", {"name": "s0"}), 409)
        ok(d.post(R + "/snapshots", {"name": "more"}), 409)
        ok(d.ask("DELETE", R + "/snapshots/s7"))
        ok(d.ask("DELETE", R + "/snapshots/s7"), 404)
        ok(d.post(R + "/snapshots", {"name": "more"}))
        names = [s["name"] for s in ok(d.get(R + "/snapshots"))["snapshots"]]
        assert names == [f"s{i}" for i in range(32) if i != 7] + ["more"], names


def test_files_survive_and_damage_is_set_aside():
    with tempfile.TemporaryDirectory() as folder:
        with serving.Daemon("--state-dir", folder) as d:
            teach(d, IMAGES)
            for name in ("a", "b", "gone"):
                assert ok(d.post(R + "/snapshots", {"name": name}))["persisted"] is True
            ok(d.ask("DELETE", R + "/snapshots/gone"))
            kept = ok(d.get(R + "/snapshots/a"))
        path, = glob.glob(folder + "/*+b.json")
        with open(path, "r+b") as f:
            f.seek(100)
            byte = f.read(1)
            f.seek(100)
            f.write(bytes([byte[0] ^ 1]))
        with serving.Daemon("--state-dir", folder) as d:
            assert [s["name"] for s in ok(d.get(R + "/snapshots"))["snapshots"]] == ["a"]
            assert ok(d.get(R + "/snapshots/a")) == kept
            assert d.output().count("can't be used") == 1 and os.path.exists(path + ".damaged"), d.output()
            ok(d.post(R + "/snapshots", {"name": "b"}))


def test_a_snapshot_that_can_t_be_written_is_none():
    with tempfile.TemporaryDirectory() as folder:
        with serving.Daemon("--state-dir", folder) as d:
            teach(d, IMAGES)
            digest = ok(d.get(R + "/state"))["digest"]
            os.mkdir(f"{folder}/digits-{digest}+x.json")  # a folder where the file is to be
            assert "can't be written" in ok(d.post(R + "/snapshots", {"name": "x"}), 500)["error"]
            assert ok(d.get(R + "/snapshots"))["snapshots"] == []
            assert infer(d, IMAGES[0][1]).status == 200


def test_replicas_merge():
    with serving.Daemon() as a, serving.Daemon() as b:
        teach(a, IMAGES)
        teach(b, brighter(3), 1)
        one, other = averages(a), averages(b)
        from_a, from_b = ok(a.get(R + "/state")), ok(b.get(R + "/state"))
        merged = ok(a.post(R + "/merge", from_b))
        assert merged["merged"] == 1 and merged["skipped"] == 0 and merged["tensors"] == len(one), merged
        now = averages(a)
        for name, (lo, hi) in now.items():  # 16 and 8 observations
            for got, x, y in ((lo, one[name][0], other[name][0]), (hi, one[name][1], other[name][1])):
                want = (16 * x + 8 * y) / 24
                assert abs(got - want) <= 1e-12 * max(1, abs(want)), (name, got, want)
        again = ok(a.post(R + "/merge", from_b))  # sent twice: nothing changes
        assert again["skipped"] == 1 and again["epoch"] == merged["epoch"] and averages(a) == now, again
        assert ok(a.post(R + "/merge", from_a))["skipped"] == 1  # its own
        assert ok(b.post(R + "/merge", {"states": [from_a]}))["merged"] == 1
        assert averages(b) == now  # the same two states give the same bytes on both sides
        assert all(t["observations"] == 24 for t in b.get(R).json()["tensors"])
        ok(a.post(R + "/freeze"))
        ok(a.post(R + "/merge", {"states": [ok(b.get(R + "/state"))]}), 409)


def test_a_list_of_states_is_the_same_twice():
    with serving.Daemon() as a, serving.Daemon() as b:
        teach(a, IMAGES)
        teach(b, brighter(2))
        states = [ok(a.get(R + "/state")), ok(b.get(R + "/state"))]
        for d in (a, b, a):
            assert ok(d.post(R + "/merge", {"states": states, "self": False}))["merged"] == 2
        assert averages(a) == averages(b) and scales(a) == scales(b)


def test_a_state_is_taken_over():
    with serving.Daemon() as a, serving.Daemon() as b:
        teach(a, IMAGES)
        ok(change(a, {"precision": {"conv2": "fp32"}}))
        teach(a, IMAGES)
        state = ok(a.get(R + "/state"))
        assert ok(put(b, state))["plan"] == state["plan"]
        assert scales(a) == scales(b)
        x, y = (infer(d, IMAGES[0][1], {"quant_observe": False}).json()["outputs"] for d in (a, b))
        assert x == y
        tensors = state["tensors"]
        wrong = [({"quantd_state": 2}, 501), ({"digest": "0" * 16}, 409), ({"tensors": 3}, 400), ({"tensors": [{}]}, 400),
                 ({"tensors": [{**tensors[0], "average": [1, -1]}]}, 400), ({"tensors": [{**tensors[0], "average": [0, 1e300]}]}, 400)]
        before = averages(b)
        for different, status in wrong:
            ok(put(b, {**state, **different}), status)
            ok(b.post(R + "/merge", {**state, **different}), status)
        ok(put(b, state, "?plan=maybe"), 400)
        ok(b.post(R + "/merge", {**state, "origin": "me"}), 400)
        assert averages(b) == before


def test_history_is_bounded_and_ordered():
    with serving.Daemon() as d:
        tensor = d.get(R).json()["tensors"][0]["name"]
        for _ in range(3):
            teach(d, IMAGES, 1)
            time.sleep(1.1)
        points = ok(d.get(R + f"/{tensor}/history"))["points"]
        assert 2 <= len(points) <= 128 and [p["requests"] for p in points] == sorted({p["requests"] for p in points}), points
        assert points[-1]["requests"] == 24 and (points[-1]["ema_min"], points[-1]["ema_max"]) == averages(d)[tensor], points[-1]
        ok(d.get(R + "/nobody/history"), 404)


def events(reply):
    """[(event, data)] and the id."""
    text = reply.body.decode()
    lines = text.split("\n")
    ids = [line[4:] for line in lines if line.startswith("id: ")]
    found = [(lines[i][7:], json.loads(lines[i + 1][6:])) for i in range(len(lines)) if lines[i].startswith("event: ")]
    return found, ids[-1]


def test_stream():
    with serving.Daemon() as d:
        teach(d, IMAGES)
        first, last = events(d.get(R + "/stream"))
        assert [e for e, _ in first] == ["epoch", "ranges"] and first[1][1]["tensors"], first
        threading.Timer(0.3, lambda: [infer(d, p) for _, p in brighter(9)]).start()
        began = time.monotonic()
        reply = d.get(R + "/stream?events=epoch", {"Last-Event-ID": last})
        assert reply.headers["Content-Type"] == "text/event-stream" and 0.2 < time.monotonic() - began < 10
        then, later = events(reply)
        assert [e for e, _ in then] == ["epoch"] and then[0][1]["epoch"] > first[0][1]["epoch"] and later != last, then
        ok(d.get(R + "/stream", {"Last-Event-ID": "x"}), 400)
        ok(d.get(R + "/stream?events=some"), 400)
        deadline = time.monotonic() + 10  # a client that waits doesn't hold up a stop
        while events(d.get(R + "/stream?last_event_id=1-0"))[1] != later and time.monotonic() < deadline:
            later = events(d.get(R + "/stream?last_event_id=1-0"))[1]
        waiting = threading.Thread(target=lambda: d.get(R + "/stream?last_event_id=" + later))
        waiting.start()
        time.sleep(0.5)
        began = time.monotonic()
        d.process.terminate()
        waiting.join(10)
        assert not waiting.is_alive() and d.process.wait(20) == 0 and time.monotonic() - began < 10


sys.exit(serving.run([test_rollback_gives_the_same_bytes, test_rollback_takes_the_plan_along, test_an_epoch_comes_back,
                      test_diff_and_drift, test_names_and_limits, test_files_survive_and_damage_is_set_aside,
                      test_a_snapshot_that_can_t_be_written_is_none, test_replicas_merge, test_a_list_of_states_is_the_same_twice,
                      test_a_state_is_taken_over, test_history_is_bounded_and_ordered, test_stream]))
