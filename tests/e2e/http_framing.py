#!/usr/bin/env python3
# timeout: 120
"""The table of raw requests: hostile or odd framing, each with the answer it must get. Behind a proxy a lax answer to any of
them is request smuggling, so the number of answers and whether the connection was closed count as much as the status."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import daemon  # noqa: E402
from serving import run  # noqa: E402

KEEP, CLOSE = False, True
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"


def get(target=b"/v2/health/live", headers=b"Host: a\r\n", version=b"HTTP/1.1"):
    return b"GET " + target + b" " + version + b"\r\n" + headers + b"\r\n"


def post(headers, body=b"", target=b"/v2/repository/index"):
    return b"POST " + target + b" HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"
CL2 = b"Content-Length: 2\r\n"

# (name, bytes, statuses in order, closed afterwards). A smuggled GET behind a bad request must never be answered.
TABLE = [
    ("one GET", GET, [200], KEEP),
    ("3 GETs in a row", GET * 3, [200] * 3, KEEP),
    ("3 POSTs in a row", post(CL2, b"{}") * 3, [200] * 3, KEEP),
    ("chunked", post(CHUNKED, CHUNKS) + GET, [200, 200], KEEP),
    ("chunk extension", post(CHUNKED, b"2;a=b\r\n{}\r\n0\r\n\r\n") + GET, [200, 200], KEEP),
    ("chunked and a length", post(b"Content-Length: 4\r\n" + CHUNKED, CHUNKS) + GET, [400], CLOSE),
    ("a length and chunked", post(CHUNKED + b"Content-Length: 4\r\n", CHUNKS) + GET, [400], CLOSE),
    ("two lengths that differ", post(CL2 + b"Content-Length: 20\r\n", b"{}") + GET, [400], CLOSE),
    ("two equal lengths", post(CL2 * 2, b"{}") + GET, [400], CLOSE),
    ("length +2", post(b"Content-Length: +2\r\n", b"{}") + GET, [400], CLOSE),
    ("length 2abc", post(b"Content-Length: 2abc\r\n", b"{}") + GET, [400], CLOSE),
    ("length -1", post(b"Content-Length: -1\r\n", b"{}") + GET, [400], CLOSE),
    ("length 10^23", post(b"Content-Length: 1" + b"0" * 23 + b"\r\n", b"{}") + GET, [413], CLOSE),
    ("length 2^31", post(b"Content-Length: 2147483648\r\n") + GET, [413], CLOSE),
    ("length 2^32 + 2", post(b"Content-Length: 4294967298\r\n", b"{}") + GET, [413], CLOSE),
    ("length 2^63", post(b"Content-Length: 9223372036854775808\r\n", b"{}") + GET, [413], CLOSE),
    ("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNKS) + GET, [400], CLOSE),
    ("xchunked", post(b"Transfer-Encoding: xchunked\r\n", CHUNKS) + GET, [400], CLOSE),
    ("xchunked and a length", post(b"Transfer-Encoding: xchunked\r\n" + CL2, b"{}") + GET, [400], CLOSE),
    ("chunked twice", post(CHUNKED * 2, CHUNKS) + GET, [400], CLOSE),
    ("chunked in HTTP/1.0", post(CHUNKED, CHUNKS).replace(b"HTTP/1.1", b"HTTP/1.0") + GET, [400], CLOSE),
    ("chunk size ZZ", post(CHUNKED, b"ZZ\r\n{}\r\n0\r\n\r\n") + GET, [400], CLOSE),
    ("chunk size of 17 digits", post(CHUNKED, b"F" * 17 + b"\r\n{}\r\n0\r\n\r\n") + GET, [413], CLOSE),
    ("bare line feeds", b"GET /v2/health/live HTTP/1.1\nHost: a\n\n", [200], KEEP),  # RFC 9112, 2.2 allows it
    ("no Host", get(headers=b""), [400], CLOSE),
    ("two Hosts", get(headers=b"Host: a\r\nHost: b\r\n"), [400], CLOSE),
    ("HTTP/1.0", get(headers=b"", version=b"HTTP/1.0"), [200], CLOSE),
    ("HTTP/2.0", get(version=b"HTTP/2.0"), [505], CLOSE),
    ("blank behind a name", get(headers=b"Host: a\r\nFoo : b\r\n"), [400], CLOSE),
    ("folded line", get(headers=b"Host: a\r\nFoo: b\r\n c\r\n"), [200], KEEP),  # replaced by a blank, RFC 9112, 5.2
    ("NUL in a name", get(headers=b"Host: a\r\nF\x00o: b\r\n"), [400], CLOSE),
    ("bare CR in a value", get(headers=b"Host: a\r\nFoo: b\rX: c\r\n"), [400], CLOSE),
    ("control byte in a value", get(headers=b"Host: a\r\nFoo: b\x0bc\r\n"), [400], CLOSE),
    ("header of 200 KB", get(headers=b"Host: a\r\nFoo: " + b"a" * 200000 + b"\r\n"), [431], CLOSE),
    ("header of 40 KB", get(headers=b"Host: a\r\nFoo: " + b"a" * 40000 + b"\r\n"), [431], CLOSE),
    ("header of 30 KB", get(headers=b"Host: a\r\nFoo: " + b"a" * 30000 + b"\r\n"), [200], KEEP),
    ("200 KB of headers", get(headers=b"Host: a\r\n" + (b"Foo: " + b"a" * 500 + b"\r\n") * 100) + GET, [431], CLOSE),
    ("128 headers", get(headers=b"Host: a\r\n" + b"A: b\r\n" * 127), [200], KEEP),
    ("129 headers", get(headers=b"Host: a\r\n" + b"A: b\r\n" * 128) + GET, [431], CLOSE),
    ("500 headers", get(headers=b"Host: a\r\n" + b"A: b\r\n" * 500) + GET, [431], CLOSE),
    ("target of 40 KB", get(b"/" + b"a" * 40000) + GET, [414], CLOSE),
    ("target of 5 KB", get(b"/v2?" + b"a" * 5000) + GET, [414], CLOSE),
    ("target of 3 KB", get(b"/v2?" + b"a" * 3000), [200], KEEP),
    ("%00 in the path", get(b"/v2/health/li%00ve"), [400], CLOSE),
    ("%00 behind the path", get(b"/v2/health/live%00"), [400], CLOSE),
    ("NUL in the target", get(b"/v2/health/live\x00x") + GET, [400], CLOSE),
    ("%2e%2e in the path", get(b"/v2/models/%2e%2e/health/live"), [400], CLOSE),
    (".. in the path", get(b"/v2/models/../health/live"), [400], CLOSE),
    (". in the path", get(b"/v2/./health/live"), [400], CLOSE),
    ("%2f in the path", get(b"/v2%2fhealth/live"), [400], CLOSE),
    ("two slashes", get(b"/v2//health/live"), [400], CLOSE),
    ("bad escape", get(b"/v2/health/l%zzve"), [400], CLOSE),
    ("encoded letter", get(b"/v2/health/l%69ve"), [200], KEEP),
    ("whole address as target", get(b"http://a/v2/health/live"), [400], CLOSE),
    ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", [400], CLOSE),
    ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", [400], CLOSE),
    ("TRACE", b"TRACE /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n", [405], KEEP),
    ("unknown method", b"BREW /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n", [405], KEEP),
    ("unknown path", post(CL2, b"{}", b"/nowhere") + GET, [404, 200], KEEP),
    ("query is ignored", get(b"/v2/health/live?q=1+2&a=%20b"), [200], KEEP),
    ("a slash at the end", get(b"/v2/"), [200], KEEP),
    ("unknown expectation", post(CL2 + b"Expect: foo\r\n", b"{}"), [200], KEEP),
    ("a length over the limit", post(b"Content-Length: 70000000\r\n", b"{}" * 50, b"/v2/models/digits/infer") + GET, [413], CLOSE),
    ("gzip", post(CL2 + b"Content-Encoding: gzip\r\n", b"{}") + GET, [415, 200], KEEP),
]
# libmicrohttpd before 1.0 cuts a value at a NUL byte without telling: what it frames by is what we see.
CUT = [
    ("NUL in a value", get(headers=b"Host: a\r\nFoo: b\x00c\r\n"), ([200], [400])),
    ("NUL in a length", post(b"Content-Length: 2\x003\r\n", b"{}") + GET, ([200, 200], [400])),
    ("NUL in an encoding", post(b"Transfer-Encoding: chunked\x00, x\r\n", CHUNKS) + GET, ([200, 200], [400])),
]
SILENT = [  # closed without an answer, or with 400: never with 200, never left open
    ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n" * 10),
    ("no version", b"GET /v2/health/live\r\n\r\n"),
]


def test_table(d):
    wrong = []
    for name, data, statuses, closed in TABLE:
        out, was_closed = d.talk(data, 0.3 * daemon.SLOW if closed is KEEP else 5, count=len(statuses) + 1 if closed is KEEP else None)
        got = daemon.answers(out)
        if [a[0] for a in got] != statuses or was_closed != closed:
            wrong.append(f"{name}: {[a[0] for a in got]}, closed: {was_closed}; {statuses}, closed: {closed} is right")
        for status, headers, body in got:
            # libmicrohttpd's own answers are in HTML, and before 1.0 the head comes twice; the connection is closed behind them.
            if status in (400, 404, 405, 414, 415, 431) and not body.startswith((b"<html>", b"HTTP/1.1 ")):
                if headers.get("content-type") != "application/json" or not body.startswith(b'{"error":"'):
                    wrong.append(f"{name}: answered {headers} {body[:100]}")
    assert not wrong, "\n".join(wrong)
    print(f"     {len(TABLE)} requests")


def test_silent_table(d):
    for name, data in SILENT:
        out, closed = d.talk(data, 15)
        assert closed and not out.startswith(b"HTTP/1.1 2"), (name, out[:100], closed)


def test_values_that_are_cut(d):
    for name, data, allowed in CUT:
        got = [a[0] for a in daemon.answers(d.talk(data, 0.5 * daemon.SLOW)[0])]
        assert got in allowed, (name, got)


def test_byte_by_byte(d):
    """The same answer when every byte comes alone."""
    out, _ = d.talk(None, 5, pieces=[bytes([b]) for b in post(CHUNKED, CHUNKS) + GET], count=2)
    assert [a[0] for a in daemon.answers(out)] == [200, 200], out


def test_head(d):
    with d.connect() as s:
        s.sendall(GET.replace(b"GET", b"HEAD") + b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        out, _ = daemon.read_all(s, 0.5 * daemon.SLOW)
    got = daemon.answers(out, head=True)
    assert [a[0] for a in got] == [200, 200] and got[0][1]["content-length"] == "13" and b'{"live"' not in out, out


def test_not_allowed_and_encoding(d):
    got = daemon.answers(d.talk(post(CL2, b"{}", b"/v2/health/live"), 5, count=1)[0])
    assert got[0][0] == 405 and got[0][1]["allow"] == "GET, HEAD", got
    got = daemon.answers(d.talk(post(CL2 + b"Content-Encoding: br\r\n", b"{}"), 5, count=1)[0])
    assert got[0][0] == 415 and b"'br'" in got[0][2] and got[0][1]["accept-encoding"] == "identity", got
    expect = b"Expect: 100-continue\r\n"  # the same headers when it is answered before the body
    got = daemon.answers(d.talk(post(CL2 + expect, target=b"/v2/health/live"), 5)[0])
    assert got[0][0] == 405 and got[0][1]["allow"] == "GET, HEAD", got
    got = daemon.answers(d.talk(post(CL2 + expect + b"Content-Encoding: br\r\n", target=b"/v2/models/digits/infer"), 5)[0])
    assert got[0][0] == 415 and got[0][1]["accept-encoding"] == "identity", got


def test_expect_continue(d):
    head = post(CL2 + b"Expect: 100-continue\r\n")
    with d.connect() as s:
        s.sendall(head)
        s.settimeout(5)
        assert s.recv(1000).startswith(b"HTTP/1.1 100 "), "no interim answer"
        s.sendall(b"{}")
        assert daemon.answers(daemon.read_all(s, 5, 1)[0])[0][0] == 200
    for target, length, status in ((b"/v2/models/digits/infer", b"70000000", 413), (b"/nowhere", b"2", 404),
                                   (b"/v2/models/nobody/infer", b"2", 404)):
        out, closed = d.talk(post(b"Expect: 100-continue\r\nContent-Length: " + length + b"\r\n", target=target), 5)
        assert closed and b" 100 " not in out and daemon.answers(out)[0][0] == status, (target, out)


if __name__ == "__main__":
    with daemon.start() as running:
        status = run([test_table, test_silent_table, test_values_that_are_cut, test_byte_by_byte, test_head, test_not_allowed_and_encoding, test_expect_continue],
                     running)
    sys.exit(status)
