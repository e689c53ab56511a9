"""The crash matrix: every story, with the operator killed before, during and after each thing it does outside itself.

The story is told once. At each of those points the process forks: in the child the operator is killed in that instant,
another one starts, and the story goes on to its end; the parent goes on with the reference. A child must reach the
reference's end with as many machines made, nothing left over and no breach on the way.

Another ``deed`` than a crash may be done at each point.

``python -m tests.scenarios.crashes STORY NUMBER`` tells one of them and prints its journal.
"""

import asyncio
import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.scenarios.portrait import Portrait, difference, portrait
from tests.scenarios.stories import STORIES, Story, ready
from tests.scenarios.universe import Universe, play

SETTLE_SECONDS = 60.0
"""After the end of a story: a claim that is still open would show by then."""
CHILDREN = 2


Deed = Callable[[Universe], object]


@dataclass
class Ending:
    """How one telling ended. ``trouble`` is what should not have been."""

    picture: Portrait
    born: int
    trouble: list[str]
    journal: list[str]


@dataclass
class Telling:
    """One story told in one universe. ``only``: the deed is done at that effect, in this very process."""

    story: Story
    points: Callable[[int], bool] = lambda number: False
    """The effects at which to fork."""
    only: int | None = None
    deed: Deed = Universe.crash
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="crashes-")))
    first: int = 0
    mine: int | None = None
    """The number of the effect at which this process forked off."""
    children: list[int] = field(default_factory=list)
    count: int = 0

    async def __call__(self, universe: Universe) -> Ending:
        universe.start()
        if self.story.prepared:
            universe.create_site()
            await ready(universe)
        self.first = len(universe.effects)
        universe.slow.update(self.story.slow)
        universe.on_effect = self._at(universe)
        ending = await self._tell(universe)
        self.count = len(universe.effects) - self.first
        if self.mine is not None:
            (self.folder / str(self.mine)).write_bytes(pickle.dumps(ending))
            os._exit(0)
        while self.children:
            self._reap()
        return ending

    async def _tell(self, universe: Universe) -> Ending:
        trouble: list[str] = []
        born = universe.witness.born.total()
        try:
            await self.story.act(universe)
            await asyncio.sleep(SETTLE_SECONDS)
        except AssertionError as error:
            trouble.append(str(error))
        except BaseException:
            trouble.append(traceback.format_exc())
        trouble += universe.witness.breaches
        trouble += [f"{v.kind} {v.detail}" for v in universe.cloud.violations]
        return Ending(portrait(universe), universe.witness.born.total() - born, trouble, universe.journal)

    def _at(self, universe: Universe) -> Callable[[int], None]:
        def at(number: int) -> None:
            number -= self.first
            if self.mine is not None:
                return
            if number == self.only:
                self.deed(universe)
            elif self.points(number):
                self._fork(universe, number)

        return at

    def _fork(self, universe: Universe, number: int) -> None:
        loop = asyncio.get_running_loop()
        if len(self.children) >= CHILDREN:
            self._reap()
        child = os.fork()
        if child:
            self.children.append(child)
            return
        asyncio._set_running_loop(loop)  # asyncio holds the running loop against the process's ID
        self.mine, self.children = number, []
        self.deed(universe)

    def _reap(self) -> None:
        os.waitpid(self.children.pop(0), 0)


def judge(reference: Ending, ending: Ending) -> list[str]:
    """What is wrong with an ending."""
    wrong = list(ending.trouble) + difference(reference.picture, ending.picture)
    if ending.born != reference.born:
        wrong.append(f"{ending.born} machines were made, not {reference.born}")
    return wrong


def matrix(
    story: Story, points: Callable[[int], bool] = lambda number: True, deed: Deed = Universe.crash
) -> dict[int, list[str]]:
    """The wrong ones, by the number of the effect, and -1 for the reference. ``points`` picks some of them."""
    telling = Telling(story, points, deed=deed)
    reference: Ending = play(telling, spec=story.spec)
    found = {-1: list(reference.trouble)} if reference.trouble else {}
    for number in filter(points, range(telling.count)):
        file = telling.folder / str(number)
        wrong = judge(reference, pickle.loads(file.read_bytes())) if file.exists() else ["it did not end"]
        file.unlink(missing_ok=True)
        if wrong:
            found[number] = wrong
    telling.folder.rmdir()
    return found


def tell(name: str, number: int | None) -> None:
    """Prints one telling."""
    story = STORIES[name]
    reference: Ending = play(Telling(story), spec=story.spec)
    ending: Ending = play(Telling(story, only=number), spec=story.spec) if number is not None else reference
    print("\n".join(ending.journal))
    print("\n".join(judge(reference, ending)) or "all is well")


if __name__ == "__main__":
    tell(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
