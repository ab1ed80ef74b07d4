#!/usr/bin/env python3
"""tritonclient[http], unmodified, sync and aio, against the built-in model: health, metadata, statistics, infer as JSON and as
binary, and its errors."""
import asyncio
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import numpy as np
    import tritonclient.http as sync_client
    import tritonclient.http.aio as aio_client
    from tritonclient.utils import InferenceServerException
except ImportError as error:
    print(f"SKIP: {error} (tests/requirements.txt names the packages)")
    sys.exit(77)
from serving import Daemon, digits, run

LABELS = [label for label, _ in digits()]
IMAGES = np.array([pixels for _, pixels in digits()], dtype=np.float32).reshape(-1, 1, 28, 28)


def tensors(images, binary_in, binary_out):
    tensor = sync_client.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary_in)
    return [tensor], [sync_client.InferRequestedOutput(name, binary_data=binary_out) for name in ("probabilities", "logits")]


def refused(call, *words):
    try:
        call()
    except InferenceServerException as error:
        assert all(w in str(error) for w in words), error
        return
    raise AssertionError("not refused")


def test_health_and_metadata(url):
    with sync_client.InferenceServerClient(url) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("digits")
        assert client.is_model_ready("digits", "1") and not client.is_model_ready("nobody")
        assert client.get_server_metadata()["name"] == "quantd"
        assert client.get_model_metadata("digits")["inputs"][0]["shape"] == [-1, 1, 28, 28]
        assert client.get_model_config("digits")["max_batch_size"] > 0
        assert client.get_model_repository_index()[0]["state"] == "READY"
        assert client.get_inference_statistics("digits")["model_stats"][0]["name"] == "digits"
        assert client.get_inference_statistics()["model_stats"]


def test_infer_every_form(url):
    with sync_client.InferenceServerClient(url) as client:
        for binary_in in (False, True):
            for binary_out in (False, True):
                inputs, outputs = tensors(IMAGES, binary_in, binary_out)
                result = client.infer("digits", inputs, outputs=outputs, request_id="r7")
                scores = result.as_numpy("probabilities")
                assert scores.shape == (len(IMAGES), 10) and scores.dtype == np.float32
                assert np.mean(scores.argmax(1) == LABELS) >= 0.9
                assert result.get_response()["id"] == "r7" and result.get_response()["model_name"] == "digits"
        by_default = client.infer("digits", tensors(IMAGES[:1], True, True)[0])
        assert by_default.as_numpy("logits").shape == (1, 10)


def test_replay_is_byte_equal(url):
    with sync_client.InferenceServerClient(url) as client:
        inputs, outputs = tensors(IMAGES[:3], True, True)
        first = client.infer("digits", inputs, outputs=outputs, parameters={"quant_observe": False})
        epoch = first.get_response()["parameters"]["quant_epoch"]
        for binary in (False, True):
            inputs, outputs = tensors(IMAGES[:3], binary, binary)
            again = client.infer("digits", inputs, outputs=outputs, parameters={"quant_epoch": epoch, "quant_observe": False})
            for name in ("probabilities", "logits"):
                assert again.as_numpy(name).tobytes() == first.as_numpy(name).tobytes(), (binary, name)


def test_compute_in_parallel(url):
    with sync_client.InferenceServerClient(url, concurrency=4) as client:
        waiting = [client.async_infer("digits", *tensors(IMAGES[i:i + 1], True, True)[:1]) for i in range(20)]
        for answer in waiting:
            assert answer.get_result().as_numpy("probabilities").shape == (1, 10)


def test_errors(url):
    with sync_client.InferenceServerClient(url) as client:
        inputs, outputs = tensors(IMAGES[:1], True, True)
        refused(lambda: client.infer("nobody", inputs), "nobody")
        refused(lambda: client.get_model_metadata("nobody"), "nobody")
        refused(lambda: client.infer("digits", inputs, model_version="9"))
        refused(lambda: client.infer("digits", inputs, outputs=[sync_client.InferRequestedOutput("nothing")]), "nothing")
        refused(lambda: client.infer("digits", inputs, outputs=outputs + outputs), "twice")
        refused(lambda: client.infer("digits", inputs, parameters={"quant_epoch": 10 ** 9}), "1000000000")
        refused(lambda: client.infer("digits", tensors(IMAGES[:1, :, :27], True, True)[0]), "image", "shape")
        texts = sync_client.InferInput("image", [1], "BYTES")
        texts.set_data_from_numpy(np.array([b"x"], dtype=np.object_), binary_data=True)
        refused(lambda: client.infer("digits", [texts]), "BYTES")


def test_aio(url):
    async def ask():
        async with aio_client.InferenceServerClient(url) as client:
            assert await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("digits")
            assert (await client.get_model_metadata("digits"))["platform"] == "onnx_onnxv1"
            for binary in (False, True):
                inputs, outputs = tensors(IMAGES[:5], binary, binary)
                result = await client.infer("digits", inputs, outputs=outputs)
                assert list(result.as_numpy("probabilities").argmax(1)).count(-1) == 0
                assert result.as_numpy("logits").shape == (5, 10)
            try:
                await client.infer("nobody", inputs)
            except InferenceServerException as error:
                assert "nobody" in str(error)
            else:
                raise AssertionError("not refused")
    asyncio.run(ask())


if __name__ == "__main__":
    with Daemon() as daemon:
        status = run([test_health_and_metadata, test_infer_every_form, test_replay_is_byte_equal, test_compute_in_parallel,
                      test_errors, test_aio], f"127.0.0.1:{daemon.port}")
    sys.exit(status)
