#!/usr/bin/env python3
# timeout: 600
"""A request's bytes depend on itself and its epoch only: not on neighbours in a batch, their order or contents, on how a batch is split, on
threads, on the instruction set, nor on what the daemon served in between."""
import concurrent.futures
import hashlib
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import serving  # noqa: E402

try:
    import numpy as np
except ImportError as missing:
    print(f"SKIP: {missing}")
    sys.exit(77)
from binary import Refused, infer  # noqa: E402

IMAGES = np.array([pixels for _, pixels in serving.digits()], np.float32).reshape(-1, 1, 28, 28)
QUIET = {"quant_observe": False}


def teach(daemon, times=1):
    for _ in range(times):
        for image in IMAGES:
            _, parameters = infer(daemon, image[None])
    return infer(daemon, IMAGES[:1], QUIET)[1]["quant_epoch"]


def alone(daemon, epoch):
    """Every digit by itself under an epoch: the bytes that everything else is held against."""
    return [infer(daemon, image[None], {"quant_epoch": epoch, **QUIET})[0].tobytes() for image in IMAGES]


def test_any_split_and_order_of_a_batch():
    with serving.Daemon("--guard", "clip") as d:
        epoch = teach(d)
        truth = alone(d, epoch)
        assert len(set(truth)) > 30, "the digits' answers should differ from one another"
        random = np.random.default_rng(7)
        for size in (2, 3, 7, 16, 40):
            order = random.permutation(len(IMAGES))
            for start in range(0, len(order), size):
                part = order[start:start + size]
                logits, _ = infer(d, IMAGES[part], {"quant_epoch": epoch, **QUIET})
                for row, i in zip(logits, part):
                    assert row.tobytes() == truth[i], (size, i)


def test_joined_requests_and_hostile_neighbours():
    hostile = [np.full((1, 1, 28, 28), v, np.float32) for v in (np.inf, -np.inf, np.nan, 1e30, -1e30, 50)]
    mixed = IMAGES[:1].copy()
    mixed[0, 0, 3, 3:6] = np.nan, np.inf, -1e30
    hostile.append(mixed)
    with serving.Daemon("--workers", "1", "--batch-max", "16", "--batch-delay-us", "3000") as d:
        epoch = teach(d)
        truth = alone(d, epoch)

        def good(i):
            return infer(d, IMAGES[i][None], {"quant_epoch": epoch, **QUIET})[0].tobytes() == truth[i]

        def bad(i):
            try:
                infer(d, hostile[i % len(hostile)], {"quant_epoch": epoch, **QUIET})
            except Refused as refused:
                assert 400 <= refused.status < 500, refused
            return True

        random = np.random.default_rng(11)
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for _ in range(4):
                work = [(good, i) for i in range(len(IMAGES))] + [(bad, i) for i in range(len(IMAGES))]
                random.shuffle(work)
                assert all(pool.map(lambda w: w[0](w[1]), work))
        joined = [line for line in d.get("/metrics").body.decode().splitlines()
                  if line.startswith("quantd_batch_size_bucket") and 'le="1' in line]
        assert joined, "no batch was counted"


def test_replay_after_a_thousand_other_requests():
    with serving.Daemon("--publish-tolerance", "1000") as d:
        epoch = teach(d)
        truth = alone(d, epoch)
        random = np.random.default_rng(3)
        for _ in range(1000):
            infer(d, random.random((1, 1, 28, 28), np.float32))
        assert alone(d, epoch) == truth


def test_a_forgotten_epoch_is_a_conflict():
    with serving.Daemon("--publish-tolerance", "0", "--epochs-kept", "2") as d:
        epoch = teach(d)
        for i in range(20):
            infer(d, IMAGES[:1] * (1 + i / 100))
        try:
            infer(d, IMAGES[:1], {"quant_epoch": epoch})
        except Refused as refused:
            assert refused.status == 409, refused
        else:
            raise AssertionError("an epoch that is gone was replayed")


def fingerprint(flags, environment):
    os.environ.update(environment)
    try:
        with serving.Daemon(*flags) as d:
            epoch = teach(d, 2)
            bytes_of_all = b"".join(alone(d, epoch))
            ranges = d.get("/v2/models/digits/ranges").json()
            learned = [(t["name"], t["ema_min"], t["ema_max"], t["scale"], t["zero_point"]) for t in ranges["tensors"]]
            return hashlib.sha256(bytes_of_all + repr((epoch, learned)).encode()).hexdigest()
    finally:
        for name in environment:
            del os.environ[name]


def test_threads_and_instruction_sets():
    prints = {("--threads", n): fingerprint(["--threads", n, "--workers", n], {}) for n in ("1", "2", "4")}
    for isa in ("scalar", "avx2", "avx512vnni", "amx"):
        can = subprocess.run([serving.QUANTD, "selftest"], env={**os.environ, "QUANTD_ISA": isa}, capture_output=True, text=True)
        if isa in can.stdout:
            prints[isa] = fingerprint([], {"QUANTD_ISA": isa})
        else:
            print(f"this CPU has no {isa}: not compared")
    assert len(prints) >= 4 and len(set(prints.values())) == 1, prints


if __name__ == "__main__":
    sys.exit(serving.run([test_any_split_and_order_of_a_batch, test_joined_requests_and_hostile_neighbours,
                          test_replay_after_a_thousand_other_requests, test_a_forgotten_epoch_is_a_conflict,
                          test_threads_and_instruction_sets]))
