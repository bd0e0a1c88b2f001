-- Sums up what there is, and keeps the sums from then on.
CREATE TABLE balances (
    account_id INTEGER PRIMARY KEY REFERENCES accounts (id),
    amount INTEGER NOT NULL
);

INSERT INTO balances
SELECT id, (SELECT COALESCE(SUM(amount), 0) FROM entries WHERE account_id = accounts.id) FROM accounts;

CREATE TRIGGER account_opened AFTER INSERT ON accounts
BEGIN
    INSERT INTO balances VALUES (NEW.id, 0);
END;

CREATE TRIGGER entry_posted AFTER INSERT ON entries
BEGIN
    UPDATE balances SET amount = amount + NEW.amount WHERE account_id = NEW.account_id;
END;
