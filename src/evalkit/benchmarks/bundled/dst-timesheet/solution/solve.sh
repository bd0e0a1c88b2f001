#!/bin/sh
set -eu
cd "$EVALKIT_WORK"

replace() { # FILE FROM TO: standard input takes the place of these lines
    { head -n "$(($2 - 1))" "$1" && cat && tail -n "+$(($3 + 1))" "$1"; } >"$1.new"
    mv "$1.new" "$1"
}

replace timesheet/planning.py 29 29 <<'END'
    ordered = sorted(shifts, key=lambda shift: (shift.person, instant(shift.start)))
END

replace timesheet/planning.py 25 25 <<'END'
    return sorted(pairs, key=lambda pair: (instant(pair[0].start), instant(pair[1].start)))
END

replace timesheet/planning.py 17 17 <<'END'
            if hours_between(earlier.end, later.start) < minimum:
END

replace timesheet/planning.py 9 9 <<'END'
    return (instant(start) + timedelta(hours=hours)).astimezone(ZONE)
END

replace timesheet/planning.py 5 5 <<'END'

from .zone import ZONE, hours_between, instant

END

replace timesheet/shift.py 39 42 <<'END'
        while instant(start) < instant(self.end):
            midnight = datetime.combine(start.date() + timedelta(days=1), time(), ZONE)
            end = min(midnight, self.end, key=instant)
            days.append((start.date(), hours_between(start, end)))
END

replace timesheet/shift.py 33 33 <<'END'
        return instant(self.start) < instant(other.end) and instant(other.start) < instant(self.end)
END

replace timesheet/shift.py 29 29 <<'END'
        return hours_between(self.start, self.end)
END

replace timesheet/shift.py 18 18 <<'END'
        if instant(self.end) <= instant(self.start):
END

replace timesheet/shift.py 6 6 <<'END'
from .zone import ZONE, hours_between, instant
END

replace timesheet/zone.py 49 49 <<'END'
ZONE = CentralEuropean()


def instant(moment):
    """The same moment in UTC.

    Python subtracts and compares two moments of the same zone by the clock on the wall. Only in UTC do
    differences and order mean the time that passed.
    """
    return moment.astimezone(timezone.utc)


def hours_between(start, end):
    """The hours that passed from *start* to *end*."""
    return (instant(end) - instant(start)) / _HOUR
END

replace timesheet/zone.py 6 6 <<'END'
from datetime import datetime, timedelta, timezone, tzinfo
END
