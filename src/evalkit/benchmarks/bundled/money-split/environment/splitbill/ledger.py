"""All expenses of a trip."""

from .currency import quantum
from .shares import split


def settle(expenses, currency="EUR"):
    """Balances by person: positive for who gets money back, negative for who owes.

    Each expense is `(payer, amount, {person: weight})`; the payer need not take part.
    """
    zero = 0 * quantum(currency)
    balances = {}
    for payer, amount, weights in expenses:
        shares = split(amount, list(weights.values()), currency)
        balances[payer] = balances.get(payer, zero) + amount
        for person, share in zip(weights, shares):
            balances[person] = balances.get(person, zero) - share
    return balances
