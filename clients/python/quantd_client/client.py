"""The client: one kept HTTP/1.1 connection, the Open Inference Protocol with binary tensors, quantd's own endpoints."""
import http.client
import json
import select
import socket
import urllib.parse

from . import tensors
from .errors import QuantdError

MAX_REPLY_BYTES = 1 << 30


class Result(dict):
    """The outputs of one inference by name, as arrays, and what the daemon says of it."""

    def __init__(self, outputs, answer):
        super().__init__(outputs)
        parameters = answer.get("parameters") or {}
        self.model_name, self.model_version, self.id = answer.get("model_name"), answer.get("model_version"), answer.get("id")
        self.parameters = parameters
        self.epoch = parameters.get("quant_epoch")  # give it to infer(epoch=) to get the same bytes again
        self.plan = parameters.get("quant_plan")
        self.precision = parameters.get("quant_precision")
        self.guarded = parameters.get("quant_guarded")


class Client:
    """Talks to one quantd at url. timeout: seconds for each wait on the network. One thread at a time: it holds one connection,
    made when needed. Everything raises QuantdError. A GET whose kept connection turns out closed is asked once more; an infer
    and a change never are."""

    def __init__(self, url="http://127.0.0.1:8080", timeout=60.0, max_reply_bytes=MAX_REPLY_BYTES):
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port
        except ValueError as why:
            raise QuantdError(None, f"'{url}' has no port that can be: {why}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise QuantdError(None, f"'{url}' is not http://HOST[:PORT]")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, port, timeout=timeout)
        self._prefix, self._url, self._max = parts.path.rstrip("/"), url, max_reply_bytes
        self._metadata = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes the connection; the next call makes a new one."""
        self._connection.close()

    # -------------------------------------------------------------- questions

    def ready(self, model=None):
        """Whether the daemon, or this model, is ready. An unknown model is an error; a daemon that is not there is not ready."""
        try:
            self._ask("GET", self._path(model, "/ready") if model else "/v2/health/ready")
        except QuantdError as no:
            if no.status == 503 or (no.status is None and isinstance(no.__cause__, OSError)):
                return False
            raise
        return True

    def models(self):
        """[{"name", "version", "state", "reason"}] of all models."""
        return self._json("POST", "/v2/repository/index", kind=list)

    def metadata(self, model):
        """{"name", "versions", "platform", "inputs": [..], "outputs": [..]} of a model."""
        return self._json("GET", self._path(model))

    def ranges(self, model):
        """What the model has learned, a row for each quantized tensor: a pandas.DataFrame with the tensors' names as its index
        and epoch, requests, mode, frozen and averaging_constant in its .attrs; without pandas a list of dicts."""
        answer = self._json("GET", self._path(model, "/ranges"))
        rows = answer.get("tensors")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise QuantdError(None, "the answer has no list of tensors")
        try:
            import pandas
        except ImportError:
            return rows
        frame = pandas.DataFrame(rows)
        frame = frame.set_index("name") if "name" in frame.columns else frame
        if "updated" in frame.columns:
            frame["updated"] = pandas.to_datetime(frame["updated"], utc=True, errors="coerce")
        frame.attrs.update({key: value for key, value in answer.items() if key != "tensors"})
        return frame

    def quantization(self, model):
        """The plan as the daemon tells it: {"plan", "steps": [..], "totals": {..}}."""
        return self._json("GET", self._path(model, "/quantization"))

    def accuracy(self, model):
        """The error against FP32 on the requests that were measured: {"sampled", "cosine", "sqnr_db", "top1_agreement", "layers"}."""
        return self._json("GET", self._path(model, "/accuracy"))

    def export(self, model, format="qdq", epoch=None):
        """What the model has learned, for others: the bytes of a QDQ ONNX model, or for the formats "quantd", "ort-calibration",
        "torch" and "tf" a dict of ranges by tensor (docs/EXPORT.md says what loads them)."""
        query = {"format": format} if epoch is None else {"format": format, "epoch": epoch}
        path = self._path(model, "/export?" + urllib.parse.urlencode(query))
        return self._ask("GET", path)[1] if format == "qdq" else self._json("GET", path)

    # -------------------------------------------------------------- changes

    def set_ranges(self, model, ranges, cuts=False):
        """Serves tensors by given ranges: any table that export() makes, or {tensor: (min, max)}, {tensor: {"scale": s,
        "zero_point": z}}; None takes a tensor's range back. {"epoch", "set", "taken_back", "ignored"}."""
        return self._json("PUT", self._path(model, "/ranges?cuts=true" if cuts else "/ranges"), body=ranges)

    def clear_ranges(self, model, *tensors):
        """Takes given ranges back, of these tensors or of all: they learn again."""
        query = "?" + urllib.parse.urlencode([("tensor", t) for t in tensors]) if tensors else ""
        return self._json("DELETE", self._path(model, "/ranges" + query))

    def freeze(self, model):
        """Stops learning: the model serves its ranges as they stand. {"epoch", "requests", "frozen"}, as the next two."""
        return self._json("POST", self._path(model, "/ranges/freeze"))

    def unfreeze(self, model):
        """Learns again."""
        return self._json("POST", self._path(model, "/ranges/unfreeze"))

    def reset(self, model):
        """Forgets what was learned."""
        return self._json("POST", self._path(model, "/ranges/reset"))

    def configure(self, model, **options):
        """Other options for a model that goes on serving, in force when this returns; the new plan, as quantization() tells it:
        configure("m", guard="clip"), configure("m", precision={"conv1": "fp32", "encoder.*": "int8"}), precision={"conv1": "auto"}
        to take a pin back, layers={"conv1": {"guard": "clip", "weights": {"scheme": "asymmetric"}}, "conv2": None}."""
        return self._json("PATCH", self._path(model, "/quantization"), body=options)

    # -------------------------------------------------------------- what was learned, over time

    def snapshots(self, model):
        """[{"name", "created", "epoch", "requests", "plan", "frozen", "tensors", "bytes", "persisted"}], the oldest first."""
        return self._json("GET", self._path(model, "/ranges/snapshots")).get("snapshots")

    def snapshot(self, model, name):
        """Keeps what was learned under a name; its row of snapshots()."""
        return self._json("POST", self._path(model, "/ranges/snapshots"), body={"name": name})

    def delete_snapshot(self, model, name):
        """Forgets a snapshot."""
        return self._json("DELETE", self._path(model, "/ranges/snapshots/" + urllib.parse.quote(name, safe="")))

    def rollback(self, model, name=None, epoch=None, plan=True):
        """A snapshot, or an epoch that is still kept, in force again as a new epoch. plan=False: the snapshot's ranges only."""
        if (name is None) == (epoch is None):
            raise QuantdError(None, "rollback takes a name or an epoch")
        body = {"epoch": epoch} if name is None else {"name": name, "plan": plan}
        return self._json("POST", self._path(model, "/ranges/rollback"), body=body)

    def diff(self, model, start=None, end=None):
        """How ranges differ between two snapshots (None: now), the largest distance first: {"plan_changed", "tensors": [..]}."""
        return self._json("GET", self._path(model, "/ranges/diff" + self._query({"from": start, "to": end})))

    def drift(self, model, baseline=None, threshold=None):
        """How far ranges are from the baseline snapshot: {"alarm", "distance", "first_mover", "tensors": [..]}."""
        return self._json("GET", self._path(model, "/drift" + self._query({"baseline": baseline, "threshold": threshold})))

    def history(self, model, tensor):
        """[{"time", "epoch", "requests", "min", "max", "ema_min", "ema_max"}] of a tensor, the oldest first."""
        return self._json("GET", self._path(model, f"/ranges/{urllib.parse.quote(tensor, safe='')}/history")).get("points")

    def state(self, model):
        """All that was learned, with the plan's choices: for merge() and set_state() of other replicas."""
        return self._json("GET", self._path(model, "/ranges/state"))

    def set_state(self, model, state, plan=True):
        """Takes another replica's state over, its plan too unless plan=False."""
        return self._json("PUT", self._path(model, "/ranges/state" + ("" if plan else "?plan=false")), body=state)

    def merge(self, model, states, own=True):
        """Averages what replicas have learned. own=False: of these states only, the same on every replica that gets this list."""
        return self._json("POST", self._path(model, "/ranges/merge"), body={"states": list(states), "self": own})

    # -------------------------------------------------------------- inference

    def infer(self, model, inputs=None, *, outputs=None, id=None, epoch=None, precision=None, observe=True, parameters=None,
              **named):
        """The outputs of the model for these inputs, as a Result: infer("digits", image=array) or infer("m", {"a.b": array}).

        Inputs are converted to the model's datatypes where that changes nothing but precision. outputs: names of those wanted,
        all by default. epoch: answer as that epoch of the ranges did. precision="fp32": this answer in full precision.
        observe=False: do not learn from it. parameters: more of the request's, as {"quant_guard": "reject"} or {"quant_mode": "request"}."""
        given = {**(inputs or {}), **named}
        kinds = self._datatypes(model, given)
        described, blobs = [], []
        for name, value in given.items():
            shape, blob = tensors.pack(name, value, kinds[name])
            blobs.append(blob)
            described.append({"name": name, "datatype": kinds[name], "shape": list(shape),
                              "parameters": {"binary_data_size": len(blob)}})
        asked = {"binary_data_output": True, **(parameters or {})}
        for key, value in (("quant_epoch", epoch), ("quant_precision", precision), ("quant_observe", None if observe else False)):
            if value is not None:
                asked[key] = value
        request = {"inputs": described, "parameters": asked}
        if id:
            request["id"] = id
        if outputs is not None:
            request["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
        head = json.dumps(request).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        try:
            reply, body = self._ask("POST", self._path(model, "/infer"), b"".join([head, *blobs]), headers)
        except QuantdError:
            self._metadata.pop(model, None)  # it may have been another model by now
            raise
        return self._result(reply, body)

    def _datatypes(self, model, given):
        """{input: datatype}, from metadata that are kept until an infer fails."""
        if model not in self._metadata or not given.keys() <= self._metadata[model].keys():
            self._metadata[model] = {i["name"]: i["datatype"] for i in self.metadata(model).get("inputs", ())}
        unknown = [name for name in given if name not in self._metadata[model]]
        if unknown:
            raise QuantdError(None, f"model '{model}' has no input '{unknown[0]}', it has {', '.join(self._metadata[model])}")
        return self._metadata[model]

    def _result(self, reply, body):
        size = reply.getheader("Inference-Header-Content-Length", str(len(body)))
        if not size.isascii() or not size.isdigit() or int(size) > len(body):
            raise QuantdError(None, "the answer's Inference-Header-Content-Length can't be")
        size = int(size)
        answer, rest, found = self._parse(body[:size]), memoryview(body)[size:], {}
        try:
            for output in answer["outputs"]:
                n = (output.get("parameters") or {}).get("binary_data_size")
                if n is not None and not 0 <= n <= len(rest):
                    raise QuantdError(None, f"the answer ends before output '{output['name']}' does")
                found[output["name"]] = tensors.unpack(output, None if n is None else rest[:n])
                rest = rest[n or 0:]
        except (KeyError, TypeError, ValueError, AttributeError) as why:
            raise QuantdError(None, f"the answer's outputs make no sense: {type(why).__name__} {why}") from why
        if len(rest):
            raise QuantdError(None, f"{len(rest)} bytes follow the last output")
        return Result(found, answer)

    # -------------------------------------------------------------- HTTP

    @staticmethod
    def _path(model, rest=""):
        if not model:
            raise QuantdError(None, "a model needs a name")
        return "/v2/models/" + urllib.parse.quote(model, safe="") + rest

    @staticmethod
    def _query(values):
        given = {key: value for key, value in values.items() if value is not None}
        return "?" + urllib.parse.urlencode(given) if given else ""

    def _json(self, method, path, kind=dict, body=None):
        if body is None:
            return self._parse(self._ask(method, path)[1], kind)
        return self._parse(self._ask(method, path, json.dumps(body).encode(), {"Content-Type": "application/json"})[1], kind)

    @staticmethod
    def _parse(body, kind=dict):
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as why:
            raise QuantdError(None, f"the answer is not JSON: {why}") from why
        if not isinstance(value, kind):
            raise QuantdError(None, f"the answer is a {type(value).__name__}, not a {kind.__name__}")
        return value

    def _ask(self, method, path, body=None, headers=None):
        """(response, body) of a 200; all else raises."""
        sock = self._connection.sock
        if sock is not None and select.select([sock], [], [], 0)[0]:
            self._connection.close()  # closed by the daemon, or something unasked came
        kept = self._connection.sock is not None
        try:
            try:
                reply, data = self._exchange(method, path, body, headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not kept or method != "GET":
                    raise
                self._connection.close()
                reply, data = self._exchange(method, path, body, headers)
        except socket.timeout as why:
            self._connection.close()
            raise QuantdError(None, f"quantd at {self._url} did not answer in time") from why
        except OSError as why:
            self._connection.close()
            raise QuantdError(None, f"can't reach quantd at {self._url}: {why}") from why
        except (http.client.HTTPException, ValueError) as why:
            self._connection.close()
            raise QuantdError(None, f"the answer can't be read: {type(why).__name__} {why}") from why
        if reply.status != 200:
            raise QuantdError(reply.status, self._sentence(reply.status, data))
        return reply, data

    def _exchange(self, method, path, body, headers):
        if method == "POST" and body is None:
            body = b""
        self._connection.request(method, self._prefix + path, body, headers or {})
        reply = self._connection.getresponse()
        data = reply.read(self._max + 1)
        if len(data) > self._max:
            raise ValueError(f"it is larger than {self._max} bytes")
        if reply.length:  # the announced length did not come
            raise http.client.IncompleteRead(data, reply.length)
        return reply, data

    @staticmethod
    def _sentence(status, data):
        try:
            return str(json.loads(data)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return f"the daemon answered with status {status}"
