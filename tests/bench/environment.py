#!/usr/bin/env python3
"""Makes the Python environment of the benchmark's peers: environment.py FOLDER. All of requirements.txt at once; where that
fails, what the benchmark itself needs, and then each peer for itself, so that one which can't be had doesn't cost the
others. Standard library only."""
import hashlib
import os
import subprocess
import sys

REQUIREMENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "requirements.txt")
NEEDED = ("numpy", "onnx", "onnxruntime")
PEERS = ("openvino", "nncf", "ai-edge-litert", "ctranslate2")


def main():
    folder = sys.argv[1]
    python, stamp = os.path.join(folder, "bin", "python"), os.path.join(folder, "requirements.sha256")
    with open(REQUIREMENTS, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    if os.path.exists(stamp):
        with open(stamp, encoding="ascii") as f:
            if f.read() == digest:
                return 0
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)

    def install(*what):
        return subprocess.run([python, "-m", "pip", "install", "-q", *what], check=False).returncode == 0

    if not install("-r", REQUIREMENTS):
        if not install("-c", REQUIREMENTS, *NEEDED):
            print("environment.py: numpy, onnx and onnxruntime can't be installed", file=sys.stderr)
            return 1
        for peer in PEERS:
            if not install("-c", REQUIREMENTS, peer):
                print(f"environment.py: {peer} can't be installed and won't take part", file=sys.stderr)
    with open(stamp, "w", encoding="ascii") as f:
        f.write(digest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
