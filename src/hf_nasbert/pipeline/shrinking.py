"""Scored children in, a smaller space out: the operators that they do worse with are left out of a recipe's blocks."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import yaml

from hf_nasbert import records
from hf_nasbert.extraction import load_supernet_config
from hf_nasbert.pipeline.arguments import ShrinkSpaceArguments
from hf_nasbert.ranking import GroundTruth, load_table
from hf_nasbert.ranking.pruning import Verdict, judge_operators, smaller_space
from hf_nasbert.scored import scored_children
from hf_nasbert.space import FreeStage
from hf_nasbert.training.arguments import SupernetArguments
from hf_nasbert.writing import check_apart, check_writable, write_text

_NOT_SIZES = ("blocks", "skip", "num_choice_blocks")


class ShrunkSpace(NamedTuple):
    """The outcome of `shrink_space`: what was said of every operator, and how many children there were and are."""

    verdicts: Sequence[Verdict]
    num_children: tuple[int, int]
    output: Path

    def __str__(self) -> str:
        lines = [
            "block  operator      worth [90 % interval]            SHAP   (thousandths of a loss, negative is good)"
        ]
        for one in self.verdicts:
            estimate, low, high = (1000 * value for value in one.worth)
            said = "  dropped" if one.is_dropped else ""
            interval = f"[{low:+.1f}, {high:+.1f}]"
            lines.append(
                f"{one.block:>5}  {one.operator:<12} {estimate:+8.1f} {interval:<20} {1000 * one.shap:+8.1f}{said}"
            )
        before, after = self.num_children
        number = sum(one.is_dropped for one in self.verdicts)
        lines.append(f"{number} operators dropped, {before:,} children before, {after:,} now: {self.output}")
        return "\n".join(lines)


def shrink_space(arguments: ShrinkSpaceArguments) -> ShrunkSpace:
    """Write the smaller space as YAML, which `hf-nasbert pretrain --config` reads.

    Raises:
        FileNotFoundError: If the super-net, the records or the table are missing.
        ImportError: If LightGBM is not installed.
        ValueError: If a record is none, the children do not tell operators apart, or the space has several stages.
        WriteError: If the output cannot be written.
    """
    check_writable(arguments.output)
    check_apart(output=arguments.output, records=arguments.records, table=arguments.table)
    config = load_supernet_config(arguments.supernet)
    space = config.space
    if arguments.table is not None:
        truth = GroundTruth(load_table(arguments.table))
        children, losses = truth.architectures, list(truth.loss)
        source = arguments.table
    else:
        source = str(arguments.records)
        found = [one for one in scored_children(records.read(source), source) if one.proxy_loss is not None]
        children, losses = [one.architecture for one in found], [one.loss for one in found]
    strange = next((child for child in children if space.why_not(child) is not None), None)
    if strange is not None:
        raise ValueError(
            f"{source} is not of {arguments.supernet}: {strange} is no child of it: {space.why_not(strange)}"
        )
    if len(children) < 2:
        raise ValueError(f"{source} holds {len(children)} children with a finite loss: score more")
    verdicts = judge_operators(
        space,
        children,
        losses,
        min_candidates=arguments.min_candidates,
        max_dropped=arguments.max_dropped,
        num_resamples=arguments.num_resamples,
        seed=arguments.seed,
    )
    smaller = smaller_space(space, verdicts)
    recipe: dict[str, object] = {"blocks": [",".join(names) for names in smaller.blocks]}
    is_free = isinstance(space.stages[0], FreeStage)
    if not (is_free and config.weight_layout == "nested"):  # else the base model brings the sizes
        known = config.to_dict()
        names = [one.name for one in fields(SupernetArguments) if one.name not in _NOT_SIZES]
        recipe |= {name: known[name] for name in names if known.get(name) is not None}
        recipe |= {"skip": "anywhere"} if is_free else {}
    head = f"# {space.num_children:,} children less those of dropped operators: {smaller.num_children:,}\n"
    write_text(arguments.output, head + yaml.safe_dump(recipe, sort_keys=False, width=1000))
    return ShrunkSpace(verdicts, (space.num_children, smaller.num_children), Path(arguments.output))
