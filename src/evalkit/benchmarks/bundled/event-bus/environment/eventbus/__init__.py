"""Events within one program."""

from .bus import ANY, Bus, ListenerErrors
from .subscription import Subscription

__all__ = ["ANY", "Bus", "ListenerErrors", "Subscription"]
