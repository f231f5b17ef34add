"""Work that a thread does meanwhile, one piece at a time; what goes wrong there is raised here."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Background:
    """Do a piece of work, and then, in the caller's own thread, what follows from it."""

    def __init__(self, threaded: bool) -> None:
        """Without a thread everything is done at once."""
        self.pool = ThreadPoolExecutor(1, "diffuse") if threaded else None
        self.future: Future[None] | None = None
        self.then: Callable[[], None] = lambda: None

    def do(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """Begin, after the piece before has come to its end."""
        self.wait()
        if self.pool is None:
            work()
            then()
        else:
            self.future, self.then = self.pool.submit(work), then

    def look(self) -> None:
        """What follows from a piece that is done; costs nothing."""
        if self.future is not None and self.future.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is left to do."""
        if self.future is not None:
            future, self.future = self.future, None
            future.result()
            self.then()
