"""The callbacks of transformers, told of a super-net's training as they are told of a `Trainer`'s."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.processes import Processes
from hf_nasbert.training import Listener, SupernetTrainingArguments, read_log

_SHARED = (
    "output_dir", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "warmup_steps", "lr_scheduler_type",
    "seed", "logging_steps", "save_steps", "disable_tqdm",
)  # fmt: skip
METRIC = "eval_loss"
"""The number that decides which step was the best so far: lower is better."""


class CallbackListener(Listener):
    """Hears what the loop does, and calls the callbacks, on every process, in the order of transformers' `Trainer`.

    They are called with `TrainingArguments`, `state` and `control`, and by keyword with `model`, `processing_class`,
    and `logs` or `metrics`. There are no epochs: `state.epoch` is the share of the text that was seen, and
    `on_epoch_begin` and `on_epoch_end` are not called, nor those around the optimizer's own step. What a callback
    remembers itself is in no checkpoint.

    Args:
        callbacks: Callbacks, or their classes.
        arguments: How the super-net is trained.
        model: The super-net.
        processing_class: Its tokenizer.
        num_sequences: Sequences of the training text.
        batch_size: Those of one step, over all processes.
        processes: This process and the others.
    """

    def __init__(
        self,
        callbacks: Iterable[TrainerCallback | type[TrainerCallback]],
        arguments: SupernetTrainingArguments,
        model: SupernetPreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        *,
        num_sequences: int,
        batch_size: int,
        processes: Processes,
    ) -> None:
        self.callbacks = [callback() if isinstance(callback, type) else callback for callback in callbacks]
        self.arguments, self.is_on_cpu = arguments, processes.device.type == "cpu"
        self.given = {"model": model, "processing_class": processing_class}
        self.epochs_per_step = batch_size / num_sequences
        self.control = TrainerControl()
        self.state = TrainerState(
            max_steps=arguments.max_steps,
            logging_steps=arguments.logging_steps,
            eval_steps=arguments.eval_steps,
            save_steps=arguments.save_steps,
            train_batch_size=arguments.per_device_train_batch_size,
            is_local_process_zero=bool(getattr(processes, "is_local_main_process", processes.is_main_process)),
            is_world_process_zero=processes.is_main_process,
        )

    @cached_property
    def training_arguments(self) -> TrainingArguments:
        """The arguments as transformers has them, of the names that both have."""
        shared = {name: getattr(self.arguments, name) for name in _SHARED}
        return TrainingArguments(
            **shared,
            eval_strategy="steps" if self.arguments.eval_steps else "no",
            eval_steps=self.arguments.eval_steps or None,
            save_total_limit=self.arguments.save_total_limit or None,
            metric_for_best_model=METRIC,
            greater_is_better=False,
            use_cpu=self.is_on_cpu,
            report_to="none",  # the loop reports itself
            accelerator_config={"use_configured_state": True},  # the run's own
        )

    def tell(self, event: str, **given: Any) -> None:
        """Call that method of every callback, in their order."""
        for callback in self.callbacks:
            answer = getattr(callback, event)(self.training_arguments, self.state, self.control, **self.given, **given)
            if answer is not None:
                self.control = answer

    def begins(self, step: int) -> None:
        """Take up what was logged before the run went on, and call `on_train_begin`."""
        self.state.log_history = []
        self.state.best_metric = self.state.best_global_step = None
        for record in read_log(self.arguments.output_dir):
            if record["event"] == "train":
                self._log(record["step"], {name: record[name] for name in record if name not in ("event", "step")})
            elif record["event"] == "eval":
                self._log(record["step"], metrics_of([one["loss"] for one in record["children"]]))
                self._judge()
        self._is_at(step)
        self.control = TrainerControl()
        self.tell("on_train_begin")

    def step_begins(self, step: int) -> None:
        """Call `on_step_begin`."""
        self.control.should_log = self.control.should_evaluate = self.control.should_save = False
        self.tell("on_step_begin")

    def step_ends(self, step: int) -> None:
        """Call `on_step_end`."""
        self._is_at(step)
        self.tell("on_step_end")

    def logs(self, step: int, values: Mapping[str, float]) -> None:
        """Call `on_log`."""
        self.control.should_log = False
        logs = self._log(step, values)
        self.tell("on_log", logs=logs)

    def evaluates(self, step: int, losses: list[float]) -> None:
        """Call `on_log` and `on_evaluate`."""
        self.control.should_evaluate = False
        metrics = self._log(step, metrics_of(losses))
        self.tell("on_log", logs=metrics)
        self.tell("on_evaluate", metrics=metrics)
        self._judge()

    def saves(self, step: int) -> None:
        """Call `on_save`."""
        self.control.should_save = False
        self.tell("on_save")

    def ends(self, step: int) -> None:
        """Call `on_train_end`."""
        self._is_at(step)
        self.tell("on_train_end")

    def wants(self, what: Literal["log", "evaluate", "save", "stop"]) -> bool:
        """What the callbacks left in `control`."""
        control = self.control
        if what == "stop":
            return bool(control.should_training_stop)
        return bool(getattr(control, f"should_{what}"))

    def _is_at(self, step: int) -> None:
        self.state.global_step, self.state.epoch = step, step * self.epochs_per_step

    def _log(self, step: int, values: Mapping[str, Any]) -> dict[str, float]:
        """Add a line to the history, of its numbers; returns them."""
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        logs = {**numbers, "epoch": step * self.epochs_per_step}
        self.state.log_history.append({**logs, "step": step})
        return logs

    def _judge(self) -> None:
        """Whether the last evaluation was the best so far."""
        last: dict[str, Any] = self.state.log_history[-1]
        if self.state.best_metric is None or last[METRIC] < self.state.best_metric:
            self.state.best_metric, self.state.best_global_step = last[METRIC], last["step"]


def metrics_of(losses: Sequence[float]) -> dict[str, float]:
    """The mean and the best loss of the evaluated children; nothing where none was."""
    return {METRIC: sum(losses) / len(losses), f"{METRIC}_best": min(losses)} if losses else {}
