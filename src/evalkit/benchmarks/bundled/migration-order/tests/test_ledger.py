import os
import sqlite3
import tempfile
import unittest

from ledger import Migration, MigrationError, balance, load, migrate, open_account, open_database, post

SQL = os.path.join(os.environ["EVALKIT_WORK"], "ledger", "sql")
RELEASED = {
    "1_accounts.sql": "CREATE TABLE accounts (",
    "2_entries.sql": "CREATE TABLE entries (",
    "3_currency.sql": "ALTER TABLE accounts ADD COLUMN currency TEXT NOT NULL DEFAULT 'EUR';",
    "10_balances.sql": "-- Sums up what there is, and keeps the sums from then on.",
}


def memory(test):
    connection = sqlite3.connect(":memory:")
    test.addCleanup(connection.close)
    return connection


def names(connection, kind):
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = ?", (kind,))}


class LoadTest(unittest.TestCase):
    def load(self, *file_names):
        with tempfile.TemporaryDirectory() as folder:
            for name in file_names:
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write(f"-- {name}")
            return load(folder)

    def test_order_of_numbers(self):
        loaded = self.load("10_j.sql", "9_i.sql", "1_a.sql", "0100_z.sql", "20_t.sql", "2_b.sql")
        self.assertEqual([migration.number for migration in loaded], [1, 2, 9, 10, 20, 100])
        self.assertEqual(loaded[-1], Migration(100, "z", "-- 0100_z.sql"))

    def test_same_number_twice(self):
        for twins in (("7_a.sql", "7_b.sql"), ("7_a.sql", "007_b.sql")):
            with self.assertRaises(MigrationError) as caught:
                self.load("1_x.sql", *twins, "8_y.sql")
            for name in twins:
                self.assertIn(name, str(caught.exception))

    def test_other_files_are_ignored(self):
        self.assertEqual(self.load("README.md", "7_a.sql~", "7-b.sql", "x7_c.sql", "7_D.sql"), [])


class MigrateTest(unittest.TestCase):
    def setUp(self):
        self.connection = memory(self)
        self.first = Migration(1, "first", "CREATE TABLE one (x);")
        self.second = Migration(2, "second", "CREATE TABLE two (x); INSERT INTO two VALUES (2);")
        self.tenth = Migration(10, "tenth", "CREATE TABLE ten AS SELECT * FROM two;")

    def test_order_does_not_depend_on_the_list(self):
        self.assertEqual(migrate(self.connection, [self.tenth, self.second, self.first]), [1, 2, 10])
        self.assertEqual(
            self.connection.execute("SELECT * FROM migrations ORDER BY number").fetchall(),
            [(1, "first"), (2, "second"), (10, "tenth")],
        )

    def test_what_was_left_out_is_made_up_for(self):
        migrate(self.connection, [self.second, self.tenth])
        self.assertEqual(migrate(self.connection, [self.first, self.second, self.tenth]), [1])

    def check_failure(self, sql, error=sqlite3.Error):
        broken = Migration(3, "broken", sql)
        with self.assertRaises(error):
            migrate(self.connection, [self.first, self.second, broken, self.tenth])
        self.assertFalse(self.connection.in_transaction)
        self.assertEqual(names(self.connection, "table") - {"migrations"}, {"one", "two"})
        self.assertEqual(self.connection.execute("SELECT x FROM two").fetchall(), [(2,)])
        repaired = Migration(3, "repaired", "CREATE TABLE half (x);")
        self.assertEqual(migrate(self.connection, [self.first, self.second, repaired, self.tenth]), [3, 10])

    def test_failure_half_way(self):
        self.check_failure("CREATE TABLE half (x); UPDATE two SET x = 3; INSERT INTO nowhere VALUES (1);")

    def test_failing_note_undoes_the_migration(self):
        self.check_failure("CREATE TABLE half (x); INSERT INTO migrations VALUES (3, 'taken');")

    def test_triggers_and_comments(self):
        trigger = "CREATE TRIGGER t AFTER INSERT ON one BEGIN INSERT INTO two VALUES (';'); DELETE FROM one; END;"
        sql = f"-- a; comment\n{trigger} -- the end"
        migrate(self.connection, [self.first, self.second, Migration(3, "it's", sql)])
        self.assertEqual(names(self.connection, "trigger"), {"t"})

    def test_changes_are_committed(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "books")
            for expected in ([1, 2], []):
                connection = sqlite3.connect(path)
                self.assertEqual(migrate(connection, [self.first, self.second]), expected)
                connection.close()


class SchemaTest(unittest.TestCase):
    def check_schema(self, connection):
        numbers = [number for (number,) in connection.execute("SELECT number FROM migrations ORDER BY number")]
        self.assertEqual(numbers, [1, 2, 3, 10, 11])
        columns = {
            name: (kind, required, default)
            for _, name, kind, required, default, _ in connection.execute("PRAGMA table_info(entries)")
        }
        self.assertEqual(columns["posted_on"], ("TEXT", 1, "'1970-01-01'"))
        self.assertEqual(
            [row[2] for row in connection.execute("PRAGMA index_info(entries_by_date)")], ["account_id", "posted_on"]
        )

    def test_files(self):
        files = sorted(name for name in os.listdir(SQL) if name.endswith(".sql"))
        self.assertEqual(files, sorted([*RELEASED, "11_entry_dates.sql"]))
        for name, first_line in RELEASED.items():
            with open(os.path.join(SQL, name), encoding="utf-8") as file:
                self.assertEqual(file.readline().rstrip("\n"), first_line)

    def test_new_database(self):
        connection = open_database(":memory:")
        self.addCleanup(connection.close)
        self.check_schema(connection)
        open_account(connection, "cash")
        open_account(connection, "bank", "CHF")
        post(connection, "cash", 1250, posted_on="2024-05-01")
        post(connection, "cash", -50, posted_on="2024-05-02")
        self.assertEqual((balance(connection, "cash"), balance(connection, "bank")), (1200, 0))

    def test_database_in_use(self):
        connection = memory(self)
        released = [m for m in load(SQL) if m.number <= 10]
        self.assertEqual(migrate(connection, released), [1, 2, 3, 10])
        open_account(connection, "cash")
        with connection:
            connection.execute("INSERT INTO entries (account_id, amount) VALUES (1, 7)")
        self.assertEqual(migrate(connection, load(SQL)), [11])
        self.check_schema(connection)
        self.assertEqual(connection.execute("SELECT amount, posted_on FROM entries").fetchall(), [(7, "1970-01-01")])
        post(connection, "cash", 5, posted_on="2024-05-01")
        self.assertEqual(balance(connection, "cash"), 12)
