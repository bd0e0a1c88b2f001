class FormulaError(ValueError):
    """A formula that cannot be understood; `position` is where."""

    def __init__(self, message, position):
        super().__init__(f"{message} at {position}")
        self.position = position
