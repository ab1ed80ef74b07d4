"""Client of the quantd inference daemon: numpy in, numpy out, and what the daemon has learned.

    from quantd_client import Client
    with Client("http://127.0.0.1:8080") as quantd:
        scores = quantd.infer("digits", image=pixels)["probabilities"]
        print(quantd.ranges("digits"))

Needs numpy and the standard library; with pandas installed, ranges come as a data frame."""
from .client import Client, Result
from .errors import QuantdError

__all__ = ["Client", "QuantdError", "Result"]
__version__ = "0.1.0"
