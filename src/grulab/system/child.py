"""Call a function in a process of its own, which takes its imports and its threads with it when it ends."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from typing import Any

from grulab.system.parent_death import end_with_parent


class ChildFailedError(RuntimeError):
    """The function has raised an exception, or its process has died."""


def in_child(function: Callable[..., Any], *arguments: Any, seconds: float | None = None) -> Any:
    """Return what a function returns in a forked process.

    A process that is forked later would not have the threads that a library starts for the function, and could wait
    for them for ever.

    Args:
        function: what to call.
        arguments: its arguments.
        seconds: the longest time that it may take; None waits for ever.

    Raises:
        ChildFailedError: with the last line of the exception, or if it takes too long.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    parent = os.getpid()

    def work() -> None:
        end_with_parent(parent)
        receiver.close()
        try:
            sender.send((True, function(*arguments)))
        except BaseException:
            sender.send((False, traceback.format_exc().strip().splitlines()[-1]))
        sender.close()
        # A regular exit would run the exit handlers of the parent's libraries.
        os._exit(0)

    process = context.Process(target=work)
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            process.kill()
            process.join()
            raise ChildFailedError(f"it took over {seconds:g} seconds")
        is_done, result = receiver.recv()
    except EOFError:
        process.join()
        raise ChildFailedError(f"its process ended with the code {process.exitcode}") from None
    except BaseException:
        # A signal: nobody waits for the result any more.
        process.kill()
        raise
    finally:
        receiver.close()
    process.join()
    if not is_done:
        raise ChildFailedError(str(result))
    return result
