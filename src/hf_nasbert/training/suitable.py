"""What method, teacher, precision and launch do not do together: refused before anything is trained or refitted."""

from hf_nasbert.costs import cost_function
from hf_nasbert.methods import METHODS, TrainingMethod
from hf_nasbert.methods.base import RunKind
from hf_nasbert.modeling.modeling_supernet import SupernetForMaskedLM, SupernetPreTrainedModel
from hf_nasbert.training import sharding
from hf_nasbert.training.arguments import SupernetTrainingArguments


def make_method(supernet: SupernetPreTrainedModel, arguments: SupernetTrainingArguments) -> TrainingMethod:
    """The method of a run.

    Raises:
        ValueError: If its settings do not fit the space.
    """
    costs = cost_function(supernet.config)  # it remembers what an operator costs
    return METHODS[arguments.method](
        supernet.space,
        arguments.method_settings,
        cost=lambda child: costs(child)["num_parameters"],
        seed=arguments.seed,
        max_steps=arguments.max_steps,
    )


def check_combination(
    method: TrainingMethod,
    supernet: SupernetPreTrainedModel,
    arguments: SupernetTrainingArguments,
    *,
    has_base_model: bool,
) -> None:
    """Refuse what cannot be trained together.

    Args:
        method: The method of the run.
        supernet: The super-net.
        arguments: How to train, with the teacher that "auto" came to (`with_teacher`).
        has_base_model: Whether the super-net was made of a base model, which is there.

    Raises:
        ValueError: If method, super-net, teacher, precision, learning rate or launch do not fit each other: one line
            that names the setting.
    """
    is_taught = has_base_model and arguments.teacher != "none"
    if not is_taught and not isinstance(supernet, SupernetForMaskedLM):
        raise ValueError(
            f"a {type(supernet).__name__} has no head that predicts masked words: let a teacher teach it "
            "(teacher=base_model)"
        )
    is_fp16, is_constant = arguments.mixed_precision == "fp16", arguments.lr_scheduler_type.startswith("constant")
    method.check_run(RunKind(sharding.is_wanted(), is_taught, has_base_model, is_fp16, is_constant))
    if has_base_model and sharding.is_wanted():
        raise ValueError("the super-net of a base model (base_model) is not sharded: launch with DDP (multi_gpu.yaml)")
