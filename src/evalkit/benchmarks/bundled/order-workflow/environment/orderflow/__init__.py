"""The life of an order."""

from .machine import ANY, InvalidEvent, Machine, Transition
from .order import Order, order_machine

__all__ = ["ANY", "InvalidEvent", "Machine", "Order", "Transition", "order_machine"]
