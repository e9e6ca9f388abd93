"""What a user may say about a super-net, its training, and children trained alone: dataclasses, without torch.

One file, for the three share their checks and are parsed together.
"""

import math
from dataclasses import InitVar, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hf_nasbert.methods import METHODS, settings_by_method
from hf_nasbert.modeling.layout_names import LAYOUT_NAMES, known_layouts
from hf_nasbert.recipe_arguments import Choice
from hf_nasbert.settings import Settings, setting
from hf_nasbert.space import SearchSpace

if TYPE_CHECKING:
    from hf_nasbert.modeling import SupernetConfig


def _help_of_methods() -> str:
    known = "; ".join(f"{name}: {method.summary}" for name, method in METHODS.items()).replace("%", "%%")
    return (
        f"How the super-net is trained: uniform, magic_at or one of {len(METHODS) - 2} others, which --help method "
        f"explains. {known[0].upper()}{known[1:]}. No method ranked children better than uniform in our study "
        "(docs/ranking.md). --method NAME --help shows a method's own settings. To add a method, see "
        "docs/extending.md."
    )


_OF_BASE_MODEL = ("base_model_revision", "trust_remote_code", "heads", "ffn", "kernels", "drop_blocks", "refit")

DISTILLED = ("states", "vectors", "relations", "logits", "masked_lm")
"""What children may learn from a teacher."""


@dataclass
class SupernetArguments(Settings):
    """Which super-net to train: that of a base model, a preset, or a space of one's own; sizes override the last two.

    Raises:
        ValueError: If the settings of a space do not make one.
    """

    base_model: str | None = setting(
        None,
        "An encoder whose super-net is trained: a folder or a name on the Hub, a SentenceTransformer too. Its sizes, "
        "its tokenizer and its weights are those of the super-net; nothing is written there.",
    )
    base_model_revision: str | None = setting(None, "Branch, tag or commit of the base model.")
    trust_remote_code: bool = setting(False, "Run code that the base model brings.")
    heads: list[int] | None = setting(
        None, "Of a base model: heads that an attention may keep; by default a half and a quarter."
    )
    ffn: list[int] | None = setting(
        None, "Of a base model: neurons that a feed-forward may keep; by default a half and a quarter."
    )
    kernels: list[int] = setting(
        list, "Of a base model: sizes of convolutions that may stand for an attention: 3, 5, 7."
    )
    drop_blocks: bool = setting(True, "Of a base model: whether blocks may be left out.")
    refit: bool = setting(
        True,
        "Of a base model: sort heads and neurons by what they write on the text, and refit what is left of each "
        "operator by least squares, before training.",
    )
    preset: str | None = setting(None, "A named space and its sizes: quickstart, magic-base or nasbert.")
    operators: list[str] | None = setting(
        None, "Candidates of every choice block: attention, ffn, conv3, conv5, conv7, norm, skip."
    )
    num_choice_blocks: int | None = setting(None, "Choice blocks, over all stages.")
    blocks: list[str] | None = setting(
        None,
        "Instead of operators: the candidates of every choice block, as in: conv3 attention,ffn,conv3 "
        "attention,ffn,conv3.",
    )
    num_stages: int = setting(1, "Stages into which the choice blocks are cut, equally long.")
    widths: list[int] | None = setting(None, "Widths a stage may choose from; without them all have hidden_size.")
    skip: Literal["end", "anywhere"] = setting(
        "end",
        "Where skip may stand: at the end of a stage, so that a child's depth says which blocks it has; or anywhere, "
        "in one stage without widths.",
    )
    weight_layout: str = setting(
        "separate",
        f"What a block's operators are made of: {', '.join(LAYOUT_NAMES)}, or a layout of your own "
        "(docs/extending.md). separate: each operator has weights of its own; entangled: conv3 has the middle of "
        "conv7's kernel, few heads or neurons are the first ones of many; experts: two sets for an ffn, mixed by "
        "the child's architecture (Mixture-of-Supernets).",
    )
    hidden_size: int | None = setting(None, "Width of the states between stages.")
    embedding_size: int | None = setting(None, "Width of the embedding tables.")
    ffn_ratio: int | None = setting(None, "Inner width of ffn, in widths.")
    attention_head_size: int | None = setting(None, "Width of an attention head.")
    num_conv_layers: int | None = setting(None, "Convolutions stacked in one conv operator.")
    max_position_embeddings: int | None = setting(None, "Longest sequence.")
    hidden_act: str | None = setting(None, "Activation, by transformers' name.")
    hidden_dropout_prob: float | None = setting(None, "Dropout after every operator.")
    attention_probs_dropout_prob: float | None = setting(None, "Dropout of attention probabilities.")
    initializer_range: float | None = setting(None, "Deviation of the initial weights.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.blocks, str):  # YAML readers check no types, and a str is a sequence of str
            self.blocks = [self.blocks]
        own = {
            "operators": self.operators,
            "num_choice_blocks": self.num_choice_blocks,
            "widths": self.widths,
            "num_stages": self.num_stages if self.num_stages != 1 else None,
        }
        given = [name for name, value in own.items() if value is not None]
        if self._is_of_base_model():
            return
        whole = [name for name in ("preset", "blocks") if getattr(self, name) is not None]
        if whole and len(whole) + len(given) > 1:
            raise ValueError(f"{whole[0]} brings its own space, but {', '.join([*whole[1:], *given])} was given too")
        if not whole and (self.operators is None or self.num_choice_blocks is None):
            raise ValueError("a super-net needs a base_model, a preset, blocks, or operators and num_choice_blocks")
        if self.num_choice_blocks is not None and (self.num_stages < 1 or self.num_choice_blocks % self.num_stages):
            raise ValueError(
                f"num_choice_blocks={self.num_choice_blocks} cannot be cut into {self.num_stages} equal stages"
            )
        if self.skip == "anywhere" and (self.preset is not None or self.num_stages > 1 or self.widths is not None):
            what = "preset" if self.preset is not None else "num_stages" if self.num_stages > 1 else "widths"
            raise ValueError(
                f"skip=anywhere is for a space of one stage without widths: leave out {what}, or leave skip at the end"
            )
        if self.weight_layout not in known_layouts():
            raise ValueError(f"weight_layout={self.weight_layout!r} is none of {', '.join(known_layouts())}")

    def _is_of_base_model(self) -> bool:
        """Whether there is a base model, which brings what else would be asked for.

        Raises:
            ValueError: If something is given that belongs to the other kind of super-net.
        """
        defaults = {one.name: one.default for one in fields(self)} | {"kernels": []}
        given = [name for name, default in defaults.items() if getattr(self, name) != default]
        cuts = [name for name in ("heads", "ffn", "kernels", "drop_blocks") if name in given]
        if self.base_model is None:
            stray = [name for name in _OF_BASE_MODEL if name in given]
            if stray:
                raise ValueError(f"{stray[0]} is a setting of super-nets of a base model: give base_model too")
            return False
        stray = [name for name in given if name not in ("base_model", "blocks", *_OF_BASE_MODEL)]
        if stray:
            raise ValueError(f"base_model={self.base_model} brings its own space and sizes, but {stray[0]} was given")
        if self.blocks is not None and cuts:
            raise ValueError(f"blocks names the operators of every block, but {cuts[0]} was given too")
        return True

    def build_config(self, **overrides: Any) -> "SupernetConfig":
        """Build the super-net's configuration; `overrides` (the tokenizer's `vocab_size` and `pad_token_id`) win.

        Raises:
            ValueError: If there is no such preset, operator or size.
        """
        from hf_nasbert.modeling import SupernetConfig

        if self.base_model is not None:
            raise ValueError(
                f"the super-net of base_model={self.base_model} is made by `hf-nasbert pretrain`, and by `compress`, "
                "which read text for it: use one of these"
            )
        not_sizes = {
            "preset", "operators", "num_choice_blocks", "blocks", "num_stages", "widths", "skip", "base_model",
            *_OF_BASE_MODEL,
        }  # fmt: skip
        sizes = {name: value for name, value in asdict(self).items() if name not in not_sizes and value is not None}
        if self.preset is not None:
            return SupernetConfig.preset(self.preset, **{**sizes, **overrides})
        if self.blocks is not None:
            return SupernetConfig(search_space=SearchSpace.of_blocks(self.blocks, self.skip), **{**sizes, **overrides})
        assert self.operators is not None
        assert self.num_choice_blocks is not None
        if self.num_stages == 1 and self.widths is None:
            space = SearchSpace.chain(self.num_choice_blocks, tuple(self.operators), self.skip)
        else:
            blocks_per_stage = self.num_choice_blocks // self.num_stages
            space = SearchSpace.staged(
                self.num_stages, blocks_per_stage, tuple(self.operators), tuple(self.widths or ())
            )
        return SupernetConfig(search_space=space, **{**sizes, **overrides})


@dataclass
class SupernetTrainingArguments(Settings):
    """How to train a super-net.

    Learning rate, dropout of the step and architecture are functions of the step and the seeds alone, so a run that
    was interrupted continues as if it had not been.

    Raises:
        ValueError: If a number lies outside its range, or there is no backend of the name that is to compile.
    """

    incidental: ClassVar[frozenset[str]] = frozenset({
        "dataloader_num_workers", "disable_tqdm", "logging_steps", "output_dir", "overwrite_output_dir", "report_to",
        "resume_from_checkpoint", "save_steps", "save_total_limit", "step_timeout",
    })  # fmt: skip
    """What decides where things lie, what is shown or how often a run is saved, and not what comes out of it."""

    choices: ClassVar[dict[str, Choice]] = {"method_settings": Choice("method", settings_by_method)}
    """Settings of their own that come with a choice."""

    output_dir: str = field(metadata={"help": "Folder of checkpoints, log and final super-net."})
    method: str = setting("uniform", _help_of_methods)
    teacher: Literal["auto", "base_model", "full_child", "none"] = setting(
        "auto",
        "What children of a base model's super-net learn from: the base_model, or the full_child of that super-net, "
        "which itself learns from the base model; none: from masked words. auto: the base model, where there is one.",
    )
    distillation: list[str] | None = setting(
        None,
        "What they learn from a teacher: states (the last ones), vectors (of sequences), relations (of the last "
        "attention), logits (of the base model's head), masked_lm. By default states and vectors; of a classifier, "
        "logits and states.",
    )
    distillation_weights: list[float] | None = setting(
        None, "Weights of these, in their order; by default as in compress: 1 for states, 5 for vectors."
    )
    max_steps: int = setting(10_000, "Optimizer steps.", at_least=1)
    per_device_train_batch_size: int = setting(32, "Sequences that one process computes at once.", at_least=1)
    gradient_accumulation_steps: int = setting(
        1, "Micro-batches per optimizer step; all train the same children.", at_least=1
    )
    global_batch_size: int = setting(
        0,
        "Sequences of an optimizer step over all processes: gradient_accumulation_steps then follows from the number "
        "of processes, and a run may go on with another one. 0: what the other settings give.",
        at_least=0,
    )
    learning_rate: float = setting(5e-4, "Highest learning rate.", at_least=0)
    weight_decay: float = setting(
        0.01, "Decoupled weight decay of everything but biases and normalisations.", at_least=0
    )
    adam_beta1: float = setting(0.9, "Decay of AdamW's first moment.", at_least=0, at_most=1)
    adam_beta2: float = setting(0.98, "Decay of AdamW's second moment.", at_least=0, at_most=1)
    adam_epsilon: float = setting(1e-6, "Epsilon of AdamW.", at_least=0)
    warmup_steps: float = setting(
        0, "Steps of linear warm-up; below 1, a share of max_steps; 0: warmup_ratio decides.", at_least=0
    )
    warmup_ratio: float = setting(0.1, "Warm-up as a share of max_steps.", at_least=0, at_most=1)
    lr_scheduler_type: Literal["linear", "cosine", "constant_with_warmup"] = setting(
        "linear", "The learning rate after the warm-up: it falls to zero in one of two ways, or stays."
    )
    min_lr_ratio: float = setting(
        0.0,
        "Floor under the falling learning rate, as a share of the highest: at 0.05 a constant tail, as in BigNAS.",
        at_least=0,
        at_most=1,
    )
    max_grad_norm: float = setting(1.0, "Clip the gradient to this norm; 0: do not.", at_least=0)
    max_skipped_steps: int = setting(
        0,
        "Steps, over the whole run, that may be left without effect because their loss or gradient is no finite "
        "number; one more ends the run. The log names them.",
        at_least=0,
    )
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = setting(
        "auto",
        "auto: bf16 on CPUs with units for it (AVX512_BF16 or AMX), no elsewhere, GPUs included. bf16 gives other "
        "numbers than no, the same ones from run to run; CPUs without such units are ten times slower with it.",
    )
    activation_checkpointing: bool = setting(
        False, "Recompute activations in the backward pass: less memory, more time."
    )
    torch_compile: bool = setting(
        False, "Compile every operator by itself. On two CPU cores it took longer than it saved."
    )
    torch_compile_backend: str = setting("inductor", "Backend of torch_compile.")
    step_timeout: float = setting(
        60, "Seconds that processes wait for each other within a step before the run ends in an error.", at_least=1
    )
    use_cpu: bool = setting(False, "Train on the CPU though there is a GPU.")
    seed: int = setting(0, "Seed of weights, sampler, text order, masks, dropout and evaluated children.", at_least=0)
    dataloader_num_workers: int = setting(
        0, "Processes that prepare batches ahead; 0: the training process itself.", at_least=0
    )

    logging_steps: int = setting(50, "Steps between two lines of the log.", at_least=1)
    eval_steps: int = setting(0, "Steps between evaluations; 0: at the end only.", at_least=0)
    num_eval_batches: int = setting(
        8, "Dev batches, of per_device_train_batch_size sequences, that all scores use.", at_least=1
    )
    num_eval_children: int = setting(
        8, "Children evaluated, always the same: the largest one and random ones.", at_least=0, at_most=10_000
    )
    save_steps: int = setting(500, "Steps between checkpoints; the last step has one too.", at_least=1)
    save_total_limit: int = setting(2, "Checkpoints kept; 0: all.", at_least=0)
    resume_from_checkpoint: str | None = setting(
        None, "A checkpoint's folder, or latest: the newest whole one, if there is any."
    )
    overwrite_output_dir: bool = setting(False, "Start anew and delete the checkpoints and the log of an earlier run.")
    report_to: str = setting(
        "auto", "A tracker of Accelerate by name, none, or auto: tensorboard where it is installed."
    )
    disable_tqdm: bool = setting(False, "Show no progress bar.")
    method_settings: Any = None
    """The settings of the method: an instance of its `Settings`, made of a mapping or of all defaults."""
    bf16: InitVar[bool | None] = None
    """In Python, as of `TrainingArguments`: `mixed_precision="bf16"`, or where False, not that."""
    fp16: InitVar[bool | None] = None
    """Likewise of fp16."""

    def __post_init__(self, bf16: bool | None, fp16: bool | None) -> None:
        super().__post_init__()
        self._take_precision({"bf16": bf16, "fp16": fp16})
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r} is none of {', '.join(METHODS)}")
        self.method_settings = self.choices["method_settings"].settings_of(self.method, self.method_settings)
        self._check_teacher()
        if self.global_batch_size and self.gradient_accumulation_steps != 1:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} decides on gradient_accumulation_steps: give one of them"
            )
        if self.torch_compile:
            self._check_backend()

    def _take_precision(self, asked: dict[str, bool | None]) -> None:
        wanted = [name for name, is_wanted in asked.items() if is_wanted]
        refused = [name for name, is_wanted in asked.items() if is_wanted is False]
        if len(wanted) > 1 or (wanted and self.mixed_precision not in ("auto", *wanted)):
            said = " and ".join(f"{name}=True" for name in wanted)
            raise ValueError(f"{said} and mixed_precision={self.mixed_precision}: give one of them")
        if wanted:
            self.mixed_precision = wanted[0]  # type: ignore[assignment]
        elif "bf16" in refused and self.mixed_precision == "auto":
            self.mixed_precision = "no"

    def _check_teacher(self) -> None:
        terms, weights = self.distillation, self.distillation_weights
        if terms is None:
            if weights is not None:
                raise ValueError("distillation_weights are those of distillation: say what is learned")
            return
        if self.teacher == "none":
            raise ValueError("distillation says what is learned from a teacher, and teacher is none")
        odd = next((term for term in terms if term not in DISTILLED), None)
        if odd is not None or not terms or len(set(terms)) != len(terms):
            what = "holds nothing" if not terms else f"has {odd!r}" if odd is not None else "has one of them twice"
            raise ValueError(f"distillation {what}: expected some of {', '.join(DISTILLED)}, each once")
        if weights is None:
            return
        if len(weights) != len(terms) or not all(0 < weight < math.inf for weight in weights):
            raise ValueError(f"distillation_weights={weights}: expected {len(terms)} positive numbers, one for each")

    def _check_backend(self) -> None:
        from torch import _dynamo  # it takes a second to import, which only those pay who compile

        backends = _dynamo.list_backends(exclude_tags=())
        if self.torch_compile_backend not in backends:
            raise ValueError(
                f"torch_compile_backend={self.torch_compile_backend!r}: this torch knows {', '.join(backends)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """All settings, those of the method beside the others."""
        settings = asdict(self)
        own: dict[str, Any] = settings.pop("method_settings")
        return {**settings, **own}

    def train_batch_size(self, num_processes: int) -> int:
        """Sequences of one optimizer step, over all processes and micro-batches.

        Raises:
            ValueError: If so many processes cannot share `global_batch_size` in whole micro-batches.
        """
        at_once = self.per_device_train_batch_size * num_processes
        if not self.global_batch_size:
            return at_once * self.gradient_accumulation_steps
        if self.global_batch_size % at_once:
            raise ValueError(
                f"global_batch_size={self.global_batch_size} is no multiple of {num_processes} process(es) times "
                f"per_device_train_batch_size={self.per_device_train_batch_size}: choose another one of the three"
            )
        return self.global_batch_size

    def learning_rate_at(self, step: int, exponent: float = 1.0) -> float:
        """The learning rate of a step (from 0): linear warm-up, then `lr_scheduler_type` until `max_steps`.

        The share of the highest rate that the schedule leaves is taken to the power of `exponent`; below
        `min_lr_ratio` it does not fall.
        """
        warmup = self.warmup_steps or self.warmup_ratio * self.max_steps
        if 0 < self.warmup_steps < 1:
            warmup *= self.max_steps
        warmup = math.ceil(warmup)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        if self.lr_scheduler_type == "constant_with_warmup":
            return self.learning_rate
        done = min((step - warmup) / max(self.max_steps - warmup, 1), 1.0)
        left = (1 + math.cos(math.pi * done)) / 2 if self.lr_scheduler_type == "cosine" else 1 - done
        return self.learning_rate * max(math.pow(left, exponent), self.min_lr_ratio)


@dataclass
class StandaloneArguments(Settings):
    """The space whose children are trained, their sizes, and the recipe that is the same for all of them.

    Whatever changes a child's loss stands here or in `DataArguments`; only architecture and seed vary within a table.

    Raises:
        ValueError: If the blocks make no space, or a number lies outside its range.
    """

    blocks: list[str] = field(
        metadata={
            "help": "Candidates of every choice block, as in: attention,ffn,conv3 attention,ffn,conv3. A block with a "
            "single candidate is the same in all children."
        }
    )
    hidden_size: int = setting(128, "Width of the model.")
    ffn_ratio: int = setting(4, "Inner width of ffn, in widths.")
    attention_head_size: int | None = setting(None, "Width of an attention head.")
    num_conv_layers: int = setting(2, "Convolutions stacked in one conv operator.")
    hidden_dropout_prob: float = setting(0.0, "Dropout; a run too short to see its text twice needs none.")
    max_steps: int = setting(500, "Optimizer steps of one child.", at_least=1)
    train_batch_size: int = setting(32, "Sequences of one step.", at_least=1)
    learning_rate: float = setting(2e-3, "Highest learning rate of AdamW.", above=0)
    warmup_ratio: float = setting(0.1, "Warm-up as a share of max_steps; then down to zero.", at_least=0, at_most=1)
    weight_decay: float = setting(0.01, "Weight decay of matrices.")
    adam_beta1: float = setting(0.9, "Decay of AdamW's first moment.", at_least=0, below=1)
    adam_beta2: float = setting(0.98, "Decay of AdamW's second moment.", at_least=0, below=1)
    adam_epsilon: float = setting(1e-6, "Epsilon of AdamW.", above=0)
    max_grad_norm: float = setting(1.0, "Clip the gradient to this norm.", above=0)
    num_dev_batches: int = setting(
        16,
        "Batches of the fixed dev set. Two trainings of one child differ on few sequences for no other reason than "
        "that they are few.",
        at_least=1,
    )
    dev_batch_size: int = setting(64, "Sequences in each of them.", at_least=1)
    eval_steps: int = setting(100, "Steps between two points of the learning curve.", at_least=1)
    num_curve_batches: int = setting(8, "Dev batches, the first ones, behind those points.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.blocks, str):  # YAML readers check no types, and a str is a sequence of str
            self.blocks = [self.blocks]
        self.build_space()

    def build_space(self) -> SearchSpace:
        """The space that `blocks` describes: one stage, at the model's width."""
        return SearchSpace.of_blocks(self.blocks)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step (from 0): linear warm-up, then linearly down to zero at `max_steps`."""
        warmup = math.ceil(self.warmup_ratio * self.max_steps)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        return self.learning_rate * (self.max_steps - step) / max(self.max_steps - warmup, 1)


@dataclass
class FarmArguments(Settings):
    """Which children to train, how often, and by how many processes.

    Raises:
        ValueError: If a number lies outside its range, or the file has no name of records.
    """

    table: str = field(metadata={"help": "File of the records, .jsonl; at the end compressed beside itself."})
    num_children: int = setting(
        0, "How many children of the space to train, drawn at random; 0: all of them.", at_least=0
    )
    num_repeated: int = setting(30, "How many of them to train under more seeds than one.", at_least=0)
    num_seeds: int = setting(3, "Seeds of the repeated ones, 0, 1, 2, ...; the others get 0.", at_least=1)
    num_workers: int = setting(
        2, "Worker processes of one thread each; several small children share a GPU well.", at_least=1
    )
    use_cpu: bool = setting(False, "Train on the CPU even where there is a GPU.")
    order_seed: int = setting(0, "Seed of the draw and of the order.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.table.endswith(".jsonl"):
            raise ValueError(f"table={self.table}: expected the name of a .jsonl file")


@dataclass(frozen=True, kw_only=True)
class ChildRecipe:
    """How children of a super-net are trained alone; what has a default is not for users to set.

    Args:
        num_steps: Steps, one batch each; with 0 a child keeps what it inherits.
        learning_rate: The highest one.
        is_taught: Whether children learn from the largest child, not from masked words.
        is_inherited: Whether they begin with the super-net's weights.
        falls: Whether the learning rate falls to zero after its rise, as in a training to the end.
    """

    num_steps: int
    learning_rate: float
    batch_size: int = 16
    is_taught: bool = False
    is_inherited: bool = True
    falls: bool = False
    warmup_steps: int = 10
    seed: int = 777  # of the batches
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    adam_epsilon: float = 1e-6
    max_grad_norm: float = 1.0

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        left = (self.num_steps - step) / self.num_steps if self.falls else 1.0
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps, left)


@dataclass(kw_only=True)
class AdaptationArguments(Settings):
    """Whether children are ranked by what a few of them become when they are trained on alone for some steps."""

    adapt_steps: int = setting(
        0,
        "Adapted ranking: train some children for this many steps each, and predict the others' losses from theirs. "
        "They begin with the weights they inherit; the prediction is an additive model. 0: score children as they "
        "are. 25 doubled the rank correlation in our pilot (docs/search.md).",
        at_least=0,
    )
    num_adapted: int = setting(30, "How many children are adapted.", at_least=2)
    adapt_learning_rate: float | None = setting(
        None, "Its learning rate; by default 3e-3, and 5e-4 where a base model teaches.", above=0
    )
    adapt_batch_size: int = setting(16, "Sequences of one of its steps.", at_least=1)
    num_workers: int = setting(2, "Processes that train children, of one thread each.", at_least=1)
