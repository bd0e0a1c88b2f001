"""Minor units of currencies."""

from decimal import Decimal

_PLACES = {"JPY": 0, "KRW": 0, "KWD": 3, "TND": 3}


def places_of(currency):
    """How many decimal places amounts of *currency* have."""
    return _PLACES.get(currency, 2)


def quantum(currency):
    """The smallest amount of *currency*: 0.01 for most."""
    return Decimal(1).scaleb(-places_of(currency))


def check(amount, currency):
    """Raise ValueError if *amount* is no whole number of minor units."""
    if not amount.is_finite() or amount % quantum(currency):
        raise ValueError(f"not an amount in {currency}: {amount}")
