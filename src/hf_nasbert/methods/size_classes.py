"""Super-nets of size classes: a copy for the small children, one for the large ones, each trained by its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_nasbert.methods.base import Paper
from hf_nasbert.methods.rows import SizeClasses
from hf_nasbert.methods.uniform import Uniform, UniformSettings
from hf_nasbert.modeling.copies import Copies
from hf_nasbert.settings import setting
from hf_nasbert.space import Architecture

_MOST_DRAWS = 1000


@dataclass(kw_only=True)
class SizeClassesSettings(UniformSettings):
    """How many classes there are, and how many children of one a step trains."""

    num_size_classes: int = setting(3, "Classes of children, by their size.", at_least=2)
    num_random_of_class: int = setting(
        1, "Random children of a step, beside the largest and the smallest of its class.", at_least=1
    )


class SizeClassesMethod(Uniform):
    """Every step trains the largest, the smallest and random children of one class, in its copy; classes take turns.

    All learn from one teacher, the base model where there is one (its attention relations too: `--distillation
    relations`), and else from labels. The classes have equal shares of children drawn at random; the largest and the
    smallest of a class are those of 200. A copy is one of all choice blocks; embeddings and head are shared.
    """

    name = "size_classes"
    summary = "copies for classes of size; largest, smallest, random children of one class, one teacher (AutoDistil)"
    paper = Paper(
        "Xu et al. (2022), Few-shot Task-agnostic Neural Architecture Search for Distilling Large Language Models, "
        "NeurIPS 2022",
        "https://arxiv.org/abs/2201.12507",
    )
    source = "a description of the paper"
    unverified = "bounds of the classes; classes in turn; relations and the children of a step are recalled"
    look = ("#009E73", "8")
    can_be_sharded = False
    Settings = SizeClassesSettings
    settings: SizeClassesSettings

    def _prepare(self) -> None:
        self.classes = SizeClasses(self.space, self.cost, self.settings.num_size_classes)
        self._turn = 0

    @property
    def passes_per_step(self) -> float:
        """Three for each child."""
        return 3.0 * (2 + self.settings.num_random_of_class)

    def copies(self, *, is_training: bool) -> Copies:
        """One for each class."""
        return self.classes.copies(range(self.classes.number), self.classes.number)

    def children(self) -> tuple[Architecture, ...]:
        """The largest child of a class, the smallest one, and the random ones."""
        place, self._turn = self._turn, (self._turn + 1) % self.classes.number
        known = self.classes.children[place]
        return (known[-1], known[0], *(self._draw(place) for _ in range(self.settings.num_random_of_class)))

    def _draw(self, place: int) -> Architecture:
        for _ in range(_MOST_DRAWS):
            child = self.space.validate(self.sampler.next_architecture())
            if self.classes.class_of(child) == place:
                return child
        return self.classes.children[place][0]

    def state_dict(self) -> dict[str, Any]:
        """The sampler's, and whose turn it is."""
        return super().state_dict() | {"turn": self._turn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the class whose turn it is."""
        if type(state["turn"]) is not int or not 0 <= state["turn"] < self.classes.number:
            raise ValueError(f"turn {state['turn']!r:.80} is none of {self.classes.number} classes")
        super().load_state_dict(state)
        self._turn = state["turn"]
