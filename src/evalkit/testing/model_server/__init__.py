"""A scripted model endpoint on loopback: OpenAI-compatible, with LiteLLM's virtual keys.

The script is a function from a request to a `Reply` or a `Fault`:

    with ModelServer(lambda request: Reply(text="hello")) as server:
        ...  # server.base_url

Every call is recorded, with its cost and whether its answer was sent in full.
"""

from evalkit.testing.model_server.dialects import CostStyle
from evalkit.testing.model_server.keys import VirtualKey
from evalkit.testing.model_server.script import (
    Fault,
    FaultKind,
    ModelRequest,
    Reply,
    Script,
    Tokens,
    ToolCall,
    by_conversation,
    in_turn,
    text_of,
    with_faults,
)
from evalkit.testing.model_server.server import Call, ModelServer

__all__ = [
    "Call",
    "CostStyle",
    "Fault",
    "FaultKind",
    "ModelRequest",
    "ModelServer",
    "Reply",
    "Script",
    "Tokens",
    "ToolCall",
    "VirtualKey",
    "by_conversation",
    "in_turn",
    "text_of",
    "with_faults",
]
