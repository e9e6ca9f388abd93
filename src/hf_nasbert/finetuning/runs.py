"""What every Trainer run of this package shares: its model, its settings, its folder and its checkpoints."""

import copy
import hashlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import reduce
from torch import nn
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    get_scheduler,
)
from transformers import TrainingArguments as TrainerArguments
from transformers.integrations.integration_utils import get_available_reporting_integrations
from transformers.utils.hub import cached_file

import hf_nasbert.modeling.auto_classes  # noqa: F401 - so that our children need no remote code
from hf_nasbert.checkpoint_folders import (
    delete_checkpoint,
    delete_leftovers,
    list_checkpoints,
    replace_files,
    set_later_aside,
)
from hf_nasbert.configs import check_revision, loading_errors
from hf_nasbert.configs import load_config as load_foreign_config
from hf_nasbert.data.packaged import model_folder
from hf_nasbert.data.vocabulary import save_tokenizer, vocabulary_size
from hf_nasbert.finetuning.arguments import RunArguments
from hf_nasbert.finetuning.checkpoints import ADVICE, SealingTrainer, latest_checkpoint, read_state
from hf_nasbert.foreign import ForeignFileError, printable, read_object
from hf_nasbert.lazy import check_extra
from hf_nasbert.locking import locked
from hf_nasbert.processes import check_world, on_main_process
from hf_nasbert.stopping import StopRequest, leave
from hf_nasbert.writing import check_apart, check_writable, write_text

logger = logging.getLogger(__name__)

_WEIGHTS = (".safetensors", ".bin")
_CLAIM = "run.json"
_FEW = 5  # differences of a claim that a message shows


def identify_model(arguments: RunArguments) -> tuple[str | None, str]:
    """The Hub commit to load (None for a folder) and a digest that changes whenever configuration, code or weights do.

    The commit pins all later loads of this run to one state of the repository, whatever is pushed meanwhile.

    Raises:
        FileNotFoundError: If there is no such folder or Hub model.
        ValueError: If a revision is asked of a folder.
    """
    check_revision(arguments.model, arguments.revision)
    folder = Path(model_folder(arguments.model))
    if not folder.is_dir():
        try:
            config_file = cached_file(arguments.model, "config.json", revision=arguments.revision)
        except OSError as error:
            raise FileNotFoundError(f"there is no model {arguments.model!r}: {error}") from error
        commit = Path(str(config_file)).parent.name
        return commit, commit
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: expected the folder of a model")
    hashed = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        is_weights = file.suffix in _WEIGHTS and not arguments.from_scratch
        if is_weights or file.name == "config.json" or file.suffix == ".py":
            with file.open("rb") as content:
                hashed.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return None, hashed.hexdigest()


def load_config(arguments: RunArguments, commit: str | None, **overrides: Any) -> PreTrainedConfig:
    """The model's configuration with every override that is not None.

    Raises:
        ValueError: If the configuration is damaged, has no such field, or belongs to a super-net.
    """
    place, code = model_folder(arguments.model), arguments.trust_remote_code
    config = load_foreign_config(place, revision=commit, trust_remote_code=code)
    if config.model_type == "nasbert_supernet":
        raise ValueError(f"{arguments.model} is a super-net; extract one of its children first (extract_child)")
    for name, value in overrides.items():
        if value is not None:
            if not hasattr(config, name):
                raise ValueError(
                    f"{name}={value} cannot be set: the {config.model_type} of {arguments.model} has no {name}"
                )
            setattr(config, name, value)
    return config


def load_model(
    auto_class: Any, arguments: RunArguments, commit: str | None, config: PreTrainedConfig
) -> PreTrainedModel:
    """The model under a head of `auto_class`, in fp32; what only the head lacks is drawn anew.

    Raises:
        ValueError: If weights below the head are missing or of another shape: they would silently be random.
    """
    config = copy.deepcopy(config)  # loading writes into it
    options = {"trust_remote_code": arguments.trust_remote_code, "dtype": torch.float32}
    if arguments.from_scratch:
        with loading_errors(arguments.model):
            scratch: PreTrainedModel = auto_class.from_config(config, **options)
        return scratch
    # A head of another task (three labels where there are two) is replaced: so does one fine-tune on from MNLI.
    options |= {"revision": commit, "ignore_mismatched_sizes": True, "output_loading_info": True}
    with loading_errors(arguments.model):
        model, report = auto_class.from_pretrained(model_folder(arguments.model), config=config, **options)
    body = f"{model.base_model_prefix}."
    absent = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    # Masked-LM models carry no pooler: it belongs to the new head.
    lost = sorted(name for name in absent if name.startswith(body) and ".pooler." not in name)
    if lost:
        raise ValueError(
            f"{arguments.model} lacks {len(lost)} weights that its configuration asks for, such as {lost[0]}: "
            "the folder is incomplete or its config.json belongs to another model"
        )
    return model  # type: ignore[no-any-return]  # the Auto classes are untyped


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, model: str) -> None:
    """Refuse a tokenizer whose ids the model has no embedding for."""
    if (size := vocabulary_size(tokenizer)) > config.vocab_size:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has {size} tokens, the vocabulary of {model!r} only "
            f"{config.vocab_size}: use the tokenizer that the model was trained with"
        )


def check_length(max_seq_length: int, model: PreTrainedConfig | PreTrainedModel, name: str) -> None:
    """Refuse sequences that are longer than the model's position table."""
    longest = num_positions(model)
    if max_seq_length > longest:
        raise ValueError(f"max_seq_length={max_seq_length} is more than the {longest} positions of {name!r}")


def num_positions(model: PreTrainedConfig | PreTrainedModel) -> int:
    """Tokens that a model has positions for, by its configuration or, more exactly, by its modules.

    RoBERTa and its kin begin to count after the padding's number, which only the table of positions says.
    """
    config = model if isinstance(model, PreTrainedConfig) else model.config
    positions = int(config.to_dict().get("max_position_embeddings") or sys.maxsize)
    modules = [] if model is config else model.named_modules()
    tables = [module for name, module in modules if name.endswith("position_embeddings")]
    skipped = [m.padding_idx + 1 for m in tables if isinstance(m, nn.Embedding) and m.padding_idx is not None]
    return positions - max(skipped, default=0)


def check_records(arguments: RunArguments) -> None:
    """Refuse a file of records that nothing can be added to, or that is read as data, before anything is trained.

    Raises:
        ValueError: If it is a file of the data.
        WriteError: If it cannot be written.
    """
    data = {name: getattr(arguments, name, None) for name in ("train_file", "validation_file", "test_file")}
    for name, place in data.items():
        check_apart(records=arguments.records_file, **{name: place})
    check_writable(arguments.records_file, is_appended=True)


def digest_of(settings: Mapping[str, Any]) -> str:
    """A short name of a run's settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def opened(trainer: Trainer, folder: Path, settings: Mapping[str, Any]) -> Iterator[Path | None]:
    """Hold a folder for a run, in all its processes: no second run writes there meanwhile.

    Yields:
        The checkpoint to continue from, if there is one (see `open_run`).

    Raises:
        ValueError: If another run is at work there, or see `open_run`.
        OSError: If nothing can be written there.
    """
    with ExitStack() as stack:

        def enter() -> Path | None:
            stack.enter_context(locked(folder))
            return open_run(folder, settings)

        yield on_main_process(trainer.accelerator, enter)


def open_run(folder: Path, settings: Mapping[str, Any]) -> Path | None:
    """Claim a folder for a run, or find the run of these very settings in it.

    Returns:
        The latest whole checkpoint to continue from, if there is one; damaged ones are named in a warning and passed
        over.

    Raises:
        ValueError: If the folder holds a run of other settings or a foreign model: neither is overwritten.
        DamagedCheckpointError: If it holds checkpoints, and none is whole.
    """
    run = folder / "run"
    if not check_folder(folder, settings):
        write_text(run / _CLAIM, json.dumps(settings, indent=1) + "\n")
        return None
    delete_leftovers(folder)
    delete_leftovers(run)
    found = latest_checkpoint(run)
    if found is not None:
        set_later_aside(run, int(found.name.removeprefix("checkpoint-")))
    return found


def check_folder(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder holds the run of these very settings; nothing is written.

    Raises:
        ValueError: If it holds a run of other or unknown settings, or a foreign model.
    """
    settings = json.loads(json.dumps(settings))  # as they come back from the file: tuples are lists
    claim = folder / "run" / _CLAIM
    advice = f"put it back, or delete {claim.parent} to train anew"
    if not claim.exists():
        checkpoints = list_checkpoints(claim.parent)
        if checkpoints:
            raise ValueError(f"there is no {claim} that says which run {checkpoints[-1].name} belongs to: {advice}")
        if (folder / "config.json").exists():
            raise ValueError(f"{folder} holds a model that this run did not make; choose another output_dir")
        return False
    try:
        found = read_object(claim)
    except ForeignFileError as error:
        raise ForeignFileError(f"{error}; it says which run the folder holds: {advice}") from None
    changed = [name for name in sorted({*found, *settings}) if found.get(name) != settings.get(name)]
    if changed:
        shown = [
            f"{printable(name, 60)} ({printable(repr(found.get(name)), 100)}, "
            f"now {printable(repr(settings.get(name)), 100)})"
            for name in changed[:_FEW]
        ]
        more = f" and {len(changed) - _FEW} more" if len(changed) > _FEW else ""
        raise ValueError(
            f"{folder} holds a run with another {', '.join(shown)}{more}; choose another output_dir or remove that "
            f"folder (its settings are those of {claim})"
        )
    return True


def trainer_arguments(arguments: RunArguments, folder: Path, seed: int, **options: Any) -> TrainerArguments:
    """Trainer's own arguments for a run in `folder`.

    Raises:
        ValueError: If transformers refuses a setting, or the world of processes is not the one that was asked for (see
            `processes.check_world`).
    """
    use_cpu = not torch.accelerator.is_available()
    if arguments.report_to == "tensorboard":
        check_extra("report_to=tensorboard", "tracking", "tensorboard")
    there = ("none", "all", *get_available_reporting_integrations())  # type: ignore[no-untyped-call]
    if arguments.report_to not in there:
        raise ValueError(f"report_to={arguments.report_to!r} is not installed; those that are: {', '.join(there)}")
    passed: tuple[str, ...] = (
        "learning_rate",
        "weight_decay",
        "warmup_steps",
        "lr_scheduler_type",
        "max_grad_norm",
        "bf16",
        "fp16",
    )
    passed += ("gradient_accumulation_steps", "report_to", "logging_steps", "disable_tqdm")
    made = TrainerArguments(
        output_dir=str(folder / "run"),
        seed=seed,
        data_seed=seed,
        use_cpu=use_cpu,
        dataloader_pin_memory=not use_cpu,
        dataloader_num_workers=0,
        # No save_total_limit: SealingTrainer deletes older checkpoints when the new one is whole.
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping survives a restart
        **{name: getattr(arguments, name) for name in passed},
        **options,
    )
    check_world(made.world_size)
    # One batch size whatever the number of devices, so that a result does not depend on where it was made.
    parts = made.world_size * max(1, made.n_gpu) * arguments.gradient_accumulation_steps
    if arguments.batch_size % parts:
        raise ValueError(
            f"batch_size={arguments.batch_size} cannot be shared by {parts} devices and accumulated parts"
        )
    made.per_device_train_batch_size = arguments.batch_size // parts
    _check_schedule(arguments)
    return made


def _check_schedule(arguments: RunArguments) -> None:
    """Refuse a schedule that asks for more than its name: Trainer would make it, and fail, only when it trains."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    try:
        get_scheduler(arguments.lr_scheduler_type, optimizer, num_warmup_steps=0, num_training_steps=1)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"lr_scheduler_type={arguments.lr_scheduler_type} needs settings that there are none of here: {error}"
        ) from None


class _LeaveBetweenSteps(TrainerCallback):
    """Ends the program after the step in which any of the processes was asked to, when a checkpoint is written."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop
        self._is_leaving = False  # agreed by all

    def on_step_end(self, args: TrainerArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint, but where one follows anyway: after the evaluation of an epoch."""
        asked = torch.tensor(float(self.stop.is_set))
        self._is_leaving = bool(reduce(asked.to(args.device)) if args.world_size > 1 else asked)
        is_last = state.global_step >= state.max_steps or float(state.epoch or 0).is_integer()
        if self._is_leaving and not (is_last and args.save_strategy == "epoch"):
            control.should_save = True

    def on_save(self, args: TrainerArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leave, the checkpoint being whole; Trainer's own way to stop would evaluate half an epoch."""
        if self._is_leaving:
            leave(f"stopped after step {state.global_step}, as asked; the same command goes on from there")


def train(trainer: SealingTrainer, checkpoint: Path | None) -> None:
    """Train to the end, from a checkpoint if there is one.

    Raises:
        DamagedCheckpointError: If the checkpoint holds more than tensors, or does not fit.
        OSError: If a checkpoint cannot be written; those that were there still are.
        SystemExit: With status 0, if a process was asked to stop (`stopping.STOP_SIGNALS`): the step in hand is
            finished and saved.
    """
    # Stock BERT takes `num_items_in_batch` and ignores it, and Trainer then does not divide by the accumulated parts
    # (https://github.com/huggingface/transformers/issues/47688). Averaging over the parts is right for every model.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)
    if checkpoint is not None and _take_up_the_end(trainer, checkpoint):
        return
    with StopRequest() as stop:
        trainer.add_callback(_LeaveBetweenSteps(stop))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def _take_up_the_end(trainer: SealingTrainer, checkpoint: Path) -> bool:
    """Where training was over at a checkpoint, take its weights, or the best ones; Trainer would train a step more."""
    state = read_state(checkpoint)
    callbacks: Any = state.stateful_callbacks
    is_over: bool = callbacks["TrainerControl"]["args"]["should_training_stop"]
    if is_over:
        best = checkpoint.with_name(f"checkpoint-{state.best_global_step}")
        trainer._load_from_checkpoint(str(best if trainer.args.load_best_model_at_end else checkpoint))
        trainer.state = state
    return is_over


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save model, configuration, code and tokenizer as one folder that the Auto classes load.

    Raises:
        OSError: If a file cannot be written; each is whole or as it was before.
    """

    def write(partial: Path) -> None:
        model.save_pretrained(partial)
        save_tokenizer(tokenizer, partial, num_positions(model))

    replace_files(folder, write, what="the final model", checkpoints=folder / "run", advice=ADVICE)


def close_run(folder: Path) -> None:
    """Delete the checkpoints of a finished run; they are several times the model's size."""
    run = folder / "run"
    for checkpoint in [*list_checkpoints(run), *run.glob("checkpoint-*.replaced*")]:
        try:
            delete_checkpoint(checkpoint)
        except OSError as error:  # the result is safe
            logger.warning("%s could not be deleted: %s", checkpoint, error)


def learning_curve(trainer: Trainer, name: str) -> list[list[float]]:
    """The logged values of one number, as [step, value]: the form in which they come back from a record."""
    return [[entry["step"], entry[name]] for entry in trainer.state.log_history if name in entry]
