"""What can go wrong in a chat besides what the library raises.

MmgenError
└── ChatError
    ├── AttachmentError       a file, address or clipboard that gives no picture
    ├── BackendError          an answer that cannot be had, or not to its end
    │   ├── CannotDrawError       a model without picture output
    │   ├── EndpointDownError     a server that cannot be reached or died (also a `TransientError`)
    │   ├── EndpointReplyError    a server that answers with nonsense or an error of its own
    │   ├── NoRoomError           a dialogue that no longer fits the model's context
    │   ├── NotAllowedError       a key that is missing or wrong
    │   └── NotSupportedError     something that this backend cannot do
    └── StoreError            a database that is locked, damaged or of a later version
"""

from __future__ import annotations

from mmgen.errors import MmgenError, TransientError

__all__ = [
    "AttachmentError",
    "BackendError",
    "CannotDrawError",
    "ChatError",
    "EndpointDownError",
    "EndpointReplyError",
    "NoRoomError",
    "NotAllowedError",
    "NotSupportedError",
    "StoreError",
]


class ChatError(MmgenError):
    """Root of the errors that the chat adds to those of mmgen."""


class AttachmentError(ChatError):
    """A file, an address or the clipboard gives no usable picture."""


class BackendError(ChatError):
    """An answer cannot be had, or broke off; what came before is kept."""


class CannotDrawError(BackendError):
    """The model gives no pictures."""


class EndpointDownError(BackendError, TransientError):
    """A server cannot be reached, is too busy, or the connection broke; it may pass."""


class EndpointReplyError(BackendError):
    """A server refused a request or answered with something that is no answer."""


class NoRoomError(BackendError):
    """A dialogue no longer fits the context.

    `turn_ids` names the oldest turns without which it would; it is empty where the last message
    alone is too long.
    """

    def __init__(self, message: str, *, turn_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.turn_ids = turn_ids


class NotAllowedError(BackendError):
    """A server wants a key, or another one."""


class NotSupportedError(BackendError):
    """This backend cannot do what was asked."""


class StoreError(ChatError):
    """The database of conversations cannot be used."""
