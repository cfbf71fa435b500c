"""One event as it is told: to whom in which form, and the frame of each form, made once for all who get it."""

from __future__ import annotations

from typing import Final

from appliance.live.wire.frames import text_frame
from appliance.model import JSON, Change, Message, Op, ascii_fold
from appliance.protocol import frames
from appliance.protocol.frames import Form
from appliance.protocol.json import decode
from appliance.protocol.values import ValueOptions

CREATE: Final = Form(Op.CREATE)
UPDATE: Final = Form(Op.UPDATE)
UPDATE_WITH_OLD: Final = Form(Op.UPDATE, old_data=True)
#: To whom the old row may not be shown.
UPDATE_ALONE: Final = Form(Op.UPDATE, old_key=False)
DELETE: Final = Form(Op.DELETE)
#: To whom a row that leaves may not be shown, though they may hold it.
GONE: Final = Form(Op.DELETE, data=False)
#: A change as what it is.
PLAIN: Final = {Op.CREATE: CREATE, Op.UPDATE: UPDATE, Op.DELETE: DELETE}
#: What happened where somebody has sent a message, in the wire's word.
NEW_MESSAGE: Final = "new-message"

_UNREAD: Final = object()


class Told:
    """One event, and what has been made of it so far."""

    __slots__ = ("_frames", "_message", "event", "kind", "topic")

    def __init__(self, event: Change | Message) -> None:
        self.event = event
        #: What happened, in the wire's word.
        self.kind = frames.EVENT_TYPES[event.op] if isinstance(event, Change) else NEW_MESSAGE
        #: The topic's name, folded.
        self.topic = ascii_fold(event.shape.table if isinstance(event, Change) else event.topic)
        self._frames: dict[Form | None, bytes] = {}
        self._message: object = _UNREAD

    @property
    def id(self) -> int:
        """The event's position; a message that is not durable has none, and is never asked."""
        return self.event.id or 0

    def change(self, form: Form, options: ValueOptions) -> bytes:
        """Give the frame that tells a change in this form."""
        frame = self._frames.get(form)
        if frame is None:
            assert isinstance(self.event, Change)  # noqa: S101
            frame = self._frames[form] = text_frame(frames.change(self.event, options, form))
        return frame

    def message(self) -> bytes:
        """Give the frame that tells a message."""
        frame = self._frames.get(None)
        if frame is None:
            assert isinstance(self.event, Message)  # noqa: S101
            frame = self._frames[None] = text_frame(frames.message(self.event))
        return frame

    def value(self) -> JSON:
        """Give a message as a value."""
        if self._message is _UNREAD:
            assert isinstance(self.event, Message)  # noqa: S101
            self._message = decode(self.event.body)
        return self._message  # type: ignore[return-value]
