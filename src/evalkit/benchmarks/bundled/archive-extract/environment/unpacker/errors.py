class UnsafeArchive(ValueError):
    """An archive that would reach outside its folder; `entry` is the name of the culprit."""

    def __init__(self, entry, reason):
        super().__init__(f"{entry!r}: {reason}")
        self.entry = entry
