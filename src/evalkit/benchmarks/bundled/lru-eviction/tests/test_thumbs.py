import unittest

from thumbs import Thumbnails, WeightedLRU

TEN = b"0123456789"


def filled(*names, capacity=30, **kwargs):
    cache = WeightedLRU(capacity, **kwargs)
    for name in names:
        cache.put(name, TEN)
    return cache


class OrderTest(unittest.TestCase):
    def test_get_is_a_use(self):
        cache = filled("a", "b", "c")
        self.assertEqual(cache.get("a"), TEN)
        cache.put("d", TEN)
        self.assertEqual(cache.keys(), ["c", "a", "d"])

    def test_looking_is_no_use(self):
        cache = filled("a", "b", "c")
        self.assertTrue("a" in cache and len(cache) == 3 and cache.weight == 30 and cache.keys())
        cache.put("d", TEN)
        self.assertEqual(cache.keys(), ["b", "c", "d"])

    def test_stored_none_is_not_the_default(self):
        cache = WeightedLRU(5, weigh=lambda value: 1)
        cache.put("a", None)
        cache.put("b", 0)
        self.assertIsNone(cache.get("a", "default"))
        self.assertEqual(cache.keys(), ["b", "a"])


class WeightTest(unittest.TestCase):
    def test_replacing_does_not_add_up(self):
        cache = filled("other")
        for _ in range(5):
            cache.put("logo", TEN)
        self.assertEqual((cache.keys(), cache.weight), (["other", "logo"], 20))

    def test_replacing_with_another_weight(self):
        cache = filled("a", "b")
        cache.put("a", b"x")
        self.assertEqual(cache.weight, 11)
        cache.put("b", TEN + TEN)
        self.assertEqual((cache.keys(), cache.weight), (["a", "b"], 21))

    def test_replacing_the_oldest_in_a_full_cache_evicts_nobody(self):
        evicted = []
        cache = filled("a", "b", "c", on_evict=lambda key, value: evicted.append(key))
        cache.put("a", TEN[::-1])
        self.assertEqual((cache.keys(), cache.weight, evicted), (["b", "c", "a"], 30, []))

    def test_too_heavy_leaves_the_others(self):
        cache = filled("a", "b")
        cache.put("huge", TEN * 4)
        self.assertEqual((cache.keys(), cache.weight), (["a", "b"], 20))

    def test_too_heavy_drops_the_outdated_value(self):
        cache = filled("a", "b")
        cache.put("a", TEN * 4)
        self.assertEqual((cache.keys(), cache.weight), (["b"], 10))

    def test_exactly_the_capacity_fits(self):
        cache = filled("a", "b")
        cache.put("c", TEN * 3)
        self.assertEqual((cache.keys(), cache.weight), (["c"], 30))


class EvictionCallbackTest(unittest.TestCase):
    def test_called_for_evicted_entries_only(self):
        calls = []
        cache = filled("a", "b", "c", on_evict=lambda key, value: calls.append((key, value)))
        cache.put("b", b"new")
        cache.put("huge", TEN * 4)
        cache.put("b", TEN * 4)
        cache.discard("c")
        self.assertEqual(calls, [])
        cache.put("d", TEN * 3)
        self.assertEqual(calls, [("a", TEN)])

    def test_entry_is_gone_when_called(self):
        seen = []
        cache = filled("a", "b", "c", on_evict=lambda key, value: seen.append((key in cache, cache.weight)))
        cache.put("d", TEN)
        self.assertEqual(seen, [(False, 20)])


class ThumbnailsTest(unittest.TestCase):
    def setUp(self):
        self.rendered = []

    def render(self, name, size):
        self.rendered.append(name)
        return b"." * size[0]

    def test_popular_picture_is_rendered_once(self):
        service = Thumbnails(self.render, capacity=20)
        for number in range(6):
            service.thumbnail("logo", (10, 10))
            service.thumbnail(f"picture {number}", (10, 10))
        self.assertEqual(self.rendered.count("logo"), 1)

    def test_too_large_picture_is_still_delivered(self):
        service = Thumbnails(self.render, capacity=20)
        self.assertEqual(service.thumbnail("poster", (50, 50)), b"." * 50)
