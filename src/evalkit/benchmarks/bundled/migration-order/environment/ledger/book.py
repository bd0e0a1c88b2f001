"""Accounts and entries. Amounts are whole numbers of minor units."""


def open_account(connection, name, currency="EUR"):
    """Make a new account."""
    with connection:
        connection.execute("INSERT INTO accounts (name, currency) VALUES (?, ?)", (name, currency))


def post(connection, name, amount, posted_on):
    """Post *amount* to the account *name* on a date such as `2024-05-01`."""
    with connection:
        connection.execute(
            "INSERT INTO entries (account_id, amount, posted_on)"
            " VALUES ((SELECT id FROM accounts WHERE name = ?), ?, ?)",
            (name, amount, posted_on),
        )


def balance(connection, name):
    """The sum of all that was posted to the account *name*."""
    query = "SELECT amount FROM balances WHERE account_id = (SELECT id FROM accounts WHERE name = ?)"
    (amount,) = connection.execute(query, (name,)).fetchone()
    return amount
