class RecordError(ValueError):
    """Data that do not fit; `path` tells where."""

    def __init__(self, path, message):
        super().__init__(f"{path or 'top level'}: {message}")
        self.path = path
