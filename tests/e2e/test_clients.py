#!/usr/bin/env python3
"""The clients against a live daemon (both examples, every command of quantctl, the Python client) and against servers that
answer nonsense. Needs numpy; the data frame is tested where pandas is installed."""
import json
import os
import pty
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "clients", "python")]
try:
    import numpy as np
except ImportError:
    print("SKIP: numpy is not installed, the Python client needs it (./quickstart.sh test installs it)")
    sys.exit(77)
import daemon
import serving
from fake import Fake, binary, reply
from quantd_client import Client, QuantdError

BUILD = os.environ.get("TEST_BUILD", os.path.join(ROOT, "build"))
QUANTCTL = os.environ.get("QUANTCTL", os.path.join(BUILD, "quantctl"))
SLOW = float(os.environ.get("TEST_SLOW", "1"))
DIGITS = serving.digits()
IMAGES = np.array([pixels for _, pixels in DIGITS], dtype="<f4").reshape(-1, 1, 28, 28)
LABELS = np.array([label for label, _ in DIGITS])
INPUT = "image=" + json.dumps(DIGITS[0][1])


def program(command, status=0, timeout=60):
    """Runs it, wants that exit status, gives (standard output, standard error)."""
    done = subprocess.run(command, capture_output=True, timeout=timeout * SLOW, env={**os.environ, "LC_ALL": "C.UTF-8"})
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, (command, done.returncode, out[-2000:], err[-2000:])
    return out, err


def ctl(url, *arguments, status=0):
    return program([QUANTCTL, "--url", url, *map(str, arguments)], status)


def warm_up(url):
    """A model that has just begun to learn answers each request under its own ranges; past that, the epoch's."""
    with Client(url) as quantd:
        for image in IMAGES:
            quantd.infer("digits", image=image[None])


def refuses(call, status, word):
    try:
        got = call()
    except QuantdError as error:
        assert error.status == status and word in error.sentence, (error.status, error.sentence)
        return
    raise AssertionError(f"no QuantdError, but {got!r}")


# ------------------------------------------------------------------ against the daemon

def test_example_c(url):
    out, _ = program([os.path.join(BUILD, "examples", "client_example"), url, serving.DIGITS])
    lines = out.splitlines()
    seen = [int(line.split()[-1]) for line in lines if "was seen as" in line]
    right = sum(a == b for a, b in zip(seen, LABELS))
    assert len(seen) == len(LABELS) and right >= 0.9 * len(LABELS), out
    assert f"{right} of {len(LABELS)} right" in out and any(line.split()[:1] == ["image"] for line in lines), out
    _, err = program([os.path.join(BUILD, "examples", "client_example"), "http://127.0.0.1:1", serving.DIGITS], 1)
    assert "can't reach quantd" in err


def test_example_python(url):
    example = os.path.join(ROOT, "clients", "python", "example.py")
    out, _ = program([sys.executable, example, url, serving.DIGITS])
    assert f"of {len(LABELS)} right" in out and "the same again: True" in out and "image" in out, out
    right = int(out.split(f" of {len(LABELS)} right")[0].split()[-1])
    assert right >= 0.9 * len(LABELS), out
    _, err = program([sys.executable, example, "http://127.0.0.1:1", serving.DIGITS], 1)
    assert "can't reach quantd" in err and "Traceback" not in err, err


def test_python_infer(url):
    warm_up(url)
    with Client(url) as quantd:
        assert quantd.ready() and quantd.ready("digits")
        assert [(m["name"], m["state"]) for m in quantd.models()] == [("digits", "READY")]
        assert quantd.metadata("digits")["inputs"][0]["name"] == "image"
        result = quantd.infer("digits", image=IMAGES, id="seven")
        assert set(result) == {"logits", "probabilities"} and result.id == "seven" and result.precision == "int8"
        for array in result.values():
            assert array.shape == (len(LABELS), 10) and array.dtype == np.float32 and array.flags.writeable
        assert (result["logits"].argmax(1) == LABELS).mean() >= 0.9
        assert np.allclose(result["probabilities"].sum(1), 1, atol=1e-3)
        again = dict(epoch=result.epoch, observe=False)
        wide = quantd.infer("digits", {"image": IMAGES.astype("f8")[::-1]}, outputs=["logits"], **again)
        assert list(wide) == ["logits"] and wide["logits"].tobytes() == result["logits"][::-1].tobytes()
        full = quantd.infer("digits", image=IMAGES, precision="fp32", observe=False)
        assert full.precision == "fp32" and 0 < np.abs(full["logits"] - result["logits"]).mean() < 1
        before = quantd.ranges("digits")
        quantd.infer("digits", image=IMAGES * 50, observe=False)
        after = quantd.ranges("digits")
        rows = [r if isinstance(r, list) else r.reset_index().to_dict("records") for r in (before, after)]
        assert [r["ema_max"] for r in rows[0]] == [r["ema_max"] for r in rows[1]]
        assert {"image"} <= {r["name"] for r in rows[0]} and all(r["ema_min"] <= r["ema_max"] for r in rows[0])


def test_python_data_frame(url):
    try:
        import pandas
    except ImportError:
        print("     (pandas is not installed: ranges came as a list of dicts)")
        with Client(url) as quantd:
            rows = quantd.ranges("digits")
        assert isinstance(rows, list) and rows[0]["name"] == "image"
        return
    with Client(url) as quantd:
        frame = quantd.ranges("digits")
    assert isinstance(frame, pandas.DataFrame) and frame.loc["image", "ema_max"] > 0
    assert frame.attrs["model"] == "digits" and frame.attrs["epoch"] > 0 and frame.updated.dt.tz is not None


def test_python_learning(url):
    with Client(url) as quantd:
        quantd.infer("digits", image=IMAGES[:4])
        assert quantd.freeze("digits")["frozen"] is True
        assert quantd.unfreeze("digits")["frozen"] is False
        assert quantd.reset("digits")["requests"] == 0
        plan = quantd.quantization("digits")
        assert plan["plan"] == quantd.infer("digits", image=IMAGES[:4]).plan and plan["steps"]


def test_python_mistakes(url):
    with Client(url) as quantd:
        refuses(lambda: quantd.infer("nobody", image=IMAGES), 404, "nobody")
        refuses(lambda: quantd.ranges("no body?x#"), 404, "no body?x#")
        refuses(lambda: quantd.ranges("no/body"), 400, "slash")
        refuses(lambda: quantd.infer("digits", image=IMAGES[:, :, :27]), 400, "shape")
        refuses(lambda: quantd.infer("digits", picture=IMAGES), None, "no input 'picture'")
        refuses(lambda: quantd.infer("digits", image="seven"), None, "takes FP32")
        refuses(lambda: quantd.infer("digits", image=IMAGES, outputs=["nothing"]), 400, "nothing")
        refuses(lambda: quantd.infer("digits", image=IMAGES, epoch=10 ** 9), 409, "1000000000")
        refuses(lambda: quantd.ready("nobody"), 404, "nobody")
        assert quantd.infer("digits", image=IMAGES[:1])["logits"].shape == (1, 10)  # it survived all of them
    refuses(lambda: Client("ftp://here"), None, "http://")
    refuses(lambda: Client("http://here:99999"), None, "port")


def test_quantctl_reports(url):
    out, _ = ctl(url, "models")
    assert "digits 1 READY" in out and "image FP32 [-1,1,28,28]" in out and "logits FP32 [-1,10]" in out, out
    assert ctl(url, "ready")[0] == "ready\n" and ctl(url, "ready", "digits")[0] == "ready\n"
    with Client(url) as quantd:
        quantd.infer("digits", image=IMAGES)
    out, _ = ctl(url, "ranges", "digits")
    row = next(line for line in out.splitlines() if line.startswith("image"))
    assert "█" in row and "┃" in row and row.split()[-1].endswith("%"), out
    told = json.loads(ctl(url, "ranges", "digits", "--json")[0])
    assert [t["name"] for t in told["tensors"]][0] == "image"
    assert f"epoch {told['epoch']}, {told['requests']} requests" in out, (out, told)
    table = ctl(url, "ranges", "digits", "--csv")[0].splitlines()
    assert table[0].startswith("name,") and len(table) == 1 + len(told["tensors"])
    out, _ = ctl(url, "quantization", "digits")
    assert "conv1" in out and "int8" in out
    assert json.loads(ctl(url, "quantization", "digits", "--json")[0])["plan"] in out
    out, _ = program(["env", f"QUANTD_URL={url}", QUANTCTL, "ready"])
    assert out == "ready\n"
    assert "quantization" in program([QUANTCTL, "help"])[0]


def test_quantctl_watch(url):
    out, _ = ctl(url, "ranges", "digits", "--watch", "0.1", "--count", "3")
    assert out.count("digits: epoch") == 3 and "\x1b" not in out, out
    out, _ = ctl(url, "ranges", "digits", "--watch", "0.1", "--count", "2", "--json")
    assert [json.loads(line)["model"] for line in out.splitlines()] == ["digits"] * 2
    master, slave = pty.openpty()
    with subprocess.Popen([QUANTCTL, "--url", url, "ranges", "digits", "--watch", "0.1", "--count", "3"], stdout=slave,
                          stdin=slave, stderr=slave, env={**os.environ, "LC_ALL": "C.UTF-8"}) as process:
        os.close(slave)
        screen = b""
        try:
            while piece := os.read(master, 65536):
                screen += piece
        except OSError:
            pass  # how a terminal ends
    os.close(master)
    assert process.returncode == 0 and screen.count(b"\x1b[H") == 3, screen
    assert screen.startswith(b"\x1b[?1049h") and screen.endswith(b"\x1b[?1049l") and b"\x1b[36m" in screen


def test_quantctl_infer(url):
    warm_up(url)
    with tempfile.TemporaryDirectory() as place:
        at = lambda name: os.path.join(place, name)
        np.save(at("one.npy"), IMAGES[:1])
        np.save(at("wide.npy"), IMAGES.astype("f8"))
        np.save(at("flat.npy"), IMAGES[0].ravel())
        np.save(at("fortran.npy"), np.asfortranarray(IMAGES))
        np.save(at("text.npy"), np.array(["a"]))
        IMAGES[:2].tofile(at("two.raw"))
        with open(at("one.json"), "w") as f:
            json.dump(IMAGES[:1].tolist(), f)
        first = json.loads(ctl(url, "infer", "digits", "--input", "image=" + at("one.npy"), "--json", "--no-observe")[0])
        assert [o["name"] for o in first["outputs"]] == ["logits", "probabilities"] and first["precision"] == "int8"
        logits = first["outputs"][0]["data"]
        assert int(np.argmax(logits)) == LABELS[0] and first["outputs"][0]["shape"] == [1, 10]
        same = ["--output", "logits", "--json", "--no-observe", "--epoch", first["epoch"]]
        for given in (["image=" + at("one.json")], [INPUT], [at("one.npy")],
                      ["image=" + at("flat.npy"), "--shape", "1,1,28,28"], [INPUT, "--shape", "image=1,1,28,28"]):
            out = json.loads(ctl(url, "infer", "digits", "--input", *given, *same)[0])
            assert [o["data"] for o in out["outputs"]] == [logits], (given, out)
        out = json.loads(ctl(url, "infer", "digits", "--input", "image=" + at("two.raw"), *same)[0])
        assert out["outputs"][0]["shape"] == [2, 10] and out["outputs"][0]["data"][:10] == logits
        ctl(url, "infer", "digits", "--input", "image=" + at("wide.npy"), "--output", "logits=" + at("out.npy"), *same[2:])
        saved = np.load(at("out.npy"))
        assert saved.dtype == np.float32 and saved.shape == (len(LABELS), 10)
        assert saved[0].tolist() == [float(np.float32(v)) for v in logits]
        text, _ = ctl(url, "infer", "digits", "--input", INPUT, "--precision", "fp32")
        assert "logits  FP32 [1,10]" in text and "fp32" in text, text
        mistakes = [([], "--input"), (["--input", "picture=[1]"], "no input 'picture'"), (["--input", "image=[1,2]"], "multiple of 784"),
                    (["--input", "image=" + at("nowhere.npy")], "No such file"), (["--input", "image=" + at("text.npy")], "neither numbers"),
                    (["--input", "image=" + at("fortran.npy")], "Fortran"), (["--input", "image=[[1],[1,2]]"], "differ in length"),
                    (["--input", "image=[1,"], "not JSON"), (["--input", "image=" + "[" * 50 + "]" * 50], "8 deep"),
                    (["--input", INPUT, "--shape", "1,x"], "1,1,28,28"), (["--input", INPUT, "--epoch", "none"], "--epoch"),
                    (["--input", INPUT, "--shape", "9223372036854775807,9"], "needs")]
        for arguments, word in mistakes:
            _, err = ctl(url, "infer", "digits", *arguments, status=2)
            assert word in err and err.count("\n") == 1, (arguments, err)
    _, err = ctl(url, "infer", "digits", "--input", INPUT, "--shape", "1,28,28,1", status=1)
    assert "shape" in err and "(400)" in err, err
    assert "nobody" in ctl(url, "infer", "nobody", "--input", INPUT, status=1)[1]


def test_quantctl_learning(url):
    assert "frozen" in ctl(url, "freeze", "digits")[0]
    with Client(url) as quantd:
        assert quantd.infer("digits", image=IMAGES[:1]) and json.loads(ctl(url, "ranges", "digits", "--json")[0])["frozen"]
    assert ", frozen" in ctl(url, "ranges", "digits")[0]
    assert "learning" in ctl(url, "unfreeze", "digits")[0]
    assert "reset" in ctl(url, "reset", "digits")[0]
    assert "0 requests" in ctl(url, "ranges", "digits")[0]
    for command in ("ranges", "freeze", "unfreeze", "reset", "quantization", "ready"):
        assert "(404)" in ctl(url, command, "nobody", status=1)[1]


def test_ranges_out_and_in(url):
    """Both clients: a table goes out, comes back in by PUT, and is taken back; a QDQ model is written to a file."""
    with Client(url) as quantd, tempfile.TemporaryDirectory() as folder:
        quantd.reset("digits")
        for i in range(12):
            quantd.infer("digits", image=IMAGES[i % len(IMAGES):][:1])
        table, path, model = quantd.export("digits", "quantd"), os.path.join(folder, "r.json"), os.path.join(folder, "m.onnx")
        given = quantd.set_ranges("digits", table)
        assert given["set"] == len(table["tensors"]) and given["ignored"] == 0, given
        assert quantd.clear_ranges("digits", table["tensors"][0]["name"])["taken_back"] == 1
        assert quantd.clear_ranges("digits")["taken_back"] == len(table["tensors"]) - 1
        assert quantd.set_ranges("digits", {"image": (0, 1)}, cuts=True)["set"] == 1
        assert quantd.set_ranges("digits", {"image": None})["taken_back"] == 1
        ctl(url, "export", "digits", "--format", "torch", "--file", path)
        assert f"{len(table['tensors'])} tensors given" in ctl(url, "set-ranges", "digits", "--file", path)[0]
        assert f"{len(table['tensors'])} tensors taken back" in ctl(url, "clear-ranges", "digits")[0]
        ctl(url, "export", "digits", "--file", model)
        with open(model, "rb") as f:
            assert f.read() == quantd.export("digits")
        assert json.loads(ctl(url, "export", "digits", "--format", "tf")[0])["image"]["num_bits"] == 8
        assert "(400)" in ctl(url, "export", "digits", "--format", "x", status=1)[1]
        assert "(409)" in ctl(url, "export", "digits", "--epoch", "99999", status=1)[1]
        assert ctl(url, "set-ranges", "digits", "--file", path + "2", status=2)[1]
        assert ctl(url, "set-ranges", "digits", status=2)[1]
        quantd.reset("digits")


def test_time_machine(url):
    """Snapshots, diff, rollback, drift, state and merge, by quantctl and in Python."""
    warm_up(url)
    with Client(url) as quantd, tempfile.TemporaryDirectory() as folder:
        assert "snapshot made" in ctl(url, "snapshot", "digits", "baseline")[0]
        assert [s["name"] for s in quantd.snapshots("digits")] == ["baseline"]
        assert "baseline" in ctl(url, "snapshots", "digits")[0]
        assert "below the threshold" in ctl(url, "drift", "digits")[0]
        for image in IMAGES[:8]:
            quantd.infer("digits", image=image[None] * 20)
        out, _ = ctl(url, "drift", "digits", status=1)
        first = quantd.drift("digits")
        assert "above the threshold" in out and first["alarm"] and first["first_mover"] in out, (out, first)
        assert "changed" in ctl(url, "diff", "digits", "baseline")[0]
        assert json.loads(ctl(url, "diff", "digits", "baseline", "baseline", "--json")[0])["tensors"][0]["distance"] == 0
        assert quantd.diff("digits", "baseline")["tensors"][0]["distance"] > 0
        state, _ = ctl(url, "state", "digits")
        assert "rolled back" in ctl(url, "rollback", "digits", "baseline")[0]
        assert quantd.diff("digits", "baseline")["tensors"][0]["distance"] == 0
        with open(folder + "/state.json", "w", encoding="utf-8") as f:
            f.write(state)
        assert "0 states merged, 1 known already" in ctl(url, "merge", "digits", folder + "/state.json")[0]
        assert "1 states merged" in ctl(url, "merge", "digits", "--no-self", folder + "/state.json")[0]
        assert quantd.diff("digits", "baseline")["tensors"][0]["distance"] > 0
        assert quantd.merge("digits", [quantd.state("digits")], own=False)["merged"] == 1
        assert quantd.rollback("digits", "baseline")["epoch"] == quantd.set_state("digits", quantd.state("digits"))["epoch"] - 1
        assert quantd.history("digits", first["first_mover"])
        assert "forgotten" in ctl(url, "snapshot", "digits", "baseline", "--delete")[0]
        assert quantd.snapshot("digits", "x")["name"] == "x" and quantd.delete_snapshot("digits", "x")["deleted"] == "x"
        refuses(lambda: quantd.rollback("digits", "x"), 404, "no snapshot 'x'")
        refuses(lambda: quantd.rollback("digits"), None, "name or an epoch")
        assert "(404)" in ctl(url, "rollback", "digits", "x", status=1)[1]
        assert "letters" in ctl(url, "diff", "digits", "a&b", status=2)[1]
        for arguments in (["rollback", "digits"], ["merge", "digits"], ["snapshot", "digits", "a", "b"]):
            ctl(url, *arguments, status=2)
        assert "no state" in ctl(url, "merge", "digits", "/nowhere.json", status=2)[1]


def test_quantctl_wrong_use(url):
    for arguments in ([], ["dance"], ["freeze"], ["models", "digits"], ["models", "--json"], ["ranges", "digits", "--json", "--csv"],
                      ["ranges", "digits", "--watch", "0"], ["--timeout", "-1", "ready"], ["--json", "ready"], ["ready", "--url"]):
        out, err = ctl(url, *arguments, status=2)
        assert err.startswith("quantctl: ") and not out, (arguments, out, err)
    for wrong in ("https://127.0.0.1", "http://", "127.0.0.1", "http://u@h", "http://h:0", "http://h:1x", "http://h/?q", "http://a b"):
        assert ctl(wrong, "ready", status=2)[1], wrong


def test_daemon_gone(url):
    with daemon.start() as d:
        own = f"http://127.0.0.1:{d.port}"
        quantd = Client(own)
        while not quantd.ready():
            time.sleep(0.05)
        quantd.infer("digits", image=IMAGES[:1])
        assert d.stop() == 0
    refuses(lambda: quantd.infer("digits", image=IMAGES[:1]), None, "can't reach quantd")
    assert quantd.ready() is False
    assert "can't reach quantd" in ctl(own, "ready", status=3)[1]
    assert "can't find the host" in ctl("http://no.such.host.invalid", "ready", status=3)[1]


# ------------------------------------------------------------------ against servers that answer nonsense

HEAD = b"HTTP/1.1 200 OK\r\n"
NONSENSE = [  # what it says to GET /ranges (then it closes); a word of quantctl's sentence
    (b"", "closed the connection"), (b"what?\r\n\r\n", "not HTTP/1.1"), (b"HTTP/2.0 200 OK\r\n\r\n", "not HTTP/1.1"),
    (b"HTTP/1.1 2x0 OK\r\n\r\n", "not HTTP/1.1"), (HEAD + b"Content-Le", "middle of its answer"),
    (HEAD + b"Content-Length: 100\r\n\r\n{", "middle of its answer"), (HEAD + b"Content-Length: -1\r\n\r\n{}", "length"),
    (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}", "length"), (HEAD + b"Content-Length: 0x2\r\n\r\n{}", "length"),
    (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "length"),
    (HEAD + b"Content-Length: 1099511627776\r\n\r\n{}", "larger than"), (HEAD + b"X: " + b"a" * 9000 + b"\r\n\r\n", "too long"),
    (HEAD + b"X: y\r\n" * 1000 + b"\r\n", "too many"), (HEAD + b"no colon\r\n\r\n", "no name"), (HEAD + b"X: \0\r\n\r\n", "zero byte"),
    (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", "transfer encoding"), (HEAD + b"Content-Encoding: gzip\r\n\r\n", "compressed"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk"), (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n", "chunk"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "larger than"),
    (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}", "length and chunks"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 50, "never comes to the point"), (reply(b"[1,2"), "not JSON"), (reply(b""), "not JSON"),
    (reply(b"[" * 100000), "not JSON"), (reply(b"[]"), "no JSON object"), (reply({"model": 3}), '"model"'), (reply(b'{"a":1,"a":2}'), "not JSON"),
]
RANGES = {"model": "digits", "mode": "ema", "epoch": 1, "requests": 1, "frozen": False, "tensors": []}
RANGE = {**dict.fromkeys(["ema_min", "observed_min", "last_min", "clipped_ratio", "utilization"], 0.0), "scale": 0.1, "zero_point": 0,
         **dict.fromkeys(["ema_max", "observed_max", "last_max"], 1e308), "mode": "ema", "scheme": "", "dtype": "", "granularity": "",
         **dict.fromkeys(["observations", "elements", "clipped_low", "clipped_high", "nonfinite", "guarded"], 1), "name": "a\x1b[2Jb"}


def test_nonsense_to_quantctl(_url):
    for said, word in NONSENSE + [(reply({**RANGES, "tensors": [{**RANGE, "scale": "x"}]}), '"scale"'), (reply({**RANGES, "tensors": {}}), "list")]:
        with Fake(lambda *_: said, close=True) as fake:
            out, err = ctl(fake.url, "ranges", "digits", status=3)
        assert word in err and err.count("\n") == 1 and not out, (said[:80], err)


def test_nonsense_to_python(_url):
    for said, _ in NONSENSE:
        with Fake(lambda *_: said, close=True) as fake, Client(fake.url, timeout=5, max_reply_bytes=1 << 20) as quantd:
            try:
                rows = quantd.ranges("digits")
            except QuantdError as error:
                assert error.status is None, (said[:80], error)
            else:  # what http.client forgives must still not look like ranges
                raise AssertionError((said[:80], rows))


OUTPUT = {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
ANSWER = {"model_name": "digits", "outputs": [OUTPUT]}


def spoiled(**more):
    return {**ANSWER, "outputs": [{**OUTPUT, **more}]}


BAD_ANSWERS = [
    binary(ANSWER, b"1234567"), binary(ANSWER, b"123456789"), binary(ANSWER, b"12345678", 10 ** 6), binary(ANSWER, b"12345678", "-1"),
    binary(spoiled(shape=[3]), b"12345678"), binary(spoiled(shape=[2 ** 62, 8]), b"12345678"), binary(spoiled(shape=[-1]), b"12345678"),
    binary(spoiled(shape=2), b"12345678"), binary(spoiled(datatype="FP31"), b"12345678"), binary(spoiled(name=3, shape=None), b"12345678"),
    binary(spoiled(parameters={"binary_data_size": -8}), b""), binary(spoiled(parameters={"binary_data_size": 2 ** 63 - 1}), b"12345678"),
    binary({**ANSWER, "outputs": "none"}, b""), binary({**ANSWER, "outputs": [7]}, b""), binary([ANSWER], b"12345678"),
    binary(spoiled(parameters={"binary_data_size": "8"}), b"12345678"),
]
METADATA = reply({"name": "digits", "platform": "p", "outputs": [], "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1]}]})


def test_nonsense_as_an_answer(_url):
    good = binary(ANSWER, np.array([1.5, -2], "<f4").tobytes())
    for said in [good] + BAD_ANSWERS:
        with Fake(lambda method, *_: METADATA if method == "GET" else said) as fake, Client(fake.url, timeout=5) as quantd:
            out, err = ctl(fake.url, "infer", "digits", "--input", "image=[1,2]", "--json", status=0 if said is good else 3)
            if said is good:
                assert json.loads(out)["outputs"][0]["data"] == [1.5, -2]
                assert quantd.infer("digits", image=[1, 2])["y"].tolist() == [1.5, -2]
            else:
                assert err.count("\n") == 1, err
                refuses(lambda: quantd.infer("digits", image=[1, 2]), None, "")


def test_odd_but_right_answers(_url):
    body = json.dumps(RANGES).encode()
    chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]) for i in range(0, len(body), 7))
    for said in (b"HTTP/1.1 100 Continue\r\n\r\n" + reply(RANGES), b"HTTP/1.0 200 OK\r\n\r\n" + body,
                 HEAD + b"transfer-encoding: Chunked\r\n\r\n" + chunks + b"0\r\nTrailer: x\r\n\r\n",
                 [bytes([c]) for c in HEAD] + [b"content-length:%d\r\n\r\n" % len(body), body]):
        with Fake(lambda *_: said, close=True) as fake:
            assert "digits: epoch 1, 1 requests" in ctl(fake.url + "/some/prefix/", "ranges", "digits")[0]
        assert fake.asked == [("GET", "/some/prefix/v2/models/digits/ranges")], fake.asked
    with Fake(lambda *_: reply({**RANGES, "tensors": [RANGE, {**RANGE, "ema_min": -1e308, "observed_min": -1e308}]})) as fake:
        out, _ = ctl(fake.url, "ranges", "digits")
        assert "\x1b" not in out and "a?[2Jb" in out, out  # no name reaches the terminal as a command
    with Fake(lambda *_: reply({"error": "\x1b[31mdown"}, "503 No")) as fake:
        assert ctl(fake.url, "ready", status=1)[0] == "not ready: ?[31mdown\n"
        assert Client(fake.url).ready() is False
    with Fake(lambda *_: reply(b"<html>", "502 Bad Gateway")) as fake:
        assert "status 502 (502)" in ctl(fake.url, "models", status=1)[1]
        refuses(Client(fake.url).models, 502, "status 502")


def test_slow_servers(_url):
    endless = [HEAD] + [b"X: y\r\n"] * 100
    for said in (60, endless):
        with Fake(lambda *_: said) as fake:
            start = time.monotonic()
            assert "in time" in ctl(fake.url, "--timeout", "0.5", "ready", status=3)[1]
            assert 0.4 < time.monotonic() - start < 3 * SLOW
    with Fake(lambda *_: 60) as fake:
        refuses(Client(fake.url, timeout=0.3).models, None, "in time")


def test_only_questions_are_repeated(_url):
    """The kept connection is closed just when the second request was sent: a GET goes out again, a POST never."""
    for method in ("GET", "POST"):
        seen = []

        def script(*_):
            seen.append(1)
            return b"" if len(seen) == 2 else reply(RANGES) if method == "GET" else METADATA

        with Fake(script) as fake:
            if method == "GET":
                out, _ = ctl(fake.url, "ranges", "digits", "--watch", "0.1", "--count", "2")
                assert out.count("digits: epoch 1") == 2 and len(fake.asked) == 3, (out, fake.asked)
            else:
                assert "closed the connection" in ctl(fake.url, "infer", "digits", "--input", "image=[1]", status=3)[1]
                assert [m for m, _ in fake.asked] == ["GET", "POST"], fake.asked
        del seen[:]
        with Fake(script) as fake, Client(fake.url) as quantd:
            if method == "GET":
                assert len(quantd.ranges("digits")) == len(quantd.ranges("digits")) == 0 and len(fake.asked) == 3
            else:
                refuses(lambda: quantd.infer("digits", image=[1]), None, "can't reach")
                assert [m for m, _ in fake.asked] == ["GET", "POST"], fake.asked


def main():
    tests = [test_example_c, test_example_python, test_python_infer, test_python_data_frame, test_python_learning, test_python_mistakes,
             test_quantctl_reports, test_quantctl_watch, test_quantctl_infer, test_quantctl_learning, test_ranges_out_and_in, test_time_machine,
             test_quantctl_wrong_use,
             test_daemon_gone, test_nonsense_to_quantctl, test_nonsense_to_python, test_nonsense_as_an_answer,
             test_odd_but_right_answers, test_slow_servers, test_only_questions_are_repeated]
    with daemon.start("--guard", "clip") as d:  # so that a digit is answered alike alone and among others
        url = f"http://127.0.0.1:{d.port}"
        while not Client(url).ready():
            time.sleep(0.05)
        return serving.run(tests, url)


if __name__ == "__main__":
    sys.exit(main())
