"""The progress bar of embedding, on standard error of the first process."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        """Return the rate, or a dash before it is known."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "-/s", style="cyan")


def track(items: Any, *, what: str, total: int, batch_size: int, progress: bool) -> Iterator[Any]:
    """Pass `items` on, one per batch, under a bar that counts the rows of the `total`."""
    columns = (
        TextColumn("embed {task.description:<23}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not progress or jax.process_index() != 0) as bars:
        task, done = bars.add_task(what, total=total), 0
        for item in items:
            yield item
            done = min(total, done + batch_size)
            bars.update(task, completed=done)


@contextlib.contextmanager
def pairs_bar(*, total: int, done: int, progress: bool) -> Iterator[Callable[[int], None]]:
    """Draw a bar of scored pairs, in millions, with rate and remaining time; yield what advances it by pairs."""
    columns = (
        TextColumn("score {task.description:<23}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not progress or jax.process_index() != 0) as bars:
        task = bars.add_task("million pairs", total=-(-total // 10**6), completed=done // 10**6)

        def advance(pairs: int) -> None:
            nonlocal done
            done += pairs
            bars.update(task, completed=-(-done // 10**6))

        yield advance
