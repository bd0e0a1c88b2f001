import unittest

from orderflow import ANY, InvalidEvent, Machine, Order, Transition, order_machine


def order_in(state, machine=None, price=20):
    order = Order(machine or order_machine(), price)
    steps = [("place", {}), ("pay", {"amount": price}), ("ship", {}), ("deliver", {})]
    for event, data in steps:
        if order.state == state:
            return order
        order.send(event, **data)
    return order


class TableTest(unittest.TestCase):
    def test_the_usual_life(self):
        order = order_in("delivered")
        self.assertEqual(
            order.history,
            [
                ("place", "draft", "placed"),
                ("pay", "placed", "paid"),
                ("ship", "paid", "shipped"),
                ("deliver", "shipped", "delivered"),
            ],
        )

    def test_part_payments(self):
        order = order_in("placed")
        order.send("pay", amount=5)
        self.assertEqual((order.state, order.paid), ("placed", 5))
        order.send("pay", amount=15)
        self.assertEqual((order.state, order.paid), ("paid", 20))
        self.assertEqual(order.history[1:], [("pay", "placed", "placed"), ("pay", "placed", "paid")])

    def test_final_states(self):
        for event in ("cancel", "deliver", "place"):
            order = order_in("delivered")
            with self.assertRaises(InvalidEvent):
                order.send(event)
            self.assertEqual((order.state, len(order.history)), ("delivered", 4))

    def test_cancel_from_every_other_state(self):
        for state in ("draft", "placed", "paid", "shipped"):
            order = order_in(state)
            order.send("cancel")
            self.assertEqual(order.state, "cancelled")

    def test_first_line_from_the_top(self):
        table = [
            Transition("go", ANY, "holiday", guard=lambda order, day: day == "sunday"),
            Transition("go", "home", "work"),
            Transition("go", "home", "never"),
            Transition("go", ANY, "home"),
        ]
        order = Order(Machine("home", table), 0)
        for day, state in (("monday", "work"), ("monday", "home"), ("sunday", "holiday"), ("monday", "home")):
            order.send("go", day=day)
            self.assertEqual(order.state, state)


class FailureTest(unittest.TestCase):
    def test_failing_action(self):
        order = order_in("placed")
        with self.assertRaises(ValueError):
            order.send("pay", amount=-1)
        self.assertEqual((order.state, order.history), ("placed", [("place", "draft", "placed")]))
        order.send("pay", amount=20)
        self.assertEqual(order.state, "paid")

    def test_failing_hook(self):
        def no_printer(order):
            raise OSError("the printer is off")

        order = order_in("placed", order_machine({"paid": no_printer}))
        with self.assertRaises(OSError):
            order.send("pay", amount=20)
        self.assertEqual((order.state, order.history), ("placed", [("place", "draft", "placed")]))
        order.send("cancel")
        self.assertEqual(order.state, "cancelled")

    def test_action_and_hook_see_the_old_state(self):
        seen = []
        machine = Machine(
            "a",
            [Transition("go", "a", "b", action=lambda order: seen.append(("action", order.state, len(order.history))))],
            on_enter={"b": lambda order: seen.append(("hook", order.state, len(order.history)))},
        )
        Order(machine, 0).send("go")
        self.assertEqual(seen, [("action", "a", 0), ("hook", "a", 0)])


class NestedTest(unittest.TestCase):
    def test_hook_sends_the_next_event(self):
        order = order_in("placed", order_machine({"paid": lambda order: order.send("ship")}))
        order.send("pay", amount=20)
        self.assertEqual(order.state, "shipped")
        self.assertEqual(order.history[1:], [("pay", "placed", "paid"), ("ship", "paid", "shipped")])

    def test_inner_send_returns_before_the_event_is_handled(self):
        seen = []

        def hook(order):
            order.send("ship")
            order.send("deliver")
            seen.append((order.state, len(order.history)))

        order = order_in("placed", order_machine({"paid": hook}))
        order.send("pay", amount=20)
        self.assertEqual(seen, [("placed", 1)])
        self.assertEqual([event for event, _, _ in order.history], ["place", "pay", "ship", "deliver"])

    def test_action_sends_and_events_keep_their_order(self):
        table = [
            Transition("start", "idle", "one", action=lambda order: order.send("a")),
            Transition("a", ANY, "two", action=lambda order: order.send("c")),
            Transition("b", ANY, "three"),
            Transition("c", ANY, "four"),
        ]
        order = Order(Machine("idle", table, {"one": lambda order: order.send("b")}), 0)
        order.send("start")
        self.assertEqual([event for event, _, _ in order.history], ["start", "a", "b", "c"])
        self.assertEqual(order.state, "four")

    def test_waiting_events_are_dropped_when_the_outer_one_fails(self):
        calls = []

        def hook(order):
            calls.append("hook")
            order.send("ship")
            raise OSError

        order = order_in("placed", order_machine({"paid": hook}))
        for _ in range(2):
            with self.assertRaises(OSError):
                order.send("pay", amount=20)
        order.send("cancel")
        self.assertEqual(
            (calls, order.history), (["hook"] * 2, [("place", "draft", "placed"), ("cancel", "placed", "cancelled")])
        )

    def test_invalid_waiting_event(self):
        def hook(order):
            for event in ("ship", "fly", "deliver"):
                order.send(event)

        order = order_in("placed", order_machine({"paid": hook}))
        with self.assertRaises(InvalidEvent):
            order.send("pay", amount=20)
        self.assertEqual([event for event, _, _ in order.history], ["place", "pay", "ship"])
        order.send("deliver")
        self.assertEqual(order.state, "delivered")

    def test_hook_runs_on_every_entry(self):
        entered = []
        order = order_in("placed", order_machine({"placed": lambda order: entered.append(order.paid)}))
        order.send("pay", amount=5)
        order.send("pay", amount=6)
        self.assertEqual(entered, [0, 5, 11])

    def test_other_orders_are_handled_at_once(self):
        machine = order_machine()
        other = order_in("placed", machine)
        seen = []

        def hook(order):
            other.send("cancel")
            seen.append(other.state)

        order = order_in("placed", order_machine({"paid": hook}))
        order.send("pay", amount=20)
        self.assertEqual(seen, ["cancelled"])
