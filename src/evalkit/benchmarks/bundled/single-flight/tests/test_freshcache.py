import unittest

from freshcache import Cache, LoadError, PriceBook
from threads import Background, Gate, Key


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class CacheTest(unittest.TestCase):
    def setUp(self):
        self.clock = Clock()
        self.cache = Cache(10, self.clock)

    def begin(self, key, outcome):
        """A load of *key* in a thread of its own, which has begun."""
        gate = Gate(outcome)
        thread = Background(self.cache.get, key, gate)
        gate.wait_until_begun()
        return gate, thread

    def get(self, key, value="other"):
        """What a new thread gets for *key*; *value* if it has to load."""
        return Background(self.cache.get, key, lambda: value).result()

    def finish(self, load):
        gate, thread = load
        gate.let_go()
        return thread.result()

    def check_joined(self, new):
        """That the load *new* of "a" is still known to be on its way, and that its result, "new", is kept."""
        many = Gate({"a": "third", "b": "third"})
        both = Background(self.cache.get_many, ["a", "b"], many)
        many.wait_until_begun()
        self.assertEqual(many.calls, [(["b"],)])
        many.let_go()
        self.assertEqual(self.finish(new), "new")
        self.assertEqual(both.result(), {"a": "new", "b": "third"})
        self.assertEqual(self.get("a"), "new")


class KeepingTest(CacheTest):
    def test_loads_once(self):
        self.assertEqual(self.cache.get("a", lambda: 1), 1)
        self.assertEqual(self.cache.get("a", self.fail), 1)

    def test_time_to_live(self):
        self.cache.get("a", lambda: 1)
        self.clock.now += 9.5
        self.assertEqual(self.get("a"), 1)
        self.clock.now += 0.5
        self.assertEqual(self.get("a", 2), 2)

    def test_time_counts_from_the_arrival(self):
        def slow():
            self.clock.now += 60
            return 1

        def slow_many(keys):
            self.clock.now += 60
            return dict.fromkeys(keys, 2)

        self.cache.get("a", slow)
        self.clock.now += 9.5
        self.assertEqual(self.get("a"), 1)
        self.cache.get_many(["b"], slow_many)
        self.clock.now += 9.5
        self.assertEqual(self.get("b"), 2)


class TogetherTest(CacheTest):
    def test_many_threads_one_load(self):
        key, gate = Key("a", threads=8), Gate("value")
        threads = [Background(self.cache.get, key, gate) for _ in range(8)]
        key.wait_for_all()
        gate.let_go()
        self.assertEqual([thread.result() for thread in threads], ["value"] * 8)
        self.assertEqual(len(gate.calls), 1)

    def test_get_and_get_many_share_loads(self):
        key, single, many = Key("a", threads=2), Gate("one"), Gate({})
        first = Background(self.cache.get, key, single)
        single.wait_until_begun()
        second = Background(self.cache.get_many, [key], many)
        key.wait_for_all()
        single.let_go()
        self.assertEqual((first.result(), second.result()), ("one", {key: "one"}))
        self.assertEqual(many.calls, [])

    def test_get_joins_get_many(self):
        key, single = Key("a", threads=2), Gate("one")
        many = Gate({key: "many", "b": 2})
        first = Background(self.cache.get_many, [key, "b"], many)
        many.wait_until_begun()
        second = Background(self.cache.get, key, single)
        key.wait_for_all()
        many.let_go()
        self.assertEqual((first.result(), second.result()), ({key: "many", "b": 2}, "many"))
        self.assertEqual(single.calls, [])

    def test_get_many_loads_its_part_before_it_waits(self):
        load, many = self.begin("a", 1), Gate({"b": 2})
        both = Background(self.cache.get_many, ["a", "b"], many)
        many.wait_until_begun()
        self.assertEqual(many.calls, [(["b"],)])
        many.let_go()
        self.assertEqual(self.get("b"), 2)
        self.finish(load)
        self.assertEqual(list(both.result().items()), [("a", 1), ("b", 2)])

    def test_different_keys_do_not_wait(self):
        load = self.begin("a", 1)
        self.assertEqual(self.get("b", 2), 2)
        self.assertEqual(self.finish(load), 1)

    def test_load_uses_the_cache(self):
        def sum_up():
            return self.cache.get("a", lambda: 1) + self.cache.get_many(["b"], lambda keys: {"b": 2})["b"]

        self.assertEqual(Background(self.cache.get, "sum", sum_up).result(), 3)


class FailureTest(CacheTest):
    def test_next_one_loads_again(self):
        for error in (OSError("down"), KeyError("x"), SystemExit(3)):
            with self.assertRaises(type(error)):
                self.cache.get("a", lambda error=error: self.throw(error))
            self.assertEqual(self.get("a", 1), 1)
            self.cache.clear()

    def throw(self, error):
        raise error

    def test_those_who_wait_do_not_hang(self):
        for error, seen in ((OSError("down"), OSError), (KeyboardInterrupt(), (KeyboardInterrupt, LoadError))):
            key, gate = Key("a", threads=2), Gate(error)
            first = Background(self.cache.get, key, gate)
            gate.wait_until_begun()
            second = Background(self.cache.get, key, gate)
            key.wait_for_all()
            gate.let_go()
            with self.assertRaises(type(error)):
                first.result()
            with self.assertRaises(seen):
                second.result()

    def test_get_many(self):
        with self.assertRaises(OSError):
            self.cache.get_many(["a", "b"], lambda keys: self.throw(OSError()))
        self.assertEqual((self.get("a", 1), self.get("b", 2)), (1, 2))

    def test_get_many_without_all_keys(self):
        with self.assertRaises(KeyError):
            self.cache.get_many(["a", "b"], lambda keys: {"a": 1})
        self.assertEqual((self.get("b", 3), self.get("a", 2)), (3, 2))

    def test_failed_load_after_an_invalidation(self):
        old = self.begin("a", OSError())
        self.cache.invalidate("a")
        new = self.begin("a", "new")
        with self.assertRaises(OSError):
            self.finish(old)
        self.check_joined(new)


class InvalidationTest(CacheTest):
    WAYS = {
        "invalidate": lambda cache: cache.invalidate("a"),
        "invalidate_where": lambda cache: cache.invalidate_where(lambda key: key == "a"),
        "clear": lambda cache: cache.clear(),
    }

    def test_what_is_kept(self):
        for way in self.WAYS.values():
            self.cache.put("a", 1)
            way(self.cache)
            self.assertEqual(self.get("a", 2), 2)

    def test_load_on_its_way_is_not_kept(self):
        for name, way in self.WAYS.items():
            load = self.begin("a", "old")
            way(self.cache)
            self.assertEqual(self.finish(load), "old", name)
            self.assertEqual(self.get("a", "new"), "new", name)
            self.cache.clear()

    def test_nobody_joins_an_outdated_load(self):
        for name, way in self.WAYS.items():
            load = self.begin("a", "old")
            way(self.cache)
            self.assertEqual(self.get("a", "new"), "new", name)
            self.finish(load)
            self.assertEqual(self.get("a"), "new", name)
            self.cache.clear()

    def test_outdated_load_arrives_while_a_later_one_is_on_its_way(self):
        old = self.begin("a", "old")
        self.cache.invalidate("a")
        new = self.begin("a", "new")
        self.assertEqual(self.finish(old), "old")
        self.check_joined(new)

    def test_load_of_get_many(self):
        many = Gate({"a": "old", "b": "kept"})
        both = Background(self.cache.get_many, ["a", "b"], many)
        many.wait_until_begun()
        self.cache.invalidate("a")
        self.assertEqual(self.get("a", "new"), "new")
        many.let_go()
        self.assertEqual(both.result(), {"a": "old", "b": "kept"})
        self.assertEqual((self.get("a"), self.get("b")), ("new", "kept"))

    def test_put_outdates_a_load(self):
        load = self.begin("a", "old")
        self.cache.put("a", "put")
        self.assertEqual(self.get("a"), "put")
        self.assertEqual(self.finish(load), "old")
        self.assertEqual(self.get("a"), "put")

    def test_other_keys_stay(self):
        self.cache.put("b", 2)
        load = self.begin("c", 3)
        self.cache.invalidate("a")
        self.cache.invalidate_where(lambda key: key == "a")
        self.finish(load)
        self.assertEqual((self.get("b"), self.get("c")), (2, 3))


class Store:
    """A database in which reading "tea" can be made to take its time."""

    def __init__(self):
        self.values = {"tea": 4, "tart": 6}
        self.pause = None

    def read(self, name):
        value = self.values[name]
        if self.pause is not None and name == "tea":
            pause, self.pause = self.pause, None
            pause()
        return value

    def read_many(self, names):
        return {name: self.read(name) for name in names}

    def write(self, name, price):
        self.values[name] = price


class PriceBookTest(unittest.TestCase):
    def setUp(self):
        self.store = Store()
        self.book = PriceBook(self.store, 3600, Clock())

    def check(self, read, change, after):
        pause = self.store.pause = Gate(None)
        reader = Background(read)
        pause.wait_until_begun()
        change()
        pause.let_go()
        reader.result()
        self.assertEqual(Background(self.book.price, "tea").result(), after)

    def test_update_while_the_price_is_read(self):
        self.check(lambda: self.book.price("tea"), lambda: self.book.update("tea", 5), 5)

    def test_update_while_all_prices_are_read(self):
        self.check(lambda: self.book.prices(["tart", "tea"]), lambda: self.book.update("tea", 5), 5)

    def test_reload_while_the_price_is_read(self):
        def change():
            self.store.values["tea"] = 7
            self.book.reload("te")

        self.check(lambda: self.book.price("tea"), change, 7)

    def test_price_is_read_while_it_is_written(self):
        write = self.store.write

        def write_slowly(name, price):
            Background(self.book.price, "tea").result()
            write(name, price)

        self.store.write = write_slowly
        self.book.update("tea", 5)
        self.assertEqual(Background(self.book.price, "tea").result(), 5)

    def test_prices(self):
        self.assertEqual(self.book.prices(["tart", "tea", "tart"]), {"tart": 6, "tea": 4})
