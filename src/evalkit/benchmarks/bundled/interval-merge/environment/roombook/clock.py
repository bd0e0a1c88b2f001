"""Between `HH:MM` and minutes since midnight."""

MINUTES_PER_DAY = 24 * 60


def to_minutes(text):
    """The minutes since midnight of *text*; `24:00` is the end of the day."""
    hours, colon, minutes = text.partition(":")
    if not (colon and hours.isdigit() and minutes.isdigit() and len(minutes) == 2 and int(minutes) < 60):
        raise ValueError(f"not a time of day: {text!r}")
    total = int(hours) * 60 + int(minutes)
    if total > MINUTES_PER_DAY:
        raise ValueError(f"later than 24:00: {text!r}")
    return total


def to_text(minutes):
    """The `HH:MM` of a number of minutes since midnight."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
