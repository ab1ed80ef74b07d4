"""The datatypes of the protocol and the bytes of tensors. Everything is little-endian and row-major."""
import numpy as np

from .errors import QuantdError

DTYPES = {"BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
          "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


def _pack_bytes(array):
    parts = []
    for one in array.ravel():
        one = one.encode() if isinstance(one, str) else bytes(one)
        parts.append(len(one).to_bytes(4, "little") + one)
    return b"".join(parts)


def _unpack_bytes(data, count):
    items, at = np.empty(count, dtype=object), 0
    for i in range(count):
        end = at + 4 + int.from_bytes(data[at:at + 4], "little")
        if at + 4 > len(data) or end > len(data):
            raise QuantdError(None, "a BYTES output ends too early")
        items[i], at = bytes(data[at + 4:end]), end
    if at != len(data):
        raise QuantdError(None, "a BYTES output is longer than its shape")
    return items


def _to_bf16(array):
    """The upper halves of float32, rounded to even; NaN stays NaN."""
    bits = array.astype("<f4").view("<u4")
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return np.where(np.isnan(array), np.uint16(0x7FC0), rounded).astype("<u2")


def pack(name, value, datatype):
    """(shape, bytes) of a value in the datatype that the model takes. A number may lose precision (float64 to FP32, as numpy's
    "same_kind" allows), never its kind: a float for an INT32 input is refused."""
    array = np.asarray(value)
    if datatype == "BYTES":
        return array.shape, _pack_bytes(array.astype(object))
    if datatype == "BF16":
        return array.shape, _to_bf16(array).tobytes()
    if datatype not in DTYPES:
        raise QuantdError(None, f"input '{name}' is of the unknown datatype {datatype}")
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, DTYPES[datatype], "same_kind"):
        raise QuantdError(None, f"input '{name}' is {array.dtype}, the model takes {datatype}")
    with np.errstate(over="ignore"):  # a float64 too large for FP32 becomes Inf, and the daemon has a rule for that
        return array.shape, array.astype(DTYPES[datatype], order="C").tobytes()


def unpack(output, data):
    """One output of an answer: its binary part `data`, or JSON when data is None."""
    name, datatype, shape = output["name"], output["datatype"], tuple(output["shape"])
    count = 1
    for size in shape:
        if not isinstance(size, int) or size < 0:
            raise QuantdError(None, f"output '{name}' has no shape that can be")
        count *= size
    if data is None:
        array = np.array(output["data"], dtype=DTYPES.get(datatype, object))
    elif datatype == "BYTES":
        array = _unpack_bytes(data, count)
    elif datatype == "BF16" and len(data) == 2 * count:
        array = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    elif datatype in DTYPES and len(data) == np.dtype(DTYPES[datatype]).itemsize * count:
        array = np.frombuffer(data, DTYPES[datatype]).copy()  # aligned, writable, and the whole answer can go
    else:
        raise QuantdError(None, f"output '{name}' has {len(data)} bytes, which is not what its shape in {datatype} needs")
    if array.size != count:
        raise QuantdError(None, f"output '{name}' has {array.size} elements, its shape needs {count}")
    return array.reshape(shape)
