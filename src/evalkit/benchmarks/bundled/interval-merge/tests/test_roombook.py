import itertools
import unittest

from roombook import Day
from roombook.intervals import Interval, merge


def day_with(*bookings, hours=("08:00", "18:00")):
    day = Day(*hours)
    for start, end in bookings:
        day.book(start, end, "meeting")
    return day


class MergeTest(unittest.TestCase):
    def test_contained_interval_does_not_shorten(self):
        self.assertEqual(merge([Interval(10, 100), Interval(20, 30)]), [Interval(10, 100)])

    def test_matches_a_set_of_minutes(self):
        candidates = [Interval(a, b) for a in range(0, 7, 2) for b in range(0, 9, 2)]
        for given in itertools.combinations(candidates, 3):
            minutes = {m for i in given for m in range(i.start, i.end)}
            result = merge(given)
            self.assertEqual({m for i in result for m in range(i.start, i.end)}, minutes, given)
            self.assertTrue(all(a.end < b.start for a, b in zip(result, result[1:])), result)

    def test_empty_intervals_do_not_matter(self):
        self.assertEqual(merge([Interval(5, 5), Interval(9, 3)]), [])
        self.assertEqual(merge([Interval(1, 4), Interval(2, 2), Interval(6, 8)]), [Interval(1, 4), Interval(6, 8)])

    def test_argument_is_left_alone(self):
        given = [Interval(20, 30), Interval(0, 25)]
        merge(given)
        self.assertEqual(given, [Interval(20, 30), Interval(0, 25)])


class DayTest(unittest.TestCase):
    def test_lunch_inside_a_workshop(self):
        day = day_with(("09:00", "16:00"), ("12:00", "12:30"))
        self.assertEqual(day.busy(), ["09:00-16:00"])
        self.assertEqual(day.free(), ["08:00-09:00", "16:00-18:00"])

    def test_exact_fit_between_bookings(self):
        day = day_with(("08:00", "10:00"), ("10:30", "18:00"))
        self.assertEqual(day.free(minimum=30), ["10:00-10:30"])
        self.assertEqual(day.free(minimum=31), [])

    def test_exact_fit_at_both_ends(self):
        day = day_with(("08:45", "17:15"))
        self.assertEqual(day.free(minimum=45), ["08:00-08:45", "17:15-18:00"])

    def test_a_single_free_minute(self):
        day = day_with(("08:00", "12:00"), ("12:01", "18:00"))
        self.assertEqual(day.free(), ["12:00-12:01"])

    def test_no_slot_without_length(self):
        day = day_with(("08:00", "12:00"), ("12:00", "18:00"))
        self.assertEqual(day.free(), [])
        self.assertEqual(day.free(minimum=0), [])

    def test_back_to_back_is_one_block(self):
        self.assertEqual(day_with(("09:00", "10:00"), ("10:00", "11:00")).busy(), ["09:00-11:00"])

    def test_bookings_beyond_the_opening_hours(self):
        day = day_with(("06:00", "08:30"), ("17:00", "24:00"), ("05:00", "07:00"))
        self.assertEqual(day.busy(), ["08:00-08:30", "17:00-18:00"])
        self.assertEqual(day.free(), ["08:30-17:00"])
