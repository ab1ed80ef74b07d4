#!/usr/bin/env python3
"""Every command of the binary with its exit codes: 0 done, 1 failed, 2 called wrongly. QUANTD names the
binary (build/quantd)."""
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from little_onnx import model, number, tensor, text, value

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QUANTD = os.path.abspath(os.environ.get("QUANTD", os.path.join(ROOT, "build", "quantd")))
DIGITS = os.path.join(ROOT, "server", "builtin", "digits.onnx")


def folder(root, name, op, sets, **more):
    place = os.path.join(root, name)
    os.makedirs(place)
    write(os.path.join(place, "model.onnx"), model(op, **more))
    for k, (given, wanted) in enumerate(sets):
        data = os.path.join(place, f"test_data_set_{k}")
        os.makedirs(data)
        if given is not None:
            write(os.path.join(data, "input_0.pb"), given)
        if wanted is not None:
            write(os.path.join(data, "output_0.pb"), wanted)
    return place


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


# ---------------------------------------------------------------- asking
def run(*arguments, code=0, env=None):
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("QUANTD_")}, **(env or {})}
    done = subprocess.run([QUANTD, *arguments], capture_output=True, text=True, timeout=120, env=env, check=False)
    assert done.returncode == code, f"quantd {arguments}: exit {done.returncode}, wanted {code}\n{done.stdout}{done.stderr}"
    done.last = done.stdout.rstrip("\n").split("\n")[-1]
    return done


def test_usage(_):
    assert "usage" in run(code=2).stderr
    for ask in ("--help", "-h", "help"):
        assert "quantd serve" in run(ask).stdout
    assert 'did you mean "selftest"?' in run("selftst", code=2).stderr
    for command in ("check", "test", "bench", "selftest", "healthcheck", "version"):
        assert f"usage: quantd {command}" in run(command, "--help").stdout
    for command in ("check", "test", "bench", "healthcheck"):
        run(command, code=2)
    assert "did you mean --precision?" in run("bench", "--precison", "int8", DIGITS, code=2).stderr
    assert "needs a value" in run("test", "--rtol", code=2).stderr
    assert "must be a number" in run("test", "--rtol", "nan", ".", code=2).stderr
    run("check", DIGITS, DIGITS, code=2)
    run("test", "--precision", "int9", ".", code=2)


def test_version(_):
    out = run("version").stdout
    for word in ("quantd ", "revision", "compiler", "libmicrohttpd", "libuv", "jansson", "isa"):
        assert re.search(rf"^{word}\s*\S", out, re.M), (word, out)
    assert re.search(r"^isa +scalar$", run("version", env={"QUANTD_ISA": "scalar"}).stdout, re.M)
    assert run("--version").stdout == out
    run("version", "x", code=2)


def test_full_output_is_a_failure(_):
    if not os.path.exists("/dev/full"):
        return
    with open("/dev/full", "wb") as full:
        assert subprocess.run([QUANTD, "version"], stdout=full, stderr=subprocess.DEVNULL, check=False).returncode == 1


def test_selftest(_):
    assert "agree" in run("selftest").stdout
    assert "scalar" in run("selftest", "--seed", "7", env={"QUANTD_ISA": "scalar"}).stdout


def test_serve_options(place):
    assert "--averaging-constant" in run("serve", "--help").stdout
    schema = json.loads(run("serve", "--print-schema").stdout)
    assert schema["properties"]["workers"]["type"] == "integer" and schema["additionalProperties"] is False
    run("serve", "--check-config")
    run("serve", "--check-config", "--config", os.path.join(ROOT, "config", "quantd.json"))
    run("serve", "--check-config", "--model", f"digits={DIGITS}", "--model-repository", place)
    for arguments, sentence in [
            (["--worker=1"], "did you mean --workers?"),
            (["--workers=-1"], "--workers: must be >= 0"),
            (["--model", f"a={place}/none.onnx"], "No such file"),
            (["--model", f"a={place}"], "is not a file"),
            (["--model-repository", f"{place}/none"], "No such file"),
            (["--config", f"{place}/none.json"], "No such file")]:
        assert sentence in run("serve", "--check-config", *arguments, code=1).stderr, sentence
    config = os.path.join(place, "quantd.json")
    write(config, b'{"averaging_constant": 7}')
    wanted = 'quantd.json: key "averaging_constant": must be > 0 and <= 1, is 7'
    assert wanted in run("serve", "--check-config", "--config", config, code=1).stderr
    assert wanted in run("serve", "--check-config", code=1, env={"QUANTD_CONFIG": config}).stderr
    assert wanted in run("serve", "--check-config", code=1, env={"CONFIGURATION_DIRECTORY": place}).stderr
    write(config, b'{\n "workers": 1,\n}')
    assert "quantd.json:3:1: " in run("serve", "--check-config", "--config", config, code=1).stderr
    assert "environment variable QUANTD_GUARD: " in run("serve", "--check-config", code=1, env={"QUANTD_GUARD": "x"}).stderr


def test_check(place):
    out = run("check", DIGITS).stdout
    assert re.search(r"^model +digits\.onnx: opset \d+, \d+ nodes", out, re.M) and "int8" in out, out
    report = json.loads(run("check", "--json", DIGITS).stdout)
    assert report["inputs"] and report["outputs"] and report["macs"]["int8"] > 0 and report["packed_bytes"] > 0
    assert any(step["precision"] == "int8" and step["reason"] for step in report["steps"])
    fp32 = json.loads(run("check", "--json", "--precision", "fp32", DIGITS).stdout)
    assert fp32["macs"]["int8"] == 0 and fp32["macs"]["fp32"] == report["macs"]["int8"] + report["macs"]["fp32"]
    unsupported = os.path.join(place, "unsupported.onnx")
    write(unsupported, model("NoSuchOperator"))
    error = run("check", unsupported, code=1).stderr
    assert "NoSuchOperator" in error and "the_node" in error, error
    write(unsupported, b"not a model at all")
    assert run("check", unsupported, code=1).stderr
    run("check", os.path.join(place, "none.onnx"), code=1)


def test_check_shapes(_):
    """Memory and multiply-adds follow the shapes that are asked about; the precisions' groups are the steps'."""
    small = json.loads(run("check", "--json", DIGITS).stdout)
    name = small["inputs"][0]["name"]
    assert small["inputs"][0]["shape"][0] == -1 and small["inputs"][0]["dim_names"][0]
    assert small["at"]["shapes"] == {name: [1, *small["inputs"][0]["shape"][1:]]}
    shape = [7, *small["inputs"][0]["shape"][1:]]
    asked = f"{name}={','.join(map(str, shape))}"
    large = json.loads(run("check", "--json", "--shapes", asked, DIGITS).stdout)
    assert large["at"]["shapes"] == {name: shape}
    assert sum(large["macs"].values()) == 7 * sum(small["macs"].values()) > 0
    for figure in ("input_bytes", "output_bytes", "workspace_bytes"):
        assert large["at"][figure] > small["at"][figure] > 0, figure
    assert large["at"]["input_bytes"] == 7 * small["at"]["input_bytes"] and large["at"]["unknown_steps"] == 0
    assert sum(g["steps"] for g in large["precisions"]) == len(large["steps"])
    assert sum(s["macs"] for s in large["steps"]) == sum(large["macs"].values()) == sum(g["macs"] for g in large["precisions"])
    out = run("check", "--shapes", asked, DIGITS).stdout
    assert re.search(rf"^at shapes {name} \[7, ", out, re.M) and "workspace" in out and re.search(r"^precision ", out, re.M), out
    int16 = json.loads(run("check", "--json", "--precision", "int16", DIGITS).stdout)
    assert int16["macs"]["int16"] > 0 and int16["macs"]["int8"] == 0
    for wrong, sentence in [("nothing=1,2", 'no input "nothing"'), (name, "is not NAME="), (f"{name}=", "wants ["),
                            (f"{name}=1,,3", "is not NAME="), (f"{name}=1,2", "wants ["), (f"{name}=1,2,3,4x", "is not NAME="),
                            (f"{name}=-1,1,28,28", "is not NAME=")]:
        assert sentence in run("check", "--shapes", wrong, DIGITS, code=2).stderr, wrong
    huge = f"{name}={10 ** 9},{','.join(map(str, shape[1:]))}"
    assert run("check", "--shapes", huge, DIGITS, code=1).stderr


def test_check_operators(place):
    """What is in the file, counted, whether it can be served or not; the missing ones by name."""
    report = json.loads(run("check", "--json", DIGITS).stdout)
    assert report["served"] and all(o["served"] for o in report["operators"])
    assert sum(o["nodes"] for o in report["operators"]) == report["nodes"]
    assert any(o["op"] == "Conv" and o["domain"] == "" and o["version"] == report["opset"] for o in report["operators"])
    assert 0 < sum(w["bytes"] for w in report["weights"].values()) <= report["model_file_bytes"]

    def node(op, domain, given, made):
        return text(1, text(1, given) + text(2, made) + text(4, op) + text(7, domain))
    path = os.path.join(place, "missing.onnx")
    graph = node("Relu", "", "x", "a") + node("Odd", "com.foo", "a", "b") + node("Odd", "com.foo", "b", "c") \
        + node("NoSuch", "", "c", "y") + text(2, "g") + text(11, value("x", ("n", 3))) + text(12, value("y", ("n", 3)))
    write(path, number(1, 8) + text(7, graph) + text(8, text(1, "") + number(2, 13)) + text(8, text(1, "com.foo") + number(2, 4)))
    done = run("check", "--json", path, code=1)
    report = json.loads(done.stdout)
    assert not report["served"] and report["error"] in done.stderr and "com.foo.Odd" in report["error"]
    found = {(o["domain"], o["op"], o["version"]): (o["nodes"], o["served"]) for o in report["operators"]}
    assert found == {("", "Relu", 13): (1, True), ("com.foo", "Odd", 4): (2, False), ("", "NoSuch", 13): (1, False)}, found
    done = run("check", path, code=1)
    assert re.search(r"^missing +NoSuch 1 .*com\.foo\.Odd 2 \(version 4, first 'b'\)$", done.stdout, re.M), done.stdout
    assert re.search(r"^operators +Relu 1$", done.stdout, re.M)


def test_test(place):
    good = (tensor([-1, 0, 2], [1, 3], "x"), tensor([0, 0, 2], [1, 3], "y"))
    second = (tensor([-1, 5, 2, 1, -1, -1], [2, 3], "x"), tensor([0, 5, 2, 1, 0, 0], [2, 3], "y"))
    many = os.path.join(place, "many")
    passing = folder(many, "a_good", "Relu", [good, second])
    wrong = folder(many, "b_wrong", "Relu", [good, (second[0], tensor([0, 5, 2, 1, 0, 0.01], [2, 3], "y"))])
    skipped = folder(many, "c_missing", "NoSuchOperator", [good])
    shape = folder(place, "shape", "Relu", [(good[0], tensor([0, 0, 2], [3], "y"))])
    dtype = folder(place, "dtype", "Relu", [(good[0], tensor([0, 0, 2], [1, 3], "y", 7, "q"))])
    nans = folder(place, "nans", "Relu", [(tensor([float("nan"), float("inf"), -1], [1, 3]),
                                           tensor([float("nan"), float("inf"), 0], [1, 3]))])
    inf = folder(place, "inf", "Relu", [(tensor([3e38, 0, 0], [1, 3]), tensor([float("inf"), 0, 0], [1, 3]))])
    assert run("test", passing).last == "1 passed, 0 failed, 0 skipped"
    assert run("test", passing + "/").stdout.startswith("PASS a_good\n")
    assert run("test", wrong, code=1).last == "0 passed, 1 failed, 0 skipped"
    assert run("test", wrong, "--atol", "0.02").last == "1 passed, 0 failed, 0 skipped"
    assert run("test", wrong, "--cosine=0.9999").last == "1 passed, 0 failed, 0 skipped"
    assert "cosine" in run("test", folder(place, "far", "Relu", [(good[0], tensor([0, 2, 0], [1, 3]))]),
                           "--cosine", "0.9", code=1).stdout
    out = run("test", skipped)
    assert "SKIP c_missing: " in out.stdout and "NoSuchOperator" in out.stdout
    assert out.last == "0 passed, 0 failed, 1 skipped"
    out = run("test", many, code=1)
    assert [line.split()[0] for line in out.stdout.splitlines()] == ["PASS", "FAIL", "SKIP", "1"], out.stdout
    assert out.last == "1 passed, 1 failed, 1 skipped"
    assert run("test", place, code=1).last.endswith("1 skipped")  # folders of folders
    assert "[1, 3], expected FP32 [3]" in run("test", shape, code=1).stdout
    assert "expected INT64" in run("test", dtype, code=1).stdout
    assert run("test", nans).last == "1 passed, 0 failed, 0 skipped"
    run("test", inf, code=1)
    for name, sets, sentence in [("no_sets", [], "no test_data_set_0"), ("no_input", [(None, good[1])], "'x'"),
                                 ("no_output", [(good[0], None)], "output_0.pb"), ("broken", [(b"\xff" * 9, good[1])], "input_0.pb")]:
        out = run("test", folder(place, name, "Relu", sets), code=1)
        assert out.last == "0 passed, 1 failed, 0 skipped" and sentence in out.stdout, out.stdout
    os.makedirs(os.path.join(place, "empty"))
    assert "no model.onnx" in run("test", os.path.join(place, "empty"), code=1).stdout
    run("test", os.path.join(place, "nowhere"), code=1)


def test_bench(place):
    real = folder(place, "real", "Relu", [(tensor([-1, 0, 2], [1, 3], "x"), None)])
    results = json.loads(run("bench", "--json", "--seconds", "0.05", "--threads", "1", DIGITS, real).stdout)
    assert [(r["model"], r["precision"], r["inputs"]) for r in results] == [
        ("digits.onnx", "int8", "random"), ("digits.onnx", "fp32", "random"), ("real", "int8", "real"), ("real", "fp32", "real")]
    assert all(r["runs"] >= 5 and 0 < r["median_us"] <= r["p99_us"] and r["threads"] == 1 for r in results)
    out = run("bench", "--seconds=0", "--precision=fp32", DIGITS).stdout
    assert re.search(r"^digits\.onnx +fp32 +random +\d+ +[\d.]+ +[\d.]+$", out, re.M), out
    run("bench", os.path.join(place, "none.onnx"), code=1)
    run("bench", "--precision=int9", DIGITS, code=2)
    run("bench", "--threads=1.5", DIGITS, code=2)


# ---------------------------------------------------------------- healthcheck
def answering(answer, seconds=0):
    """A server for one connection; returns its port and the request it gets."""
    listener, got = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        with listener, listener.accept()[0] as connection:
            got.append(connection.recv(4096))
            try:
                for piece in answer:
                    connection.sendall(piece)
                    time.sleep(0.02)
            except OSError:
                return  # it gave up, as some tests want it to
            time.sleep(seconds)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1], got


def test_healthcheck(_):
    port, got = answering([b"HTTP/1.", b"1 200 OK\r\n", b"Content-Length: 0\r\n\r\n"])
    run("healthcheck", f"http://127.0.0.1:{port}/v2/health/live?x=1")
    assert got[0].startswith(b"GET /v2/health/live?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port), got
    port, got = answering([b"HTTP/1.1 200 OK\r\n\r\n"])
    run("healthcheck", f"http://localhost:{port}")
    assert got[0].startswith(b"GET / HTTP/1.1\r\n")
    for answer in (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", b"hello\r\n", b"",
                   b"HTTP/1.1 2"):
        run("healthcheck", f"http://127.0.0.1:{answering([answer])[0]}/", code=1)
    start = time.monotonic()
    run("healthcheck", f"http://127.0.0.1:{answering([], seconds=9)[0]}/", code=1)  # accepts and says nothing
    assert 2.5 < time.monotonic() - start < 6
    start = time.monotonic()
    run("healthcheck", f"http://127.0.0.1:{answering([b'x'] * 400)[0]}/", code=1)  # one byte at a time does not help
    assert time.monotonic() - start < 6
    run("healthcheck", "http://127.0.0.1:1/", code=1)
    for bad in ("https://127.0.0.1/", "http://example.org/", "http://localhost.example.org/", "127.0.0.1:80", "http://",
                "http://127.0.0.1:80/a b", "http://127.0.0.1:80/\r\nX: y", "http://127.0.0.1:99999/", "http://localhosts/"):
        run("healthcheck", bad, code=2)


def main():
    if not os.access(QUANTD, os.X_OK):
        sys.exit(f"there is no {QUANTD}: build it first")
    passed = failed = 0
    for name, test in sorted((n, t) for n, t in globals().items() if n.startswith("test_")):
        with tempfile.TemporaryDirectory(prefix="quantd-cli-") as place:
            try:
                test(place)
                passed += 1
                print(f"PASS {name}")
            except (AssertionError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
                failed += 1
                print(f"FAIL {name}: {type(error).__name__}: {error}")
                line = error.__traceback__.tb_next
                print(f"     line {line.tb_lineno if line else '?'}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
