"""Running a coroutine by hand until it has to wait, and as a Task only from there on.

Most requests are answered from memory without waiting. A Task for each would cost more than the
answer, so the first step is taken here; a coroutine that did suspend is carried on by a real Task
that waits for the very future it stopped at. Nothing is run twice.

Each coroutine gets its own context, the same before and after the hand-over. Until the hand-over
there is no current task: what needs one (``asyncio.timeout``, a task group) must come after the
first wait or run in a task of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Coroutine, Generator
from typing import Any


def start(
    coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop
) -> asyncio.Task[None] | None:
    """Run ``coroutine`` to its first wait: None when it finished, else the Task that goes on.

    What it raises before its first wait comes out here.
    """
    context = contextvars.copy_context()
    try:
        waited_for = context.run(coroutine.send, None)
    except StopIteration:
        return None
    if waited_for is not None:  # until the Task asks for it, others may await the same future
        waited_for._asyncio_future_blocking = False
    return loop.create_task(_carry_on(coroutine, waited_for), context=context)


async def _carry_on(coroutine: Coroutine[Any, Any, None], waited_for: Any) -> None:
    await _resume(coroutine, waited_for)


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, None], waited_for: Any) -> Generator[Any, Any, None]:
    """Yield what the coroutine yielded before, then be the coroutine.

    The Task adds itself to that future as if it had just been awaited; a cancellation that comes in
    this first wait is thrown into the coroutine, which may go on and wait again.
    """
    while True:
        try:
            if waited_for is None:
                yield
            elif not waited_for.done():
                waited_for._asyncio_future_blocking = True  # as ``await`` marks it for the Task
                yield waited_for
        except BaseException as error:
            try:
                waited_for = coroutine.throw(error)
            except StopIteration:
                return
        else:
            yield from coroutine.__await__()
            return
