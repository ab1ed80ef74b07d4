"""A server that answers as it is told, for tests of clients: raw bytes for each request, right or wrong. Standard library only."""
import json
import socket
import threading
import time


def reply(body=b"{}", status="200 OK", headers=(), length=None):
    """A whole answer. body: bytes, or anything as JSON."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def binary(answer, tensors, size=None):
    """An infer answer: its JSON, then the bytes of the tensors."""
    head = json.dumps(answer).encode()
    return reply(head + tensors, headers=[f"Inference-Header-Content-Length: {len(head) if size is None else size}"])


class Fake:
    """with Fake(script) as f: f.url, f.asked == [(method, path)].

    script(method, path, body) -> bytes to say (b"": close without a word), a list of bytes to say piece by piece, 0.05 s apart,
    or seconds to keep silent. close: the connection is closed after each answer."""

    def __init__(self, script, close=False):
        self.script, self.close, self.asked, self.over = script, close, [], threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.listener.close()

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            try:
                while self.answer(connection, stream):
                    pass
            except OSError:
                pass  # the client has had enough

    def answer(self, connection, stream):
        first = stream.readline().decode("latin-1").split()
        if len(first) < 2:
            return False
        length = 0
        while line := stream.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = stream.read(length)
        self.asked.append((first[0], first[1]))
        said = self.script(first[0], first[1], body)
        if isinstance(said, (int, float)):
            self.over.wait(said)
            return False
        for piece in said if isinstance(said, list) else [said]:
            connection.sendall(piece)
            if isinstance(said, list):
                if self.over.is_set():
                    return False
                time.sleep(0.05)
        return said != b"" and not self.close
