"""Score children of a super-net on held-out text, with the weights they have there: one record per child.

python recipes/score_children.py --supernet runs/supernet --num_random 1000 --packaged imdb --output scores.jsonl
python recipes/score_children.py --supernet runs/supernet --all_children --train_files text.txt --output scores.jsonl
python recipes/score_children.py --supernet runs/supernet --architectures attention-ffn ffn-ffn --packaged imdb \
    --output scores.jsonl
"""

import hashlib
import math
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate import PartialState

from hf_nasbert import records
from hf_nasbert.costs import cost_function
from hf_nasbert.data import DataArguments, fixed_masked_batches, load_corpus
from hf_nasbert.extraction import load_supernet
from hf_nasbert.recipe_arguments import parse_recipe_arguments
from hf_nasbert.scoring import score_architectures
from hf_nasbert.space import Architecture, SearchSpace

CHUNK = 1000
"""Children between two writes: what a killed run has to repeat."""


@dataclass
class ScoringArguments:
    """Which children of which super-net to score, and on how much of the held-out text.

    Raises:
        ValueError: If not exactly one choice of children is given.
    """

    supernet: str = field(metadata={"help": "Folder of the super-net."})
    output: str = field(
        metadata={"help": "File of records to append to; children that it holds are not scored again."}
    )
    architectures: list[str] | None = field(default=None, metadata={"help": "These children."})
    num_random: int | None = field(default=None, metadata={"help": "So many different children, drawn uniformly."})
    all_children: bool = field(default=False, metadata={"help": "Every child of the space."})
    seed: int = field(default=0, metadata={"help": "Seed of the draw of children."})
    num_dev_batches: int = field(default=4, metadata={"help": "Fixed batches of held-out text."})
    dev_batch_size: int = field(default=16, metadata={"help": "Sequences in each of them."})

    def __post_init__(self) -> None:
        choices = [self.architectures is not None, self.num_random is not None, self.all_children]
        if sum(choices) != 1:
            raise ValueError("choose children by exactly one of architectures, num_random and all_children")
        if self.num_random is not None and self.num_random < 1:
            raise ValueError(f"num_random={self.num_random} must be at least 1")


def choose_children(arguments: ScoringArguments, space: SearchSpace) -> list[Architecture]:
    """The children to score, in an order in which neighbours share long prefixes."""
    if arguments.architectures is not None:
        return [space.validate(Architecture.parse(text)) for text in arguments.architectures]
    if arguments.all_children or (arguments.num_random or 0) >= space.num_children:
        if space.num_children > 1_000_000:
            raise ValueError(f"the space has {space.num_children:,} children: score some of them with num_random")
        return list(space.enumerate())
    rng, indices = random.Random(arguments.seed), set[int]()
    while len(indices) < (arguments.num_random or 0):
        indices.add(rng.randrange(space.num_children))
    return [space.child_at(index) for index in sorted(indices)]


def score(arguments: ScoringArguments, data: DataArguments) -> None:
    """Load super-net and text, score what the output file does not hold yet, and print the best."""
    supernet = load_supernet(arguments.supernet)
    children = choose_children(arguments, supernet.space)
    longest = supernet.config.max_position_embeddings
    if data.max_seq_length > longest:
        raise ValueError(f"max_seq_length={data.max_seq_length}, but the super-net was built for {longest} tokens")
    weights = b"".join(file.read_bytes() for file in sorted(Path(arguments.supernet).glob("*.safetensors")))
    settings = {
        "supernet": hashlib.sha256(weights).hexdigest()[:16],  # its weights: a folder's name says nothing
        "text": data.packaged or data.dataset_name or [Path(file).name for file in data.train_files or []],
        "data_seed": data.data_seed,
        "max_seq_length": data.max_seq_length,
        "num_dev_batches": arguments.num_dev_batches,
        "dev_batch_size": arguments.dev_batch_size,
    }
    output = Path(arguments.output)
    found = {record["architecture"]: record for record in records.read(output)} if output.exists() else {}
    for record in found.values():
        different = [name for name, value in settings.items() if record.get(name) != value]
        if different:
            raise ValueError(f"{output} holds scores of another {different[0]}: losses of two kinds do not compare")
    missing = [child for child in children if str(child) not in found]
    print(f"{len(children):,} children, {len(children) - len(missing):,} of them scored before")
    if missing:
        corpus = load_corpus(replace(data, tokenizer_name=data.tokenizer_name or arguments.supernet))
        if len(corpus.tokenizer) > supernet.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {len(corpus.tokenizer)} tokens, the super-net {supernet.config.vocab_size} "
                "embeddings: name the one it was trained with (--tokenizer_name)"
            )
        batches = fixed_masked_batches(
            corpus.dev,
            corpus.tokenizer,
            arguments.num_dev_batches,
            arguments.dev_batch_size,
            data.data_seed,
            mlm_probability=data.mlm_probability,
            whole_word_mask=data.whole_word_mask,
        )
        supernet.to(PartialState().device)
        cost = cost_function(supernet.config, sequence_length=data.max_seq_length)
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            for child, loss in zip(chunk, score_architectures(supernet, chunk, batches, progress=True), strict=True):
                proxy_loss = loss if math.isfinite(loss) else None
                found[str(child)] = {"architecture": str(child), "proxy_loss": proxy_loss, **cost(child), **settings}
                records.append(output, found[str(child)])
    scored = [found[str(child)] for child in children]
    finite = sorted((one for one in scored if one["proxy_loss"] is not None), key=lambda one: one["proxy_loss"])
    print(f"{output}: {len(scored):,} children, {len(scored) - len(finite):,} without a finite loss; the best:")
    for one in finite[:5]:
        print(f"{one['proxy_loss']:.4f}  {one['num_parameters']:>12,} parameters  {one['architecture']}")


def main(argv: list[str] | None = None) -> None:
    """Score as the arguments say; a mistake in them ends in one line that names it."""
    arguments, data = parse_recipe_arguments([ScoringArguments, DataArguments], argv, description=__doc__)
    try:
        score(arguments, data)
    except (ValueError, OSError) as error:
        raise SystemExit(f"score_children: {error}") from None


if __name__ == "__main__":
    main()
