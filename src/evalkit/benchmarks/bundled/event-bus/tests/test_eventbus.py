import gc
import unittest
import weakref

from eventbus import ANY, Bus, ListenerErrors


class BusTest(unittest.TestCase):
    def setUp(self):
        self.bus = Bus()
        self.heard = []

    def listen(self, name, event="tick", then=None, **options):
        """Subscribe a listener that notes its name and then does something."""

        def listener(event, *args, **kwargs):
            self.heard.append(name)
            if then is not None:
                then()

        return self.bus.subscribe(event, listener, **options)

    def emit(self, event="tick"):
        """Emit and return what was heard because of it."""
        self.heard.clear()
        called = self.bus.emit(event)
        self.assertEqual(called, len(self.heard))
        return "".join(self.heard)


class OrderTest(BusTest):
    def test_priority_then_age(self):
        for name, priority in (("c", 0), ("a", 2), ("d", 0), ("b", 1), ("e", -1)):
            self.listen(name, priority=priority)
        self.assertEqual(self.emit(), "abcde")

    def test_any_is_mixed_in(self):
        self.listen("b")
        self.listen("c", event=ANY)
        self.listen("d")
        self.listen("a", event=ANY, priority=1)
        self.assertEqual(self.emit(), "abcd")
        self.assertEqual(self.emit("other"), "ac")

    def test_arguments(self):
        got = []
        self.bus.subscribe("tick", lambda event, *args, **kwargs: got.append((event, args, kwargs)))
        self.assertEqual(self.bus.emit("tick", 1, two=2), 1)
        self.assertEqual(got, [("tick", (1,), {"two": 2})])


class CancelTest(BusTest):
    def test_own_subscription(self):
        own = self.listen("a", then=lambda: own.cancel())
        self.listen("b")
        self.listen("c")
        self.assertEqual(self.emit(), "abc")
        self.assertEqual(self.emit(), "bc")

    def test_later_one(self):
        self.listen("a", then=lambda: victim.cancel())
        victim = self.listen("b")
        self.listen("c")
        self.assertEqual(self.emit(), "ac")

    def test_later_one_of_any(self):
        self.listen("a", then=lambda: victim.cancel())
        victim = self.listen("b", event=ANY)
        self.listen("c", event=ANY)
        self.assertEqual(self.emit(), "ac")

    def test_same_function_twice(self):
        got = []
        high = self.bus.subscribe("tick", got.append, priority=5)
        low = self.bus.subscribe("tick", got.append, priority=-5)
        self.listen("m", then=lambda: got.append("middle"))
        low.cancel()
        self.assertEqual((high.active, low.active), (True, False))
        self.bus.emit("tick")
        self.assertEqual(got, ["tick", "middle"])

    def test_twice_without_effect(self):
        got = []
        first = self.bus.subscribe("tick", got.append)
        second = self.bus.subscribe("tick", got.append)
        first.cancel()
        first.cancel()
        self.assertEqual((first.active, second.active, self.bus.count("tick")), (False, True, 1))


class SubscribeOnTheWayTest(BusTest):
    def test_with_higher_priority(self):
        self.listen("a", then=lambda: self.listen("x", priority=9) if len(self.heard) == 1 else None)
        self.listen("b")
        self.assertEqual(self.emit(), "ab")
        self.assertEqual(self.emit(), "xab")

    def test_inner_emit_knows_the_newcomer(self):
        def start():
            self.listen("x", event="inner")
            self.heard.append(f"({self.bus.emit('inner')})")

        self.listen("a", then=start)
        self.listen("b")
        self.bus.emit("tick")
        self.assertEqual("".join(self.heard), "ax(1)b")


class OnceTest(BusTest):
    def test_once(self):
        once = self.listen("a", once=True)
        self.listen("b")
        self.assertTrue(once.active)
        self.assertEqual(self.emit(), "ab")
        self.assertFalse(once.active)
        self.assertEqual(self.emit(), "b")

    def test_over_before_it_runs(self):
        seen = []
        once = self.listen("a", once=True, then=lambda: seen.append((once.active, self.bus.count("tick"))))
        self.emit()
        self.assertEqual(seen, [(False, 0)])

    def test_emits_the_same_event(self):
        self.listen("a", once=True, then=lambda: self.bus.emit("tick"))
        self.bus.emit("tick")
        self.assertEqual(self.heard, ["a"])

    def test_called_by_an_inner_emit_before_its_turn(self):
        self.listen("a", once=True, then=lambda: self.bus.emit("tick"))
        self.listen("b", once=True)
        self.assertEqual(self.bus.emit("tick"), 1)
        self.assertEqual(self.heard, ["a", "b"])

    def test_over_even_if_it_raises(self):
        once = self.listen("a", once=True, then=lambda: 1 / 0)
        with self.assertRaises(ListenerErrors):
            self.bus.emit("tick")
        self.assertFalse(once.active)
        self.assertEqual(self.bus.emit("tick"), 0)


class ErrorTest(BusTest):
    def test_others_are_called(self):
        self.listen("a", then=lambda: [].pop())
        self.listen("b")
        self.listen("c", then=lambda: 1 / 0)
        self.listen("d")
        with self.assertRaises(ListenerErrors) as caught:
            self.bus.emit("tick")
        self.assertEqual(self.heard, list("abcd"))
        self.assertEqual([type(error) for error in caught.exception.errors], [IndexError, ZeroDivisionError])
        self.assertEqual(caught.exception.called, 4)

    def test_interrupt_passes_at_once(self):
        def interrupt():
            raise KeyboardInterrupt

        self.listen("a", then=interrupt)
        self.listen("b")
        with self.assertRaises(KeyboardInterrupt):
            self.bus.emit("tick")
        self.assertEqual(self.heard, ["a"])


class MemoryTest(BusTest):
    def test_listeners_are_let_go(self):
        class Listener:
            def __call__(self, event):
                pass

        listeners = [Listener() for _ in range(3)]
        references = [weakref.ref(listener) for listener in listeners]
        cancelled = self.bus.subscribe("tick", listeners[0])
        self.bus.subscribe("tick", listeners[1], once=True)
        self.bus.subscribe("tick", listeners[2])
        cancelled.cancel()
        self.bus.emit("tick")
        del cancelled
        listeners.clear()
        gc.collect()
        self.assertEqual([reference() is None for reference in references], [True, True, False])
