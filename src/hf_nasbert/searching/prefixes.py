"""A beam over prefixes: children grow block by block, a model of those scored says which are worth it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hf_nasbert.searching.base import Search
from hf_nasbert.searching.predictors import PENALTIES, OperatorRidge
from hf_nasbert.settings import setting
from hf_nasbert.space import SKIP, Architecture


@dataclass(eq=False, repr=False, kw_only=True)
class PrefixBeamSearch(Search):
    """Grow a beam of prefixes by one choice block at a time; of the grown ones those predicted best are scored.

    Every prefix of the beam is grown by every operator of its next block, a model of all children scored so far
    predicts the grown ones, the best `beam_size` are scored and are the next beam. (PNAS: Liu et al., 2018,
    https://arxiv.org/abs/1712.00559, whose model is a recurrent network and whose beam holds 256 cells [recalled].)

    A prefix is scored as a child that begins with it. As in PNAS that is the shallow one, which skips what follows in
    the stage; where the space has no such child it goes on as the best one known. What follows the first pass is ours:
    another pass over the blocks, whose prefixes go on as the best child known, and so on.
    """

    name = "pnas"

    beam_size: int = setting(32, "Prefixes of one length that are scored and kept.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._beam: list[tuple[str, ...]] = [()]
        self._num_passes = 0
        self._waiting: list[Architecture] = []  # of the present beam, not yet asked

    def _next_batch(self) -> None:
        for _ in range(2 * len(self.space.blocks)):
            self._waiting = [child for child in self._waiting if self._is_new(child)]
            if self._waiting:
                break
            self._grow()
        # A beam is scored whole before it grows: no batch is filled up, unless no prefix leads to a new child.
        self._draw(min(len(self._waiting), self.task.batch_size) or self.task.batch_size)

    def _propose(self) -> Iterator[Architecture]:
        while self._waiting:
            yield self._waiting.pop(0)

    def _grow(self) -> None:
        """The beam of prefixes that are one block longer, or of the first block again."""
        if len(self._beam[0]) == len(self.space.blocks):
            self._beam, self._num_passes = [()], self._num_passes + 1
        block = len(self._beam[0])
        grown = {}
        for prefix in self._beam:
            for name in self.space.blocks[block]:
                child = self._completed((*prefix, name))
                if child is not None:
                    grown[child[: block + 1]] = child
        if not grown:  # no child of the space or the budget begins so
            self._beam = [self.task.start[: block + 1]]
            return
        prefixes = list(grown)
        self._rng.shuffle(prefixes)  # of those that are predicted the same any may come first
        predicted = self._predicted([grown[prefix] for prefix in prefixes])
        ranked = sorted(zip(predicted, range(len(prefixes)), strict=True))[: self.beam_size]
        self._beam = [prefixes[place] for _, place in ranked]
        self._waiting = [grown[prefix] for prefix in self._beam]

    def _predicted(self, children: list[Architecture]) -> list[float]:
        """The scores of children; of those that have none, what the model says."""
        told = [scored for scored in self.history if scored.score < math.inf]
        if not told:
            return [0.0] * len(children)
        model = OperatorRidge(self.space.blocks, penalties=PENALTIES)
        predicted = model.fit([one.architecture for one in told], [one.score for one in told]).predict(children)
        return [self._scores.get(child, value) for child, value in zip(children, predicted, strict=True)]

    def _completed(self, prefix: tuple[str, ...]) -> Architecture | None:
        """A child within the budget that begins so; None if none of those that are tried is one."""
        best = self.best()
        rest = (self.task.start if best is None else best.architecture)[len(prefix) :]
        where = next(where for where in self.space.stage_slices if len(prefix) <= where.stop)
        num_left = where.stop - len(prefix)
        shallow = (SKIP,) * num_left + rest[num_left:]
        ways = [shallow, rest] if self._num_passes == 0 else [rest, shallow]
        for way in (*ways, (prefix[-1],) * num_left + rest[num_left:]):
            child = Architecture(prefix + way)
            if self.space.why_not(child) is None and self.task.why_not(child) is None:
                return child
        return None
