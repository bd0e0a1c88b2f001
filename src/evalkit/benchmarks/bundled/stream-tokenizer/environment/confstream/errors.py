class SettingsError(ValueError):
    """Settings that cannot be understood, and where."""

    def __init__(self, message, line, column):
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column
