#!/usr/bin/env python3
"""The wire contract by plain HTTP: statuses, sentences, the rules for NaN, BYTES, entity tags, CSV and metrics, and every route
of docs/openapi.yaml. Standard library only; promtool is used where it is installed."""
import csv
import io
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from serving import Daemon, digits, run

M = "/v2/models/digits"
OPENAPI = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "openapi.yaml")
DIGITS = digits()


def image(data=None, **more):
    return {"name": "image", "datatype": "FP32", "shape": [1, 1, 28, 28], "data": DIGITS[0][1] if data is None else data, **more}


def request(data=None, **more):
    return {"inputs": [image(data)], **more}


def output(answer, name):
    return next(o for o in answer["outputs"] if o["name"] == name)


def expect(reply, status, word=None):
    assert reply.status == status, (reply.status, reply.body[:300])
    if status >= 400:
        assert reply.headers["Content-Type"] == "application/json", reply.headers["Content-Type"]
        body = reply.json()
        assert list(body) == ["error"] and body["error"], body
        assert word is None or word in body["error"], body
    return reply


def test_health(d):
    assert d.get("/v2/health/live").json() == {"live": True}
    assert d.get("/v2/health/ready").json() == {"live": True, "ready": True}
    assert d.get(M + "/ready").json() == {"name": "digits", "ready": True}
    assert d.get(M + "/versions/1/ready?q=1+2").status == 200
    expect(d.get("/v2/models/nobody/ready"), 404, "nobody")
    expect(d.get(M + "/versions/2/ready"), 404)
    expect(d.get("/nowhere"), 404)
    wrong = expect(d.post("/v2/health/live"), 405)
    assert "GET" in wrong.headers["Allow"]


def test_metadata(d):
    server = d.get("/v2").json()
    assert server["name"] == "quantd" and server["version"] and "binary_tensor_data" in server["extensions"]
    assert d.get("/v2/").json() == server
    model = d.get(M).json()
    assert model["name"] == "digits" and model["versions"] == ["1"] and model["platform"] == "onnx_onnxv1"
    assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 28, 28],
                                "parameters": {"dim_names": ["batch", None, None, None]}}], model["inputs"]
    assert [o["name"] for o in model["outputs"]] == ["logits", "probabilities"]
    config = d.get(M + "/config").json()
    assert config["max_batch_size"] > 0 and config["input"][0]["dims"] == [1, 28, 28]
    assert config["input"][0]["data_type"] == "TYPE_FP32" and config["output"][0]["dims"] == [10]
    expect(d.get("/v2/models/nobody"), 404, "nobody")
    expect(d.get("/v2/models/" + "x" * 300), 404)


def test_infer_learns_and_answers(d):
    right = 0
    for label, pixels in DIGITS:
        answer = expect(d.post(M + "/infer", request(pixels, id="a1")), 200).json()
        assert answer["model_name"] == "digits" and answer["model_version"] == "1" and answer["id"] == "a1"
        p = answer["parameters"]
        assert p["quant_epoch"] >= 1 and re.fullmatch("[0-9a-f]{8}", p["quant_plan"]) and p["quant_precision"] == "int8"
        assert p["quant_guarded"] >= 0
        scores = output(answer, "probabilities")
        assert scores["shape"] == [1, 10] and abs(sum(scores["data"]) - 1) < 1e-3
        right += max(range(10), key=lambda i: scores["data"][i]) == label
    assert right >= 0.9 * len(DIGITS), right
    assert "id" not in d.post(M + "/infer", request(id="")).json()


def test_forms_agree(d):
    pixels = DIGITS[1][1]
    epoch = d.post(M + "/infer", request(pixels, parameters={"quant_observe": False})).json()["parameters"]["quant_epoch"]
    more = {"parameters": {"quant_epoch": epoch, "quant_observe": False}}
    flat = d.post(M + "/infer", request(pixels, **more)).json()
    nested = [[[pixels[r * 28:r * 28 + 28] for r in range(28)]]]
    sent = json.dumps({"inputs": [image(nested)], **more}, sort_keys=True)
    assert d.post(M + "/infer", sent).json()["outputs"] == flat["outputs"]
    raw = struct.pack("<784f", *pixels)
    head = json.dumps({"inputs": [{**{k: v for k, v in image().items() if k != "data"}, "parameters": {"binary_data_size": 3136}}],
                       "outputs": [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "probabilities"}],
                       **more}).encode()
    both = expect(d.post(M + "/infer", head + raw, {"Inference-Header-Content-Length": str(len(head))}), 200)
    assert both.headers["Content-Type"] == "application/octet-stream"
    n = int(both.headers["Inference-Header-Content-Length"])
    answer = json.loads(both.body[:n])
    assert output(answer, "logits")["parameters"] == {"binary_data_size": 40} and len(both.body) == n + 40
    as_floats = struct.unpack("<10f", both.body[n:])
    assert [struct.unpack("<f", struct.pack("<f", v))[0] for v in output(flat, "logits")["data"]] == list(as_floats)
    assert output(answer, "probabilities")["data"] == output(flat, "probabilities")["data"]
    whole = expect(d.post(M + "/infer", raw, {"Inference-Header-Content-Length": "0"}), 200)
    n = int(whole.headers["Inference-Header-Content-Length"])
    assert len(whole.body) == n + 80


def test_precision_on_request(d):
    answer = d.post(M + "/infer", request(parameters={"quant_precision": "fp32", "quant_observe": False})).json()
    assert answer["parameters"]["quant_precision"] == "fp32"


def test_user_mistakes(d):
    good = image()
    cases = [
        (b"", 400, None), (b"{", 400, "ends in the middle"), (b"[]", 400, "object"), (b"{}", 400, "no inputs"),
        ({"inputs": []}, 400, "no inputs"), ({"inputs": [good, good]}, 400, "'image' comes twice"),
        ({"inputs": [{**good, "name": "picture"}]}, 400, "no input 'picture'"),
        ({"inputs": [{**good, "shape": [1, 1, 28, 27]}]}, 400, "shape"),
        ({"inputs": [{**good, "shape": [10 ** 9, 1, 28, 28]}]}, 400, "more than its data"),
        ({"inputs": [{**good, "shape": [-1, 1, 28, 28]}]}, 400, "shape"),
        ({"inputs": [{**good, "datatype": "INT8"}]}, 400, "FP32"),
        ({"inputs": [{**good, "datatype": "BYTES", "data": ["a"]}]}, 400, "more than its data"),
        ({"inputs": [{**good, "data": good["data"][1:]}]}, 400, "needs 784"),
        ({"inputs": [{**good, "data": [good["data"]] * 3}]}, 400, "'image'"),
        (json.dumps(request([math.nan] * 784)), 400, "NaN"), (json.dumps(request([math.inf] * 784)), 400, "Infinity"),
        (json.dumps(request(["@"] + [0.0] * 783)).replace('"@"', "1e999"), 400, "1e999"),
        (json.dumps(request()) + "x", 400, "follows"), (b'{"id":"\xff"}', 400, "UTF-8"), ("[" * 100000, 400, None),
        (request(outputs=[{"name": "nothing"}]), 400, "no output 'nothing'"),
        (request(outputs=[{"name": "logits"}, {"name": "logits"}]), 400, "comes twice"),
        (request(parameters={"triton_x": 1}), 400, "triton_"), (request(parameters={"quant_epoch": 0}), 400, "quant_epoch"),
        (request(parameters={"quant_epoch": 10 ** 9}), 409, "1000000000"),
        (request(parameters={"quant_precision": "int3"}), 400, "quant_precision"),
        ({"inputs": [{**good, "parameters": {"shared_memory_region": "r"}}]}, 501, "shared memory"),
    ]
    for body, status, word in cases:
        expect(d.post(M + "/infer", body), status, word)
    for header in ("-1", "+3", "0x10", "99999999", "1 2"):
        expect(d.post(M + "/infer", request(), {"Inference-Header-Content-Length": header}), 400)
    expect(d.post(M + "/infer", b"\0" * 100, {"Inference-Header-Content-Length": "0"}), 400, "does not fit")
    expect(d.post("/v2/models/nobody/infer", request()), 404, "nobody")
    assert d.post(M + "/infer", request(parameters={"mine": "x", "sequence_id": 3})).status == 200


def test_not_a_number_teaches_nothing(d):
    before = d.get(M + "/ranges").json()
    head = json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 28, 28],
                                   "parameters": {"binary_data_size": 3136}}]}).encode()
    body = head + struct.pack("<784f", *([math.nan, math.inf, 1e30] + [0.0] * 781))
    reply = d.post(M + "/infer", body, {"Inference-Header-Content-Length": str(len(head))})
    assert reply.status in (200, 422), reply.status
    after = d.get(M + "/ranges").json()
    a, b = (next(t for t in r["tensors"] if t["name"] == "image") for r in (before, after))
    assert b["nonfinite"] == a["nonfinite"] + 2 or reply.status == 422, (a, b)
    for t in after["tensors"]:
        assert all(math.isfinite(v) for v in t.values() if isinstance(v, float)), t


def test_ranges(d):
    first = d.get(M + "/ranges")
    body = first.json()
    assert body["model"] == "digits" and body["version"] == "1" and body["mode"] == "ema" and not body["frozen"]
    assert body["requests"] > 0 and body["tensors"]
    tag = first.headers["ETag"]
    assert tag.startswith('"') and tag.endswith('"')
    same = d.get(M + "/versions/1/ranges", {"If-None-Match": '"other", ' + tag})
    assert same.status == 304 and not same.body and same.headers["ETag"] == tag
    d.post(M + "/infer", request())
    assert d.get(M + "/ranges", {"If-None-Match": tag}).status == 200
    names = [t["name"] for t in body["tensors"]]
    some = d.get(f"{M}/ranges?tensor={names[0]}&tensor={names[-1]}").json()
    assert [t["name"] for t in some["tensors"]] == [names[0], names[-1]]
    expect(d.get(M + "/ranges?tensor=nothing"), 404, "nothing")
    expect(d.get(M + "/ranges?format=xml"), 400, "format")
    table = d.get(M + "/ranges?format=csv")
    assert table.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.body.decode(), newline="")))
    assert [r["name"] for r in rows] == names and all(None not in r and None not in r.values() for r in rows)
    now = {t["name"]: t for t in d.get(M + "/ranges").json()["tensors"]}
    for row in rows:
        for key in ("ema_min", "ema_max", "scale", "observations", "zero_point", "clipped_ratio"):
            assert float(row[key]) == now[row["name"]][key], (row, key)


def test_freeze_and_reset(d):
    frozen = expect(d.post(M + "/ranges/freeze"), 200).json()
    assert frozen["frozen"] is True
    before = d.get(M + "/ranges").json()
    assert before["frozen"] and before["mode"] == "static"
    d.post(M + "/infer", request([1.0] * 784))
    after = d.get(M + "/ranges").json()
    assert [(t["ema_min"], t["ema_max"]) for t in after["tensors"]] == [(t["ema_min"], t["ema_max"]) for t in before["tensors"]]
    assert after["epoch"] == before["epoch"]
    assert expect(d.post(M + "/ranges/unfreeze"), 200).json()["frozen"] is False
    reset = expect(d.post(M + "/ranges/reset"), 200).json()
    assert reset["epoch"] > after["epoch"]
    assert all(t["observations"] == 0 for t in d.get(M + "/ranges").json()["tensors"])
    expect(d.post(M + "/ranges/freeze"), 409)
    expect(d.get(M + "/ranges/freeze"), 405)
    d.post(M + "/infer", request())


def test_quantization(d):
    plan = d.get(M + "/quantization").json()
    assert plan["model"] == "digits" and re.fullmatch("[0-9a-f]{8}", plan["plan"])
    assert plan["plan"] == d.post(M + "/infer", request()).json()["parameters"]["quant_plan"]
    assert {s["precision"] for s in plan["steps"]} >= {"int8"} and all(s["node"] and s["op"] for s in plan["steps"])
    assert plan["totals"]["macs"]["int8"] > 0 and plan["totals"]["packed_bytes"] > 0


def test_index_and_stats(d):
    everything = d.post("/v2/repository/index").json()
    assert everything == [{"name": "digits", "version": "1", "state": "READY", "reason": ""}]
    assert d.post("/v2/repository/index", {"ready": True}).json() == everything
    expect(d.post("/v2/repository/index", {"ready": 1}), 400, "ready")
    expect(d.post("/v2/repository/index", "[" * 5000), 400)
    before = d.get(M + "/stats").json()["model_stats"][0]
    d.post(M + "/infer", request())
    d.post(M + "/infer", b"{}")
    after = d.get("/v2/models/stats").json()["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 1 and after["execution_count"] > before["execution_count"]
    assert after["inference_stats"]["success"]["count"] == before["inference_stats"]["success"]["count"] + 1
    assert after["inference_stats"]["fail"]["count"] == before["inference_stats"]["fail"]["count"] + 1
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]


def test_metrics(d):
    for i in range(50):
        d.get(f"/v2/models/stranger{i}")
    plain = d.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = plain.body.decode()
    assert "stranger" not in text
    for name in ("quantd_build_info{", 'quantd_requests_total{model="digits"', 'quantd_range_max{model="digits",version="1",tensor="image"}',
                 "quantd_request_duration_seconds_bucket{", "process_resident_memory_bytes ", "quantd_http_requests_total{",
                 "quantd_queue_depth ", "quantd_model_ready{"):
        assert name in text, name
    opened = d.get("/metrics", {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"})
    assert opened.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert opened.body.endswith(b"# EOF\n") and b"# TYPE quantd_http_requests counter" in opened.body
    if shutil.which("promtool"):
        judged = subprocess.run(["promtool", "check", "metrics"], input=plain.body, capture_output=True)
        assert judged.returncode == 0, judged.stdout + judged.stderr
    else:
        print("     (promtool is not installed: its check was left out)")


def routes_of(text):
    """(method, path, statuses) of the document, read by its indentation."""
    found, path, method = [], None, None
    for line in text.split("\ncomponents:")[0].splitlines():
        if re.match(r"  /", line):
            path = line.strip().rstrip(":")
        elif at := re.match(r"    (get|post): *(.*)", line):
            method = at.group(1).upper()
            found.append((method, path, set()))
        elif (at := re.match(r'        "(\d+)":', line)) and found:
            found[-1][2].add(int(at.group(1)))
    return found


def test_every_documented_route(d):
    with open(OPENAPI, encoding="utf-8") as f:
        routes = routes_of(f.read())
    assert len(routes) >= 16, routes
    for method, path, statuses in routes:
        for known, version in (("digits", ""), ("digits", "/versions/1"), ("nobody", "")):
            if "{model}" not in path and (known != "digits" or version):
                continue
            target = path.replace("{model}", known + version).replace("{snapshot}", "kept").replace("{tensor}", "relu1_out")
            bodies = {"/infer": request(), "/calibrate": request(), "/snapshots": {"name": "kept"}, "/rollback": {"name": "kept"},
                      "/merge": {"states": []}}
            body = next((json.dumps(value) for end, value in bodies.items() if path.endswith(end)), b"{}" if method == "PUT" else b"")
            reply = d.ask(method, target, body if method in ("POST", "PUT") else None)
            want = 404 if known == "nobody" else 200
            assert reply.status == want or (path.endswith(("freeze", "export", "snapshots")) and reply.status == 409), (method, target, reply.status, reply.body)
            assert not statuses or reply.status in statuses, (method, target, reply.status)
            other = d.ask("OPTIONS", target)
            assert other.status == 405 and method in other.headers["Allow"], (target, other.status)
    d.post(M + "/ranges/unfreeze")
    expect(d.ask("DELETE", M + "/ranges/snapshots/kept"), 200)


if __name__ == "__main__":
    with Daemon() as daemon:
        status = run([test_health, test_metadata, test_infer_learns_and_answers, test_forms_agree, test_precision_on_request,
                      test_user_mistakes, test_not_a_number_teaches_nothing, test_ranges, test_freeze_and_reset, test_quantization,
                      test_index_and_stats, test_metrics, test_every_documented_route], daemon)
    sys.exit(status)
