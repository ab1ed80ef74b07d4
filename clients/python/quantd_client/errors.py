"""The one exception of the package."""


class QuantdError(Exception):
    """What went wrong, in `sentence`. `status` is the daemon's HTTP status, or None when no whole answer came: nobody there,
    the connection broke, no answer in time, or an answer that makes no sense."""

    def __init__(self, status, sentence):
        super().__init__(sentence if status is None else f"{sentence} ({status})")
        self.status = status
        self.sentence = sentence
