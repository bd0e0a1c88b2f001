#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace ledger/migrations.py 38 42 <<'END'
    for migration in sorted(migrations):
        if migration.number in known:
            continue
        with connection:  # commits, or rolls back on an exception; the script must begin the transaction itself
            connection.executescript("BEGIN;\n" + migration.sql)
END

replace ledger/migrations.py 28 30 <<'END'
            number = int(match[1])
            other = file_names.setdefault(number, file_name)
            if other != file_name:
                raise MigrationError(f"{other} and {file_name} have the same number")
            with open(os.path.join(folder, file_name), encoding="utf-8") as file:
                migrations.append(Migration(number, match[2], file.read()))
    return sorted(migrations)
END

replace ledger/migrations.py 24 24 <<'END'
    migrations = []
    file_names = {}
END

cat >ledger/sql/11_entry_dates.sql <<'END'
-- The date on which an entry was posted. Older entries get the beginning of time.
ALTER TABLE entries ADD COLUMN posted_on TEXT NOT NULL DEFAULT '1970-01-01';

CREATE INDEX entries_by_date ON entries (account_id, posted_on);
END

rm ledger/sql/3_entry_dates.sql
