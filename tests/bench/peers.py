#!/usr/bin/env python3
"""Who takes part in the benchmark: one class a peer, each of them optional.

A peer makes its own form of a model (`prepare`, in a child of its own, kept between runs) and then answers the line
protocol of runner.c: quantd and ONNX Runtime through runner.c itself, the others by `serve` below. What a peer can't
take it refuses with a sentence, which the tables show. models.py lets them take turns; nothing here measures.

    peers.py prepare PEER MODEL-JSON        peers.py serve PEER FILE THREADS
"""
import glob
import importlib.metadata
import json
import os
import statistics
import sys
import time


class Refused(Exception):
    """One sentence: why this peer can't run this model."""


class Model:
    """A model, its folders of real inputs, the one that is timed, and a place for what peers make of it."""

    def __init__(self, name, path, sets, timed, work, accuracy=True):
        self.name, self.path, self.sets, self.timed, self.work, self.accuracy = name, path, sets, timed, work, accuracy

    @property
    def calibration(self):
        """Every other set: what static peers calibrate on, and what quantd is warmed up with."""
        return self.sets[::2]

    def made(self, name):
        return os.path.join(self.work, name)


def load_tensors(folder, kind="input"):
    """[(name, array)] of one folder's input_*.pb or output_*.pb, in order."""
    import onnx
    from onnx import numpy_helper

    tensors = []
    while os.path.exists(path := os.path.join(folder, f"{kind}_{len(tensors)}.pb")):
        tensor = onnx.load_tensor(path)
        tensors.append((tensor.name, numpy_helper.to_array(tensor)))
    return tensors


class Peer:
    name = label = ""
    kind = "int8"  # or "fp32"
    package = None  # what must be installed
    uses_amx = False  # measured a second time with AMX where there is any
    several = True  # measured on all cores as well
    frozen = False  # quantd's mode `static`: needs quantd_ema beside it

    def version(self):
        try:
            return importlib.metadata.version(self.package) if self.package else None
        except importlib.metadata.PackageNotFoundError:
            raise Refused(f"{self.package} is not installed") from None

    def file(self, model):
        return model.path

    def prepare(self, model):
        """Writes self.file(model)."""

    def command(self, build, model, threads):
        return [sys.executable, os.path.abspath(__file__), "serve", self.name, self.file(model), str(threads)]


# ---------------------------------------------------------------- through runner.c
class Quantd(Peer):
    def __init__(self, name, label, precision="int8", frozen=False):
        self.name, self.label, self.precision, self.frozen = name, label, precision, frozen
        self.kind, self.several, self.uses_amx = "quantd", name == "quantd_ema", precision == "int8"

    def command(self, build, model, threads):
        return [f"{build}/tests/bench/runner", "quantd", model.path, "--precision", self.precision, "--threads", str(threads)]


class OnnxRuntime(Peer):
    name, label, kind, package = "ort_fp32", "ONNX Runtime FP32", "fp32", "onnxruntime"

    def library(self):
        import onnxruntime

        return glob.glob(os.path.join(os.path.dirname(onnxruntime.__file__), "capi", "libonnxruntime.so*"))[0]

    def command(self, build, model, threads):
        return [f"{build}/tests/bench/runner", "ort", self.file(model), "--library", self.library(), "--threads", str(threads)]


def preprocessed(model):
    """ONNX Runtime's own advice before quantization: shapes inferred, graph optimised. None where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = model.made("preprocessed.onnx")
    for skip in (False, True):
        if os.path.exists(path):
            return path
        try:
            quant_pre_process(model.path, path, skip_symbolic_shape=skip)
        except Exception:  # its checks raise what they like; the next way is tried
            if os.path.exists(path):
                os.remove(path)
    return path if os.path.exists(path) else None


def first_that_runs(model, quantize, path):
    """Lets `quantize` try the preprocessed and the plain model, weights per channel and per tensor, until its own runtime
    takes what came out."""
    import onnxruntime

    reason = None
    for per_channel in (True, False):
        for source in (preprocessed(model), model.path):
            try:
                if source:
                    quantize(source, per_channel)
                    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                    return
            except Exception as e:  # as above
                reason = reason or e
    raise reason


class OnnxRuntimeDynamic(OnnxRuntime):
    kind = "int8"
    uses_amx = True

    def __init__(self, weights):
        self.weights = weights
        self.name, self.label = f"ort_dynamic_{weights.lower()}", f"ONNX Runtime, dynamic {weights}"

    def file(self, model):
        return model.made(f"{self.name}.onnx")

    def prepare(self, model):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        def quantize(source, per_channel):
            quantize_dynamic(source, self.file(model), weight_type=getattr(QuantType, self.weights), per_channel=per_channel)

        first_that_runs(model, quantize, self.file(model))


class OnnxRuntimeStatic(OnnxRuntime):
    name, label, kind = "ort_static", "ONNX Runtime, static QDQ", "int8"
    uses_amx = True

    def file(self, model):
        return model.made(f"{self.name}.onnx")

    def prepare(self, model):
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        class Reader(CalibrationDataReader):
            def __init__(self):
                self.feeds = iter([dict(load_tensors(folder)) for folder in model.calibration])

            def get_next(self):
                return next(self.feeds, None)

        def quantize(source, per_channel):
            quantize_static(source, self.file(model), Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
                            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)

        first_that_runs(model, quantize, self.file(model))


# ---------------------------------------------------------------- through serve()
class OpenVino(Peer):
    name, label, kind, package = "openvino_fp32", "OpenVINO FP32", "fp32", "openvino"

    def session(self, path, threads):
        import openvino as ov

        class Session:
            def __init__(self):
                hints = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY",
                         "NUM_STREAMS": "1", "ENABLE_CPU_PINNING": False}
                self.request = ov.Core().compile_model(path, "CPU", hints).create_infer_request()

            def set_inputs(self, tensors):
                for i, (name, array) in enumerate(tensors):
                    tensor = ov.Tensor(array)
                    if name:
                        self.request.set_tensor(name, tensor)
                    else:
                        self.request.set_input_tensor(i, tensor)

            def run(self):
                self.request.start_async()
                self.request.wait()

            def outputs(self):
                return [tensor.data for tensor in self.request.output_tensors]

        return Session()


class OpenVinoInt8(OpenVino):
    name, label, kind, package = "openvino_int8", "OpenVINO, NNCF INT8", "int8", "nncf"
    uses_amx = True

    def file(self, model):
        return model.made(f"{self.name}.xml")

    def prepare(self, model):
        import nncf
        import openvino as ov

        feeds = [dict(load_tensors(folder)) for folder in model.calibration]
        network = ov.Core().read_model(model.path)
        transformer = any(op.get_type_name() == "Softmax" for op in network.get_ops()) and not any(
            op.get_type_name() in ("GroupConvolution", "LSTMSequence", "MaxPool") for op in network.get_ops())
        network = nncf.quantize(network, nncf.Dataset(feeds), subset_size=len(feeds),
                                model_type=nncf.ModelType.TRANSFORMER if transformer else None)
        ov.save_model(network, self.file(model), compress_to_fp16=False)


class LiteRt(Peer):
    name, label, package = "litert", "LiteRT, dynamic INT8", "ai-edge-litert"
    uses_amx = True
    folder = None  # of MODEL_dynamic.tflite files

    def file(self, model):
        return os.path.join(self.folder or "", f"{model.name}_dynamic.tflite")

    def prepare(self, model):
        if not self.folder or not os.path.exists(self.file(model)):
            raise Refused("no tflite file of this model")

    def session(self, path, threads):
        import numpy
        from ai_edge_litert.interpreter import Interpreter

        class Session:
            def __init__(self):
                self.interpreter = Interpreter(model_path=path, num_threads=threads)
                self.interpreter.allocate_tensors()
                self.inputs = sorted(self.interpreter.get_input_details(), key=lambda d: d["name"])

            def set_inputs(self, tensors):
                """Its files have fixed shapes: a shorter text is padded, under a mask of zeros, and its answer cut."""
                self.length = tensors[0][1].shape[1]
                for detail, (_, array) in zip(self.inputs, tensors, strict=True):
                    missing = [want - have for want, have in zip(detail["shape"], array.shape, strict=True)]
                    if min(missing) < 0 or (any(missing) and array.dtype.kind != "i"):
                        raise Refused(f"its file takes {list(detail['shape'])}")
                    array = numpy.pad(array, [(0, n) for n in missing])
                    self.interpreter.set_tensor(detail["index"], array.astype(detail["dtype"]))
                self.text = array.dtype.kind == "i"

            def run(self):
                self.interpreter.invoke()

            def outputs(self):
                found = [self.interpreter.get_tensor(d["index"]) for d in self.interpreter.get_output_details()]
                return [array[:, :self.length] for array in found] if self.text else found

        return Session()


class CTranslate2(Peer):
    name, label, package = "ctranslate2", "CTranslate2 INT8", "ctranslate2"
    uses_amx = True

    def file(self, model):
        return model.made(self.name)

    def prepare(self, model):
        from bert_spec import bert_spec  # beside this file

        spec = bert_spec(model.path)
        if spec is None:
            raise Refused("not a BERT encoder")
        os.makedirs(self.file(model), exist_ok=True)
        spec.validate()
        spec.optimize(quantization="int8")
        spec.save(self.file(model))

    def session(self, path, threads):
        import ctranslate2
        import numpy

        class Session:
            def __init__(self):
                self.encoder = ctranslate2.Encoder(path, device="cpu", compute_type="int8", intra_threads=threads)

            def set_inputs(self, tensors):
                by_name = dict(tensors)
                length = int(by_name["attention_mask"].sum())
                self.ids = by_name["input_ids"][:, :length].tolist()

            def run(self):
                self.result = self.encoder.forward_batch(self.ids)

            def outputs(self):
                return [numpy.array(self.result.last_hidden_state)]

        return Session()


def everyone(litert_folder=None):
    litert = LiteRt()
    litert.folder = litert_folder
    return [Quantd("quantd_ema", "quantd INT8, ema"), Quantd("quantd_static", "quantd INT8, static", frozen=True),
            Quantd("quantd_fp32", "quantd FP32", "fp32"), OnnxRuntime(), OnnxRuntimeDynamic("QInt8"), OnnxRuntimeDynamic("QUInt8"),
            OnnxRuntimeStatic(), OpenVino(), OpenVinoInt8(), litert, CTranslate2()]


# ---------------------------------------------------------------- the children
def serve(peer, path, threads):
    """The protocol of runner.c for an engine that is reached through Python."""
    out, sys.stdout = sys.stdout, sys.stderr  # libraries that print must not speak for us

    def answer(text):
        print(text, file=out, flush=True)

    try:
        session = peer.session(path, threads)
        answer(f"ok {peer.version()}")
    except Exception as e:  # any library's: told to the other end
        answer("error " + " ".join(str(e).split())[:400])
        return 1
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        try:
            if command == "inputs":
                session.set_inputs(load_tensors(argument))
                answer("ok")
            elif command == "run":
                times = []
                for _ in range(int(argument)):
                    start = time.perf_counter_ns()
                    session.run()
                    times.append(time.perf_counter_ns() - start)
                answer(f"ok {statistics.median(times):.0f}")
            elif command == "save":
                for i, array in enumerate(session.outputs()):
                    array.tofile(os.path.join(argument, f"output_{i}.raw"))
                answer("ok")
            else:
                answer("error no such command")
        except Exception as e:  # as above
            answer("error " + (" ".join(str(e).split())[:400] or type(e).__name__))
    return 0


def main():
    peer = next(p for p in everyone() if p.name == sys.argv[2])
    if sys.argv[1] == "serve":
        return serve(peer, sys.argv[3], int(sys.argv[4]))
    request = json.loads(sys.argv[3])
    if "litert" in request:
        LiteRt.folder = request.pop("litert")
    try:
        peer.prepare(Model(**request))
        return 0
    except Exception as e:  # any library's: the last line is what the tables say
        print(" ".join(f"{'' if isinstance(e, Refused) else type(e).__name__ + ': '}{e}".split())[:300])
        return 1


if __name__ == "__main__":
    sys.exit(main())
