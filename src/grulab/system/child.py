"""Call a function in a process of its own, which takes its imports and its threads with it when it ends."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from grulab.system.parent_death import end_with_parent


class ChildFailedError(RuntimeError):
    """The function has raised an exception, or its process has died."""


class Child:
    """A function that runs in a forked process while this process goes on.

    Args:
        function: what to call.
        arguments: its arguments.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        parent = os.getpid()

        def work() -> None:
            try:
                end_with_parent(parent)
                self._receiver.close()
                answer = _answer(function, arguments)
                # Nobody waits for it, if an error has ended what the parent did meanwhile.
                with suppress(OSError):
                    sender.send(answer)
            finally:
                # A regular exit would run the exit handlers of the parent's libraries.
                os._exit(0)

        self._process = context.Process(target=work)
        self._process.start()
        sender.close()

    def result(self, seconds: float | None = None) -> Any:
        """Wait for what the function returns.

        Args:
            seconds: the longest time to wait; None waits for ever.

        Raises:
            ChildFailedError: with the last line of the exception, or if it takes too long.
        """
        try:
            if not self._receiver.poll(seconds):
                self._process.kill()
                self._process.join()
                raise ChildFailedError(f"it took over {seconds:g} seconds")
            is_done, result = self._receiver.recv()
        except EOFError:
            self._process.join()
            raise ChildFailedError(f"its process ended with the code {self._process.exitcode}") from None
        except BaseException:
            # A signal: nobody waits for the result any more.
            self._process.kill()
            raise
        finally:
            self._receiver.close()
        self._process.join()
        if not is_done:
            raise ChildFailedError(str(result))
        return result


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except BaseException:
        return False, traceback.format_exc().strip().splitlines()[-1]


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
    return Child(function, *arguments).result(seconds)
