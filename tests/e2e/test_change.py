#!/usr/bin/env python3
"""PATCH /quantization: single layers in another precision, other options, while requests go on. What was learned stays, every
request is answered, an epoch of before is replayed with the plan of before."""
import sys
import threading

import serving
from digit_requests import PATH, change, infer, teach


def precisions(plan):
    return {step["node"]: step for step in plan["steps"] if step["op"] in ("Conv", "Gemm")}


def test_pins():
    with serving.Daemon() as d:
        before = d.get(PATH).json()
        reply = change(d, {"precision": {"conv2": "fp32", "fc*": "int8"}})
        assert reply.status == 200, reply.body
        plan = reply.json()
        steps = precisions(plan)
        assert steps["conv2"]["precision"] == "fp32" and steps["conv2"]["pinned"] and "pinned" in steps["conv2"]["reason"], steps
        assert all(steps[n]["precision"] == "int8" and steps[n]["pinned"] for n in ("fc1", "fc2")), steps
        assert plan["plan"] != before["plan"] and d.get(PATH).json() == plan
        reply = change(d, {"precision": {"conv2": "auto"}})
        assert reply.status == 200 and not precisions(reply.json())["conv2"]["pinned"], reply.body


def test_whole_model():
    with serving.Daemon() as d:
        steps = precisions(change(d, {"precision": "fp32"}).json())
        assert {s["precision"] for s in steps.values()} == {"fp32"}, steps
        steps = precisions(change(d, {"precision": {"conv3": "int8"}}).json())
        assert {n for n, s in steps.items() if s["precision"] == "int8"} == {"conv3"}, steps


def test_refusals_change_nothing():
    with serving.Daemon() as d:
        before = d.get(PATH).json()
        for options, status, word in (
                ({"precision": {"conv9": "fp32"}}, 404, "conv9"), ({"precision": {"conv1": "int3"}}, 400, "conv1"),
                ({"speed": "high"}, 400, "speed"), ({"guard": 3}, 400, "guard"), ({"averaging_constant": 7}, 400, "averaging_constant"),
                ({"mode": "ema", "precision": []}, 400, "precision"), ([], 400, "object"), ({"weights": {"bits": 3}}, 400, "weight_bits")):
            reply = change(d, options)
            assert reply.status == status and word in reply.json()["error"], (options, reply.status, reply.body)
        assert d.ask("PATCH", PATH, b"{").status == 400
        assert d.get(PATH).json() == before


def test_what_was_learned_stays():
    with serving.Daemon("--precision", "int8") as d:
        images = serving.digits()[:8]
        teach(d, images)
        before = {t["name"]: t for t in d.get("/v2/models/digits/ranges").json()["tensors"]}
        epoch = infer(d, images[0][1]).json()["parameters"]["quant_epoch"]
        assert change(d, {"precision": {"conv2": "fp32"}}).status == 200
        ranges = d.get("/v2/models/digits/ranges").json()
        after = {t["name"]: t for t in ranges["tensors"]}
        assert ranges["epoch"] > epoch and set(after) < set(before), (ranges["epoch"], epoch, list(before), list(after))
        for name, t in after.items():
            assert t["observations"] >= before[name]["observations"] >= 16, (name, t)


def test_asymmetric_weights():
    with serving.Daemon("--precision", "int8", "--bias-correction=false") as d:
        images = serving.digits()[:8]
        teach(d, images)
        answer = infer(d, images[0][1], {"quant_observe": False}).json()
        assert change(d, {"weights": {"scheme": "skew"}}).status == 400
        reply = change(d, {"weights": {"scheme": "asymmetric"}})
        assert reply.status == 200, reply.body
        assert all(s["weights"]["scheme"] == "asymmetric" for s in precisions(reply.json()).values()), reply.body
        for digit, pixels in images:
            other = infer(d, pixels, {"quant_observe": False}).json()["outputs"][0]["data"]
            full = infer(d, pixels, {"quant_precision": "fp32"}).json()["outputs"][0]["data"]
            assert other.index(max(other)) == full.index(max(full)) == digit, (digit, other, full)
        assert infer(d, images[0][1], {"quant_observe": False}).json()["outputs"] != answer["outputs"]
        again = infer(d, images[0][1], {"quant_epoch": answer["parameters"]["quant_epoch"], "quant_observe": False}).json()
        assert again["outputs"] == answer["outputs"] and again["parameters"] == answer["parameters"], (again, answer)
        assert all(s["weights"]["scheme"] == "symmetric"
                   for s in precisions(change(d, {"weights": {"scheme": "symmetric"}}).json()).values())


def test_replay_over_a_change():
    with serving.Daemon("--precision", "int8") as d:
        images = serving.digits()[:8]
        teach(d, images)
        answer = infer(d, images[0][1], {"quant_observe": False}).json()
        assert change(d, {"precision": {"conv*": "fp32"}}).status == 200
        other = infer(d, images[0][1], {"quant_observe": False}).json()
        assert other["parameters"]["quant_plan"] != answer["parameters"]["quant_plan"], other["parameters"]
        assert other["outputs"] != answer["outputs"]
        again = infer(d, images[0][1], {"quant_epoch": answer["parameters"]["quant_epoch"], "quant_observe": False}).json()
        assert again["outputs"] == answer["outputs"] and again["parameters"] == answer["parameters"], (again, answer)


def test_escalate():
    with serving.Daemon("--precision", "int8", "--bias-correction=false") as d:
        images = serving.digits()[:8]
        teach(d, images)
        assert change(d, {"guard": "escalate", "guard_tolerance": 1}).status == 200  # real digits differ by less
        inside = infer(d, images[0][1], {"quant_observe": False}).json()
        assert inside["parameters"]["quant_precision"] == "int8" and inside["parameters"]["quant_guarded"] == 0, inside["parameters"]
        far = [20 * v - 5 for v in images[0][1]]
        outside = infer(d, far, {"quant_observe": False}).json()
        full = infer(d, far, {"quant_precision": "fp32"}).json()
        assert outside["parameters"]["quant_precision"] == "fp32" and outside["parameters"]["quant_guarded"] > 0, outside["parameters"]
        assert outside["outputs"] == full["outputs"]
        again = infer(d, images[0][1], {"quant_observe": False}).json()
        assert again["outputs"] == inside["outputs"]


def test_under_load():
    with serving.Daemon("--workers", "2") as d:
        images, stop, failures, answered = serving.digits()[:8], threading.Event(), [], [0]

        def ask():
            while not stop.is_set():
                for _, pixels in images:
                    reply = infer(d, pixels)
                    answered[0] += reply.status == 200
                    if reply.status != 200:
                        failures.append((reply.status, reply.body))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for t in threads:
            t.start()
        plans = set()
        for i in range(12):
            reply = change(d, {"precision": {"conv2": ("fp32", "int8", "auto")[i % 3]}, "guard": ("clip", "widen", "escalate")[i % 3]})
            assert reply.status == 200, reply.body
            plans.add(reply.json()["plan"])
        stop.set()
        for t in threads:
            t.join()
        assert not failures and answered[0] > 12 and len(plans) >= 2, (failures[:3], answered, plans)


sys.exit(serving.run([test_pins, test_asymmetric_weights, test_whole_model, test_refusals_change_nothing, test_what_was_learned_stays,
                      test_replay_over_a_change, test_escalate, test_under_load]))
