import math
import unittest

from throttle import ANY, Bucket, Limiter


class Clock:
    """Shows what it is set to. All times in these tests are exact in binary."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class BucketTest(unittest.TestCase):
    def setUp(self):
        self.clock = Clock()

    def bucket(self, rate, burst, taken=0):
        bucket = Bucket(rate, burst, self.clock)
        self.assertTrue(bucket.take(taken))
        return bucket

    def test_frequent_askers_are_served(self):
        bucket = self.bucket(1, 2, taken=2)
        answers = []
        for _ in range(16):
            self.clock.now += 0.25
            answers.append(bucket.take())
        self.assertEqual(answers, [False, False, False, True] * 4)

    def test_fractions_of_tokens(self):
        bucket = self.bucket(0.5, 4, taken=4)
        self.clock.now += 3
        self.assertEqual(bucket.level, 1.5)
        self.assertTrue(bucket.take(1.5))
        self.assertEqual(bucket.level, 0)

    def test_never_above_burst(self):
        bucket = self.bucket(10, 3, taken=1)
        self.clock.now += 1000
        self.assertEqual(bucket.level, 3)
        self.assertFalse(bucket.take(3.5))

    def test_wait_is_exact(self):
        bucket = self.bucket(0.25, 2, taken=2)
        self.assertEqual(bucket.wait(), 4.0)
        self.clock.now += 1.5
        self.assertEqual((bucket.wait(), bucket.wait(2), bucket.wait(0.375)), (2.5, 6.5, 0.0))
        self.clock.now += 2.5 - 1 / 1024
        self.assertFalse(bucket.take())
        self.clock.now += 1 / 1024
        self.assertEqual(bucket.wait(), 0.0)
        self.assertTrue(bucket.take())

    def test_wait_for_more_than_there_can_be(self):
        self.assertEqual(self.bucket(1, 3).wait(3.5), math.inf)
        self.assertEqual(self.bucket(1, 3).wait(3), 0.0)

    def test_asking_changes_nothing(self):
        bucket = self.bucket(1, 2, taken=2)
        for _ in range(8):
            self.clock.now += 0.125
            self.assertGreater(bucket.wait(2), 0)
            self.assertFalse(bucket.take(2))
            self.assertLess(bucket.level, 2)
        self.assertTrue(bucket.take(1))

    def test_clock_goes_backwards(self):
        bucket = self.bucket(1, 10, taken=10)
        self.clock.now += 4
        self.assertEqual(bucket.level, 4)
        self.clock.now -= 300
        self.assertTrue(bucket.take(1))
        self.assertEqual(bucket.level, 3)
        self.assertEqual(bucket.wait(5), 302.0)
        self.clock.now += 300
        self.assertEqual(bucket.level, 3)
        self.clock.now += 2
        self.assertEqual(bucket.level, 5)


class LimiterTest(unittest.TestCase):
    def setUp(self):
        self.clock = Clock()
        self.limiter = Limiter({ANY: (1, 8), "transfer": (0.25, 2), "export": (0.125, 4)}, self.clock)

    def use(self, account, operation, times=1):
        for _ in range(times):
            self.assertTrue(self.limiter.allow(account, operation))

    def test_own_limit_and_that_of_all(self):
        self.use("ann", "transfer", 2)
        self.assertFalse(self.limiter.allow("ann", "transfer"))
        self.use("ann", "read", 6)
        self.assertFalse(self.limiter.allow("ann", "read"))

    def test_refused_call_is_charged_nowhere(self):
        self.use("ann", "transfer", 2)
        for _ in range(20):
            self.assertFalse(self.limiter.allow("ann", "transfer"))
        self.use("ann", "read", 6)

    def test_refused_by_the_limit_of_all(self):
        self.use("ann", "read", 8)
        self.assertFalse(self.limiter.allow("ann", "transfer"))
        self.clock.now += 2
        self.use("ann", "transfer", 2)

    def test_operation_named_any_is_charged_once(self):
        self.use("ann", ANY, 8)
        self.assertFalse(self.limiter.allow("ann", ANY))

    def test_accounts_are_independent(self):
        self.use("ann", "read", 8)
        self.use("bob", "read", 8)

    def test_cost(self):
        self.assertFalse(self.limiter.allow("ann", "export", cost=5))
        self.assertTrue(self.limiter.allow("ann", "export", cost=4))
        self.assertEqual(self.limiter.retry_after("ann", "export", cost=2), 16.0)
        self.assertEqual(self.limiter.retry_after("ann", "export", cost=5), math.inf)

    def test_retry_after_is_that_of_the_stricter_limit(self):
        self.use("ann", "transfer", 2)
        self.assertEqual(self.limiter.retry_after("ann", "transfer"), 4.0)
        self.clock.now += 2.5
        self.assertEqual(self.limiter.retry_after("ann", "transfer"), 1.5)
        self.assertEqual(self.limiter.retry_after("ann", "read"), 0.0)
        self.clock.now += 1.5
        self.use("ann", "transfer")

    def test_clock_goes_backwards(self):
        self.use("ann", "transfer", 2)
        self.clock.now -= 300
        self.assertEqual(self.limiter.retry_after("ann", "transfer"), 304.0)
        self.assertEqual(self.limiter.retry_after("ann", "read"), 0.0)
        self.use("ann", "read", 6)
        self.clock.now += 304
        self.use("ann", "transfer")


class PurgeTest(unittest.TestCase):
    def setUp(self):
        self.clock = Clock()
        self.limiter = Limiter({ANY: (1, 8), "export": (0.0078125, 2)}, self.clock)

    def test_used_up_stays_used_up(self):
        self.assertTrue(self.limiter.allow("ann", "export", cost=2))
        self.clock.now += 64
        self.limiter.purge()
        self.assertFalse(self.limiter.allow("ann", "export"))
        self.assertEqual(self.limiter.retry_after("ann", "export"), 64.0)
        self.clock.now += 64
        self.assertTrue(self.limiter.allow("ann", "export"))

    def test_full_buckets_are_dropped(self):
        self.limiter.allow("ann", "export")
        self.limiter.allow("bob", "read")
        self.clock.now += 32
        self.assertEqual(len(self.limiter), 3)
        self.assertEqual((self.limiter.purge(), len(self.limiter)), (2, 1))
        self.clock.now += 96
        self.assertEqual((self.limiter.purge(), len(self.limiter)), (1, 0))

    def test_answers_do_not_depend_on_purges(self):
        def answers(purging):
            self.clock.now = 5000.0
            limiter = Limiter({ANY: (0.5, 4), "export": (0.0625, 2)}, self.clock)
            found = []
            for number in range(300):
                self.clock.now += -900 if number == 150 else (number * 7 % 5) * 0.5
                operation = ("read", "export", "read", "read")[number % 4]
                found.append((limiter.retry_after("ann", operation), limiter.allow("ann", operation)))
                if purging and number % 10 == 9:
                    limiter.purge()
            return found

        self.assertEqual(answers(purging=True), answers(purging=False))

    def test_clock_goes_backwards_over_a_purge(self):
        self.limiter.allow("ann", "read", cost=8)
        self.clock.now += 8
        self.limiter.purge()
        self.clock.now -= 300
        self.assertTrue(self.limiter.allow("ann", "read", cost=8))
        self.clock.now += 300
        self.assertFalse(self.limiter.allow("ann", "read"))
