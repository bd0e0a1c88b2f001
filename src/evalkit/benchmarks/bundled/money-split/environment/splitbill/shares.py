"""One amount, several shares."""

from decimal import Decimal

from .currency import check, places_of, quantum


def split(amount, weights, currency="EUR"):
    """Divide *amount* in proportion to *weights*, by the rule in the README."""
    check(amount, currency)
    if any(weight < 0 for weight in weights):
        raise ValueError("a weight is negative")
    total = sum(weights)
    if not total:
        raise ValueError("the weights sum to 0")
    places = places_of(currency)
    shares = []
    for weight in weights:
        share = round(float(amount) * float(weight) / float(total), places)
        shares.append(Decimal(share).quantize(quantum(currency)))
    return shares
