import json
import random
import statistics
import unittest

from gauge import RunningStats, SlidingWindow


def readings(number, around=1e9, seed=7):
    chance = random.Random(seed)
    return [around + chance.uniform(-2, 2) for _ in range(number)]


def stats_of(values):
    stats = RunningStats()
    stats.extend(values)
    return stats


class GaugeTest(unittest.TestCase):
    def check(self, stats, values):
        """That *stats* are those of *values*."""
        mean, variance = statistics.fmean(values), statistics.variance(values)
        self.assertEqual(stats.count, len(values))
        self.assertLessEqual(abs(stats.mean - mean), 1e-12 * abs(mean))
        self.assertLessEqual(abs(stats.variance - variance), 1e-6 * variance)
        self.assertLessEqual(abs(stats.stdev - variance**0.5), 1e-6 * variance**0.5)


class RunningStatsTest(GaugeTest):
    def test_large_numbers_that_vary_little(self):
        self.check(stats_of([1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16]), [1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16])
        self.check(stats_of(readings(3000)), readings(3000))
        self.check(stats_of(readings(300, around=-1e9)), readings(300, around=-1e9))

    def test_ordinary_numbers(self):
        self.check(stats_of([3, 1, 4, 1, 5, 9, 2, 6]), [3, 1, 4, 1, 5, 9, 2, 6])
        self.assertEqual(stats_of([1, 2, 3, 4]).variance, 5 / 3)

    def test_equal_readings(self):
        for value in (1000000.1, 0.1, -1e15 / 3, 0.0):
            stats = stats_of([value] * 50)
            self.assertEqual((stats.variance, stats.stdev, stats.mean), (0.0, 0.0, value))

    def test_few_readings(self):
        empty, one = RunningStats(), stats_of([5])
        self.assertEqual((empty.count, empty.mean, empty.variance, empty.stdev), (0, None, 0.0, 0.0))
        self.assertEqual((one.count, one.mean, one.variance, one.stdev), (1, 5, 0.0, 0.0))

    def test_keeps_no_readings(self):
        self.assertLess(len(json.dumps(stats_of(readings(2000)).to_dict())), 1000)


class MergeTest(GaugeTest):
    def test_parts(self):
        values = readings(1000)
        for cut in (1, 2, 10, 500, 999):
            merged = stats_of(values[:cut]).merge(stats_of(values[cut:]))
            self.check(merged, values)

    def test_many_small_parts(self):
        values = readings(1000)
        merged = RunningStats()
        for start in range(0, len(values), 3):
            merged = merged.merge(stats_of(values[start : start + 3]))
        self.check(merged, values)

    def test_parts_far_apart(self):
        values = readings(50, around=-1e6) + readings(80, around=1e6)
        self.check(stats_of(values[:50]).merge(stats_of(values[50:])), values)

    def test_with_nothing(self):
        values = readings(20)
        self.check(stats_of(values).merge(RunningStats()), values)
        self.check(RunningStats().merge(stats_of(values)), values)
        nothing = RunningStats().merge(RunningStats())
        self.assertEqual((nothing.count, nothing.mean, nothing.variance), (0, None, 0.0))

    def test_arguments_do_not_change(self):
        a, b = stats_of(readings(10)), stats_of(readings(20, seed=8))
        merged = a.merge(b)
        merged.add(0)
        self.check(a, readings(10))
        self.check(b, readings(20, seed=8))


class SnapshotTest(GaugeTest):
    def test_behaves_as_the_original(self):
        values = readings(500)
        original = stats_of(values[:200])
        restored = RunningStats.from_dict(json.loads(json.dumps(original.to_dict())))
        for stats in (original, restored):
            stats.extend(values[200:])
        self.assertEqual(
            (restored.mean, restored.variance, restored.count), (original.mean, original.variance, original.count)
        )
        self.check(restored, values)


class WindowTest(GaugeTest):
    def window(self, size, values):
        window = SlidingWindow(size)
        window.extend(values)
        return window

    def test_last_readings(self):
        values = readings(1000)
        self.check(self.window(50, values), values[-50:])
        self.check(self.window(50, values[:30]), values[:30])

    def test_after_every_reading(self):
        window, values = SlidingWindow(5), readings(60)
        for number, value in enumerate(values, start=1):
            window.add(value)
            if number > 1:
                self.check(window, values[max(0, number - 5) : number])

    def test_faulty_reading_leaves_no_trace(self):
        for fault in (1e16, -1e200, 1e-300):
            values = readings(40, around=10)
            self.check(self.window(10, values[:15] + [fault] + values[15:]), values[-10:])

    def test_few_readings(self):
        empty, one = SlidingWindow(3), self.window(1, [4, 5])
        self.assertEqual((empty.count, empty.mean, empty.variance, empty.stdev), (0, None, 0.0, 0.0))
        self.assertEqual((one.count, one.mean, one.variance, one.stdev), (1, 5, 0.0, 0.0))

    def test_size(self):
        with self.assertRaises(ValueError):
            SlidingWindow(0)
