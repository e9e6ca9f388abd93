"""`SupernetTrainer`: the training of super-nets with the face of transformers' `Trainer`."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerState
from transformers.trainer_utils import TrainOutput

from hf_nasbert.api.callbacks import CallbackListener, metrics_of
from hf_nasbert.data import DataArguments, given_texts
from hf_nasbert.data.vocabulary import save_tokenizer
from hf_nasbert.hub import PushArguments, Pushed, push
from hf_nasbert.hub.repository import default_api
from hf_nasbert.modeling import SupernetConfig
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.pipeline import describe_supernet, write_supernet_card
from hf_nasbert.space import SearchSpace
from hf_nasbert.training import (
    SupernetArguments,
    SupernetLoop,
    SupernetTrainingArguments,
    prepare_pretraining,
)
from hf_nasbert.writing import scratch_folder

Text: TypeAlias = Dataset | Iterable[str] | DataArguments | str | Path
"""A data set with a column "text", texts, a file or folder of text, or what `DataArguments` say."""


class SupernetTrainer:
    """Trains a super-net on text as `hf-nasbert pretrain` does: the same settings and seed give the same bits.

    Text is cut into sequences of `max_seq_length` tokens, without padding. The log (`train_log.jsonl`), the
    checkpoints and the final super-net with its tokenizer lie in `args.output_dir`, where every command finds them.

    Args:
        model: The super-net, which is trained in place; or a search space or a config, of which one is made whose
            vocabulary is the tokenizer's; or `SupernetArguments`, as for the super-net of an encoder (`base_model`).
        args: How to train, in the names of `TrainingArguments`: steps, sequences a step, learning rate, folder.
        train_dataset: Text: a `datasets.Dataset` with a column "text", texts, a file or folder, or `DataArguments`.
        eval_dataset: Text to hold out; by default a twentieth of the training text is (`validation_fraction`).
        processing_class: The tokenizer, or its name; by default one is trained on the text.
        method: How super-nets are trained (docs/methods.md), in place of `args.method`.
        callbacks: Callbacks of transformers, or their classes; see `api.callbacks.CallbackListener`.
        **text: Fields of `DataArguments`: `max_seq_length=128`, `mlm_probability=0.15`, `validation_fraction=0.05`.

    Attributes:
        model: The super-net.
        processing_class: Its tokenizer.
        state: transformers' `TrainerState`; `state.log_history` has a line for every `logging_steps` steps, with the
            loss in nats per masked token, and one for every evaluation.

    Raises:
        ValueError: If anything given does not fit the rest; the message names it.
        OSError: If a file cannot be read.
        TypeError: If there is no such setting.

    Example:
        ```python
        from hf_nasbert import SearchSpace, SupernetTrainer, SupernetTrainingArguments

        texts = [f"film number {number} was {word}" for number in range(400) for word in ("good", "bad", "long")]
        trainer = SupernetTrainer(
            model=SearchSpace.chain(num_choice_blocks=4, operators=("attention", "ffn", "conv3")),
            args=SupernetTrainingArguments(
                output_dir="runs/supernet", max_steps=4, per_device_train_batch_size=4, report_to="none"
            ),
            train_dataset=texts,
            method="magic_t",
            max_seq_length=16,
        )
        trainer.train()
        print(trainer.state.log_history[-1]["eval_loss"])
        ```
    """

    def __init__(
        self,
        model: SupernetPreTrainedModel | SearchSpace | SupernetConfig | SupernetArguments,
        args: SupernetTrainingArguments,
        train_dataset: Text,
        eval_dataset: Text | None = None,
        processing_class: PreTrainedTokenizerBase | str | Path | None = None,
        *,
        method: str | None = None,
        callbacks: Iterable[TrainerCallback | type[TrainerCallback]] | None = None,
        **text: Any,
    ) -> None:
        if method is not None and method != args.method:
            args = replace(args, method=method, method_settings=None)
        args = replace(args, output_dir=str(args.output_dir))
        positions = getattr(getattr(model, "config", model), "max_position_embeddings", None)
        if positions is not None and not isinstance(train_dataset, DataArguments):
            text.setdefault("max_seq_length", min(positions, DataArguments.max_seq_length))
        if processing_class is None and isinstance(model, SupernetPreTrainedModel):
            raise ValueError("a super-net that is there already has a tokenizer: give it as processing_class")
        with scratch_folder() as folder:
            if isinstance(processing_class, PreTrainedTokenizerBase):
                save_tokenizer(processing_class, folder, None)
                processing_class = folder
            if processing_class is not None:
                text["tokenizer_name"] = str(processing_class)
            data = given_texts(train_dataset, eval_dataset, **text)
            self._made = made = prepare_pretraining(model, data, args)
        accelerator = made.options["accelerator"]
        self.model, self.processing_class = made.supernet, made.options["tokenizer"]
        self._listener = CallbackListener(
            callbacks or (),
            made.arguments,
            self.model,
            self.processing_class,
            num_sequences=made.batches.num_sequences,
            batch_size=made.batches.batch_size,
            processes=accelerator,
        )
        self.loop = SupernetLoop(
            self.model, made.arguments, made.batches, made.dev_batches, listener=self._listener, **made.options
        )
        self._listener.tell("on_init_end")

    @property
    def args(self) -> SupernetTrainingArguments:
        """How the super-net is trained."""
        return self.loop.arguments

    @property
    def state(self) -> TrainerState:
        """How far the training is, and what it logged."""
        return self._listener.state

    def add_callback(self, callback: TrainerCallback | type[TrainerCallback]) -> None:
        """Call one more callback, after the others."""
        self._listener.callbacks.append(callback() if isinstance(callback, type) else callback)

    def train(self, resume_from_checkpoint: bool | str | Path | None = None) -> TrainOutput:
        """Train to `max_steps`, until a callback or a signal (SIGTERM) asks to stop, and save what there is then.

        A callback that sets `control.should_training_stop` stops after that step, and where several processes train
        after the next one; the last checkpoint is of that step, and the next call goes on from it.

        Args:
            resume_from_checkpoint: True: the newest whole checkpoint of the folder, if there is any; or a checkpoint.
                The run then ends with the same bits as if it had never stopped.

        Returns:
            transformers' `TrainOutput`: `global_step`; `training_loss`, the mean of the logged losses; `metrics`, with
            seconds in `train_runtime` and, where the run came to its end, the last `eval_loss`.

        Raises:
            ValueError: If the folder holds another run, or this trainer has trained and is not told to go on.
            DivergenceError: If a loss, a gradient or a weight is no finite number.
            OSError: If something cannot be written or read.
        """
        which = "latest" if resume_from_checkpoint is True else resume_from_checkpoint or None
        which = str(which) if which is not None else self._made.arguments.resume_from_checkpoint
        if which is None and self.loop.global_step:
            raise ValueError(
                f"this trainer has trained {self.loop.global_step} steps: go on with resume_from_checkpoint=True, or "
                "make another one to start anew"
            )
        self.loop.arguments = replace(self.args, resume_from_checkpoint=which)
        start = time.perf_counter()
        output = self.loop.train()
        self._made.keep_modules()
        losses = [line["loss"] for line in self.state.log_history if "loss" in line]
        mean = sum(losses) / len(losses) if losses else float("nan")
        metrics = {"train_runtime": round(time.perf_counter() - start, 3), "train_loss": mean}
        metrics |= metrics_of([loss for _, loss in output.evaluation])
        return TrainOutput(output.global_step, mean, metrics)

    def evaluate(self) -> dict[str, float]:
        """Score the fixed children (`num_eval_children`) on the held-out text, with the weights of this moment.

        Returns:
            `eval_loss`, their mean, and `eval_loss_best`, in nats per masked token (of a super-net that a base model
            teaches: their distance from it). A line of `state.log_history` too.
        """
        losses = [loss for _, loss in self.loop.eval_losses()]
        if losses:
            self._listener.evaluates(self.loop.global_step, losses)
        return metrics_of(losses)

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Save super-net and tokenizer in a folder, by default `args.output_dir`, as the end of `train` does.

        Raises:
            OSError: If it cannot be written.
        """
        self.loop.save_model(output_dir)

    def push_to_hub(self, repo_id: str, *, token: str | None = None, **settings: Any) -> Pushed:
        """Save the super-net, write its card, and push both as one commit: `hf-nasbert push`.

        Args:
            repo_id: Repository, such as user/my-supernet; made if it is missing.
            token: A token of the Hub; by default that of `hf auth login` or HF_TOKEN.
            **settings: Fields of `hub.PushArguments`: `private`, `revision`, `create_pr`, `message`, `overwrite`.

        Raises:
            ValueError: If the name is none, or what lies in the folder cannot be published.
            FileExistsError: If the repository holds another model, and `overwrite` is not given.
            OSError: What the network and the Hub refuse.
        """
        self.save_model()
        folder = Path(self.args.output_dir)
        if not (folder / "README.md").exists() or (folder / "card.json").exists():  # else it is somebody's own
            write_supernet_card(folder, describe_supernet(folder))
        return push(PushArguments(str(folder), repo_id, **settings), api=default_api(token))
