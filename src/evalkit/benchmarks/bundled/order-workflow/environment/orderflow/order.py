"""Orders and the table that drives them."""

from .machine import ANY, Machine, Transition


class Order:
    """Something a customer wants to have."""

    def __init__(self, machine, price):
        self._machine = machine
        self.price = price
        self.paid = 0
        self.state = machine.initial
        self.history = []

    def send(self, event, **data):
        """Let an event happen to this order."""
        self._machine.send(self, event, data)

    def receive(self, amount):
        """Book a payment."""
        if amount <= 0:
            raise ValueError(f"not a payment: {amount}")
        self.paid += amount


def covers(order, amount):
    """Whether a payment of *amount* completes the price."""
    return order.paid + amount >= order.price


def falls_short(order, amount):
    """Whether something is still to be paid after a payment of *amount*."""
    return not covers(order, amount)


def order_machine(on_enter=None):
    """The machine of our shop."""
    return Machine(
        initial="draft",
        transitions=[
            Transition("place", "draft", "placed"),
            Transition("pay", "placed", "placed", guard=falls_short, action=Order.receive),
            Transition("pay", "placed", "paid", guard=covers, action=Order.receive),
            Transition("ship", "paid", "shipped"),
            Transition("deliver", "shipped", "delivered"),
            Transition("cancel", ANY, "cancelled"),
        ],
        on_enter=on_enter,
        final=("delivered", "cancelled"),
    )
