"""Models and tensors as protocol-buffers bytes, so that tests of the daemon need only the standard library."""
import struct


def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def number(field, n):
    return varint(field << 3) + varint(n)


def text(field, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def tensor(values, shape, name="", dtype=1, code="f"):
    out = b"".join(number(1, d) for d in shape) + number(2, dtype) + text(8, name)
    return out + text(9, struct.pack(f"<{len(values)}{code}", *values))


def value(name, shape, dtype=1):
    dims = b"".join(text(1, text(2, d) if isinstance(d, str) else number(1, d)) for d in shape)
    return text(1, name) + text(2, text(1, number(1, dtype) + text(2, dims)))


def model(op, shape=("n", 3), opset=13):
    node = text(1, "x") + text(2, "y") + text(3, "the_node") + text(4, op)
    graph = text(1, node) + text(2, "g") + text(11, value("x", shape)) + text(12, value("y", shape))
    return number(1, 8) + text(7, graph) + text(8, text(1, "") + number(2, opset))
