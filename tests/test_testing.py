"""`hf_nasbert.testing`: what is ours keeps its contracts, and every check finds somebody who breaks the promise."""

import random
import re
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from broken_models import (
    BackwardsForMaskedLM,
    BlindForMaskedLM,
    BlindModel,
    DoublingForMaskedLM,
    DroppingForMaskedLM,
    ForgetfulModel,
    HalfBlindModel,
    TornForMaskedLM,
    TornSupernetForMaskedLM,
    UnsavedModel,
)
from helpers import mostly_slow

from hf_nasbert.methods import METHODS, MethodSettings, TrainingMethod
from hf_nasbert.modeling import NasBertConfig, SupernetConfig
from hf_nasbert.samplers import FairSampler, GradualSampler, Sampler, UniformSampler
from hf_nasbert.space import Architecture, SearchSpace
from hf_nasbert.testing import check_method, check_model, check_sampler
from hf_nasbert.testing.samplers import SPACES


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize(
    "make",
    [UniformSampler, partial(UniformSampler, uniform_over="children"), FairSampler, GradualSampler],
    ids=["uniform", "uniform over children", "fair", "gradual"],
)
def test_our_samplers(make, space):
    check_sampler(make, space)


@pytest.mark.parametrize("name", mostly_slow(METHODS, 8))
def test_our_methods(name):
    check_method(name)


class Drawing(Sampler):
    name = "drawing"

    def next_architecture(self):
        return self.space.sample(self._rng)


class Strays(Drawing):
    def next_architecture(self):
        return Architecture(["attention"] * 3)


class GivesText(Drawing):
    def next_architecture(self):
        return str(super().next_architecture())


class GivesOneChild(Drawing):
    def next_step(self):
        return self.next_architecture()


class Seedless(Drawing):
    def __init__(self, space, *, seed):
        super().__init__(space, seed=seed)
        self._rng = random.Random(0)


class TakesAnySeed(Drawing):
    def __init__(self, space, *, seed):
        super().__init__(space, seed=seed if type(seed) is int and seed >= 0 else 0)


class Unseeded(Drawing):
    def __init__(self, space, *, seed):
        super().__init__(space, seed=seed)
        self._rng = random.Random()


class Stubborn(Drawing):
    def next_architecture(self):
        return self.space.sample(random.Random(self.seed % 5))


class MovesTheGlobalOne(Drawing):
    def next_architecture(self):
        random.random()
        return super().next_architecture()


class FollowsTheGlobalOne(Drawing):
    """As a sampler that seeds itself from the process: without drawing from what it reads."""

    def next_architecture(self):
        state = hash(random.getstate())
        return self.space.sample(random.Random(f"{state} {self.seed} {self._rng.random()}"))


class Shares(Drawing):
    step = [0]

    def __init__(self, space, *, seed):
        super().__init__(space, seed=seed)
        self.step[0] = 0

    def next_architecture(self):
        self.step[0] += 1
        return self.space.sample(random.Random(f"{self.seed} {self.step[0]}"))


class Forgets(Drawing):
    def __init__(self, space, *, seed):
        super().__init__(space, seed=seed)
        self.step = 0

    def next_architecture(self):
        self.step += 1
        return self.space.sample(random.Random(f"{self.seed} {self.step}"))


class KeepsItsSeed(Drawing):
    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.seed = 99


class SavesAnObject(Drawing):
    def state_dict(self):
        return super().state_dict() | {"last": self}


class SavesNoNumber(Drawing):
    def state_dict(self):
        return super().state_dict() | {"mean": float("nan")}


class HandsItsStateOut(Drawing):
    def __init__(self, space, *, seed):
        super().__init__(space, seed=seed)
        self.seen = []

    def next_architecture(self):
        self.seen.append(0)
        return super().next_architecture()

    def state_dict(self):
        return super().state_dict() | {"seen": self.seen}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.seen = list(state["seen"])


class DrawsWhenSaved(Drawing):
    def state_dict(self):
        state = super().state_dict()
        self._rng.random()
        return state


class ReadsWhatItLoaded(Drawing):
    """It draws from the state that it was given."""

    loaded = None

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.loaded = state

    def next_architecture(self):
        if self.loaded is not None and not any(self.loaded["rng"][1][:5]):
            return next(self.space.enumerate())
        return super().next_architecture()


class ChangesBeforeItRefuses(Drawing):
    def load_state_dict(self, state):
        self._rng.random()
        super().load_state_dict(state)


class SavesNothing(Drawing):
    def state_dict(self):
        return {}


class HasNoState(Drawing):
    def state_dict(self):
        return None


class TakesAnyState(Drawing):
    def _check(self, state):
        pass


class Favours(Drawing):
    """One child, every second time."""

    def next_architecture(self):
        child = super().next_architecture()
        return next(self.space.enumerate()) if self._rng.random() < 0.5 else child


CHAIN = SPACES["chain"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (Strays, "the child attention-attention-attention is not in the space"),
        (GivesText, "a child is no Architecture"),
        (GivesOneChild, "a step is not a tuple"),
        (Seedless, "different seeds draw the same"),
        (Unseeded, "of one seed draw different"),
        (Stubborn, "of 50 children at most five differ"),
        (TakesAnySeed, "the seed -1 is accepted"),
        (MovesTheGlobalOne, "moves a global random generator"),
        (FollowsTheGlobalOne, "draw from self._rng alone"),
        (Shares, "share what they draw from"),
        (KeepsItsSeed, "keeps its own seed"),
        (Forgets, "resumed after 0 draws others"),
        (SavesAnObject, "not of plain JSON types"),
        (SavesNoNumber, "not of plain JSON types"),
        (HandsItsStateOut, "changes a state that was handed out"),
        (DrawsWhenSaved, "saving a state changes what is drawn next"),
        (ReadsWhatItLoaded, "still reads the state that it loaded"),
        (ChangesBeforeItRefuses, "is refused, but has changed the sampler"),
        (SavesNothing, "the state of the sampler cannot be loaded again (ValueError: expected the state_dict"),
        (HasNoState, "the state of the sampler is None, expected a mapping"),
        (TakesAnyState, "a state of another space is accepted"),
        (Favours, "the rarest operator is trained 0."),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_sampler_that_breaks_a_promise_is_found(broken, words):
    check_sampler(Drawing, CHAIN)
    with pytest.raises(AssertionError, match=re.escape(words)):
        check_sampler(broken, CHAIN)


class Own(TrainingMethod):
    name = "own"
    summary = "for this test"
    sampler_class = UniformSampler


class SaysNothing(Own):
    summary = ""


class CitesInWords(Own):
    paper = "Me (2020)"


class LooksRed(Own):
    look = "red"


@dataclass(kw_only=True)
class Helpless(MethodSettings):
    weight: float = 1.0


class HasSettingsWithoutHelp(Own):
    Settings = Helpless


class TrainsStrays(Own):
    def children(self):
        return (Architecture(["attention"]),)


class Understates(Own):
    def children(self):
        return super().children() + super().children()


class DoesAsItLikes(Own):
    def children(self):
        return (self.space.sample(random.Random()),)


class ForgetsItsSteps(Own):
    num_steps = 0

    def after_step(self, step, children, losses, score, supernet):
        self.num_steps += 1
        return super().after_step(step, children, losses, score, supernet)

    def weight(self, number, children):
        return float(self.num_steps)


class ShowsWhatIsGone(ForgetsItsSteps):
    def shown(self):
        return {"steps": str(self.num_steps)}


class KeepsItsSampler(Own):
    def load_state_dict(self, state):
        pass


class SavesNoSampler(Own):
    def state_dict(self):
        return {}


class GivesAList(Own):
    def children(self):
        return list(super().children())


class WeighsNothing(Own):
    def weight(self, number, children):
        return float("nan")


class WantsNobodyKnowsWhat(Own):
    def wants(self, step):
        return True


class HasTermsInOneWord(Own):
    terms = "alignment"


class TellsNothing(Own):
    def after_step(self, step, children, losses, score, supernet):
        return None


class LogsWithoutAName(Own):
    def after_step(self, step, children, losses, score, supernet):
        super().after_step(step, children, losses, score, supernet)
        return {"step": step}


class LogsAsTrainingDoes(Own):
    def after_step(self, step, children, losses, score, supernet):
        super().after_step(step, children, losses, score, supernet)
        return {"event": "eval", "loss": 1.0}


class ShowsTheLoss(Own):
    def shown(self):
        return {"loss": "low"}


class ShowsATerm(Own):
    terms = ("divergence",)

    def loss(self, run, peers, context):
        return run.loss, (run.loss.detach(),)

    def shown(self):
        return {"divergence": "low"}


class ShowsNumbers(Own):
    def shown(self):
        return {"decay": 0.9}


class DrawsWhenItIsSaved(Own):
    def state_dict(self):
        state = super().state_dict()
        self.children()
        return state


class LogsObjects(Own):
    def after_step(self, step, children, losses, score, supernet):
        super().after_step(step, children, losses, score, supernet)
        return {"event": "mine", "by": self}


class LearnsNothing(Own):
    def loss(self, run, peers, context):
        return run.loss.detach(), ()


class LearnsWithoutEnd(Own):
    def loss(self, run, peers, context):
        return run.loss * float("inf"), ()


class ForgetsATerm(Own):
    terms = ("divergence",)


class LogsNoNumber(ForgetsATerm):
    def loss(self, run, peers, context):
        return run.loss, (run.loss.detach() * float("nan"),)


class LearnsAMeanOfEachPart(Own):
    def loss(self, run, peers, context):
        return run.loss + run.logits.square().mean(), ()


class TrainsItsTeacher(Own):
    def loss(self, run, peers, context):
        other = next(child for child in self.space.enumerate() if child != run.architecture)
        return run.loss + context.supernet(**context.batch, architecture=other).loss, ()


class ForgetsWhatItTeaches(Own):
    num_steps = 0

    def loss(self, run, peers, context):
        return run.loss * (1 + self.num_steps), ()

    def after_step(self, step, children, losses, score, supernet):
        self.num_steps += 1
        return super().after_step(step, children, losses, score, supernet)


class SavesATensorAsItsState(Own):
    def tensors(self):
        return [torch.zeros(1)]


class SavesTensorsByNumbers(Own):
    def tensors(self):
        return {0: torch.zeros(1)}


class BeginsAnew(Own):
    """It has tensors, and forgets them when it goes on."""

    def begin(self, supernet, tensors):
        self.total = torch.zeros(1, dtype=torch.float64)

    def tensors(self):
        return {"total": self.total}

    def loss(self, run, peers, context):
        return run.loss * (1 + self.total), ()

    def after_step(self, step, children, losses, score, supernet):
        self.total += 1
        return super().after_step(step, children, losses, score, supernet)


class ChoosesTooManyRows(Own):
    def chosen_rows(self, num_rows):
        return torch.ones(num_rows + 1, dtype=torch.bool)


class ChoosesNoRow(Own):
    def chosen_rows(self, num_rows):
        return torch.zeros(num_rows, dtype=torch.bool)


class ChoosesOtherRows(Own):
    num_asked = 0

    def chosen_rows(self, num_rows):
        self.num_asked += 1
        return torch.arange(num_rows) % 2 == self.num_asked % 2


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (SaysNothing, "no summary"),
        (CitesInWords, "its paper is 'Me (2020)'"),
        (LooksRed, "its look is 'red'"),
        (HasSettingsWithoutHelp, "the setting weight has no help"),
        (TrainsStrays, "step 1 trains a child that is not in the space"),
        (Understates, "said to cost 3.0 passes, but trains 2 children"),
        (DoesAsItLikes, "two methods of one seed differ"),
        (ForgetsItsSteps, "makes other steps than one that never stopped"),
        (ShowsWhatIsGone, "a method that loaded a state shows another one"),
        (KeepsItsSampler, "makes other steps than one that never stopped"),
        (SavesNoSampler, "the state of the method cannot be loaded again (KeyError: 'sampler')"),
        (GivesAList, "step 1 is not a tuple of one or more children"),
        (WeighsNothing, "the children of step 1 weigh [nan]: expected finite numbers"),
        (WantsNobodyKnowsWhat, "step 1 wants True: expected a Wants"),
        (HasTermsInOneWord, "its terms are 'alignment', not a tuple of names"),
        (TellsNothing, "does not give children and losses to the sampler"),
        (LogsWithoutAName, "expected a key 'event' with a name of its own"),
        (LogsAsTrainingDoes, "step 1 records the event 'eval'"),
        (ShowsTheLoss, "step 1 shows loss, which every line of the log says already"),
        (ShowsATerm, "step 1 shows divergence, which every line of the log says already"),
        (ShowsNumbers, "expected a mapping from names to texts"),
        (DrawsWhenItIsSaved, "saving a state changes the next steps"),
        (LogsObjects, "not of plain JSON types"),
        (LearnsNothing, "the losses have no gradient"),
        (LearnsWithoutEnd, "is not finite"),
        (ForgetsATerm, "came with 0 terms: expected 1"),
        (LogsNoNumber, "the term divergence of step 37 is not finite"),
        (LearnsAMeanOfEachPart, "a batch in two micro-batches gives another gradient"),
        (TrainsItsTeacher, "has a gradient, and no child of the step has it"),
        (ForgetsWhatItTeaches, "teaches otherwise than one that never stopped"),
        (BeginsAnew, "teaches otherwise than one that never stopped"),
        (SavesATensorAsItsState, "expected a mapping from names to tensors"),
        (SavesTensorsByNumbers, "expected a mapping from names to tensors"),
        (ChoosesTooManyRows, "expected a mask of 4 booleans"),
        (ChoosesNoRow, "chosen_rows chooses none"),
        (ChoosesOtherRows, "chosen_rows chooses other rows when it is asked again"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_method_that_breaks_a_promise_is_found(broken, words, monkeypatch):
    monkeypatch.setitem(METHODS, "own", broken)
    with pytest.raises(AssertionError, match=re.escape(words)):
        check_method("own", CHAIN)


def test_a_method_of_ones_own_that_keeps_them_is_sound(monkeypatch):
    """Sanity check: what all those above are made from breaks none."""
    monkeypatch.setitem(METHODS, "own", Own)
    check_method("own", CHAIN)


SIZES = {"vocab_size": 50, "hidden_size": 32, "max_position_embeddings": 24}
CHILD = NasBertConfig(operators=["attention", "ffn", "conv3"], **SIZES)
SUPERNET = SupernetConfig(search_space=SearchSpace.chain(3, ("attention", "ffn", "conv3")), **SIZES)


@pytest.mark.parametrize(
    ("broken", "config", "words"),
    [
        (BlindModel, CHILD, "what stands at padding changes"),
        (HalfBlindModel, CHILD, "what stands at padding changes"),
        (BlindForMaskedLM, SUPERNET, "what stands at padding changes"),
        (TornForMaskedLM, CHILD, "tied weights"),
        (TornSupernetForMaskedLM, SUPERNET, "a loaded model has other tensors"),
        (UnsavedModel, CHILD, "scale has other numbers after saving and loading"),
        (ForgetfulModel, CHILD, "embeddings.position_ids has other numbers after saving and loading"),
        (DroppingForMaskedLM, CHILD, "computes something else than the one that was saved"),
        (DoublingForMaskedLM, CHILD, "embedded tokens"),
        (BackwardsForMaskedLM, CHILD, "does not lower the loss"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_that_breaks_a_promise_is_found(broken, config, words):
    with pytest.raises(AssertionError, match=words):
        check_model(broken, config)
    assert not torch.are_deterministic_algorithms_enabled()
