import unittest
from datetime import date

from timesheet import ZONE, Shift, double_entries, planned_end, short_rests

SPRING_NIGHT = ("2024-03-30T22:00", "2024-03-31T06:00")
AUTUMN_NIGHT = ("2024-10-26T22:00", "2024-10-27T06:00")


def shift(start, end, person="ann"):
    return Shift.parse(person, start, end)


class HoursTest(unittest.TestCase):
    def test_spring_night(self):
        self.assertEqual(shift(*SPRING_NIGHT).hours, 7.0)

    def test_autumn_night(self):
        self.assertEqual(shift(*AUTUMN_NIGHT).hours, 9.0)

    def test_ordinary_nights(self):
        self.assertEqual(shift("2024-06-30T22:00", "2024-07-01T06:30").hours, 8.5)
        self.assertEqual(shift("2024-12-31T22:00", "2025-01-01T06:00").hours, 8.0)

    def test_within_the_repeated_hour(self):
        self.assertEqual(shift("2024-10-27T02:45+02:00", "2024-10-27T02:15+01:00").hours, 0.5)
        self.assertEqual(shift("2024-10-27T02:30+02:00", "2024-10-27T02:30+01:00").hours, 1.0)

    def test_end_in_the_second_pass(self):
        self.assertEqual(shift("2024-10-26T22:00", "2024-10-27T02:30+01:00").hours, 5.5)
        self.assertEqual(shift("2024-10-26T22:00", "2024-10-27T02:30").hours, 4.5)

    def test_start_and_end_are_in_the_zone(self):
        night = shift("2024-10-27T00:30+00:00", "2024-10-27T01:30+00:00")
        self.assertIs(night.start.tzinfo, ZONE)
        self.assertEqual((night.start.hour, night.start.fold, night.end.hour, night.end.fold), (2, 0, 2, 1))

    def test_no_time_passes(self):
        for start, end in (
            ("2024-05-01T08:00", "2024-05-01T08:00"),
            ("2024-05-01T08:00", "2024-05-01T07:00"),
            ("2024-10-27T02:15+01:00", "2024-10-27T02:45+02:00"),
            ("2024-03-31T01:30+00:00", "2024-03-31T03:30"),
            ("2024-10-27T02:30+01:00", "2024-10-27T02:30"),
        ):
            with self.assertRaises(ValueError, msg=(start, end)):
                shift(start, end)


class ByDayTest(unittest.TestCase):
    def test_spring_night(self):
        self.assertEqual(shift(*SPRING_NIGHT).by_day(), [(date(2024, 3, 30), 2.0), (date(2024, 3, 31), 5.0)])

    def test_autumn_night(self):
        self.assertEqual(shift(*AUTUMN_NIGHT).by_day(), [(date(2024, 10, 26), 2.0), (date(2024, 10, 27), 7.0)])

    def test_whole_days(self):
        days = shift("2024-10-26T00:00", "2024-10-29T00:00").by_day()
        self.assertEqual(days, [(date(2024, 10, 26), 24.0), (date(2024, 10, 27), 25.0), (date(2024, 10, 28), 24.0)])

    def test_within_the_repeated_hour(self):
        repeated = shift("2024-10-27T02:45+02:00", "2024-10-27T02:15+01:00")
        self.assertEqual(repeated.by_day(), [(date(2024, 10, 27), 0.5)])

    def test_end_in_the_second_pass(self):
        days = shift("2024-10-26T23:00", "2024-10-27T02:15+01:00").by_day()
        self.assertEqual(days, [(date(2024, 10, 26), 1.0), (date(2024, 10, 27), 3.25)])


class OverlapTest(unittest.TestCase):
    first_pass = shift("2024-10-27T02:00+02:00", "2024-10-27T02:50+02:00")
    second_pass = shift("2024-10-27T02:10+01:00", "2024-10-27T02:40+01:00")

    def test_different_passes_of_the_repeated_hour(self):
        self.assertFalse(self.first_pass.overlaps(self.second_pass))
        self.assertFalse(self.second_pass.overlaps(self.first_pass))

    def test_across_the_change(self):
        long = shift("2024-10-27T02:45+02:00", "2024-10-27T02:15+01:00")
        self.assertTrue(long.overlaps(self.first_pass) and long.overlaps(self.second_pass))
        self.assertTrue(self.first_pass.overlaps(long) and self.second_pass.overlaps(long))

    def test_touching(self):
        early, late = shift("2024-05-01T08:00", "2024-05-01T12:00"), shift("2024-05-01T12:00", "2024-05-01T13:00")
        self.assertFalse(early.overlaps(late) or late.overlaps(early))

    def test_double_entries(self):
        long = shift("2024-10-27T02:45+02:00", "2024-10-27T02:15+01:00")
        found = double_entries([self.second_pass, long, self.first_pass, shift(*AUTUMN_NIGHT, person="bob")])
        self.assertEqual(found, [(self.first_pass, long), (long, self.second_pass)])

    def test_double_entries_are_ordered_by_time(self):
        late = shift("2024-10-27T02:05+01:00", "2024-10-27T04:00", person="abe")
        later = shift("2024-10-27T02:06+01:00", "2024-10-27T04:00", person="abe")
        early = shift("2024-10-27T02:30+02:00", "2024-10-27T04:00", person="zoe")
        earlier = shift("2024-10-27T02:20+02:00", "2024-10-27T04:00", person="zoe")
        self.assertEqual(double_entries([later, late, early, earlier]), [(earlier, early), (late, later)])


class PlanningTest(unittest.TestCase):
    def check_end(self, start, hours, expected):
        end = planned_end(shift(start, "2030-01-01T00:00").start, hours)
        self.assertIs(end.tzinfo, ZONE)
        self.assertEqual(end.isoformat(timespec="minutes"), expected)

    def test_planned_end(self):
        self.check_end("2024-03-30T22:00", 8, "2024-03-31T07:00+02:00")
        self.check_end("2024-10-26T22:00", 8, "2024-10-27T05:00+01:00")
        self.check_end("2024-10-26T22:00", 5, "2024-10-27T02:00+01:00")
        self.check_end("2024-10-26T22:00", 4, "2024-10-27T02:00+02:00")
        self.check_end("2024-05-01T22:00", 7.5, "2024-05-02T05:30+02:00")

    def test_rest_that_the_change_makes_short(self):
        early, late = shift("2024-03-30T12:00", "2024-03-30T20:00"), shift("2024-03-31T07:00", "2024-03-31T12:00")
        self.assertEqual(short_rests([late, early]), [(early, late)])
        self.assertEqual(short_rests([late, early], minimum=10), [])

    def test_rest_that_the_change_makes_long_enough(self):
        self.assertEqual(
            short_rests([shift("2024-10-26T12:00", "2024-10-26T20:00"), shift("2024-10-27T06:00", "2024-10-27T12:00")]),
            [],
        )

    def test_successive_is_by_time_not_by_the_wall(self):
        first = shift("2024-10-27T02:40+02:00", "2024-10-27T02:50+02:00")
        second = shift("2024-10-27T02:10+01:00", "2024-10-27T02:20+01:00")
        self.assertEqual(short_rests([second, first]), [(first, second)])

    def test_persons_by_name_and_each_for_themselves(self):
        zoe = [
            shift("2024-05-01T08:00", "2024-05-01T12:00", "zoe"),
            shift("2024-05-01T13:00", "2024-05-01T17:00", "zoe"),
        ]
        abe = [
            shift("2024-05-02T08:00", "2024-05-02T12:00", "abe"),
            shift("2024-05-02T13:00", "2024-05-02T17:00", "abe"),
        ]
        self.assertEqual(short_rests(zoe + abe), [tuple(abe), tuple(zoe)])
