"""Training-free scores: weak diagnostics, to be shown beside what training says.

    python benchmarks/training_free.py table --table imdb --seeds 0 1 2
    hf-nasbert report-ranking --table imdb --scores benchmarks/records/training-free.jsonl.gz
    python benchmarks/training_free.py nas-bench-bert
    python benchmarks/training_free.py nas-bench-bert BERT_benchmark.json BERT_results_activation.csv

`table` scores the children of a ground-truth table in untrained super-nets, on one batch of random tokens; its records
are read as those of any method, so that parameter count and chance stand beside them. `nas-bench-bert` prints how the
500 models of NAS-Bench-BERT are ranked by their own shape and by what was released with them ("Training-free Neural
Architecture Search for RNNs and Transformers", Serianni and Kalita, 2023, https://arxiv.org/abs/2306.00288; data CC BY
4.0, https://github.com/aaronserianni/training-free-nas, folder `data`): from a shortened copy in benchmarks/records,
which holds no score but the number of parameters, or from the two files that the user downloads.
"""

import argparse
import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hf_nasbert import metrics, records
from hf_nasbert.ranking import GroundTruth, load_table
from hf_nasbert.space import Architecture, operator_kind

RECORDS = Path(__file__).parent / "records" / "training-free.jsonl"
SHORTENED = Path(__file__).parent / "records" / "nas-bench-bert.csv"
SCORES = ("synaptic saliency", "W-PCA", "head confidence")
_SIZES = ("hidden_size", "ffn_ratio", "attention_head_size", "num_conv_layers", "vocab_size")
_VARIANCE = 0.99  # that the principal components counted by W-PCA hold


def scores_of(supernet: Any, child: Architecture, batch: dict[str, Any], num_parameters: float) -> dict[str, float]:
    """The training-free scores of a child, larger is said to be better.

    - synaptic saliency: the sum of |weight x gradient of the masked-LM loss| over the matrices of the child's blocks;
    - W-PCA: parameters times the principal components, summed over blocks, that hold 99 % of their output's variance;
    - head confidence: the mean of the largest absolute query of every attention, 0 without attention.

    The descriptions are read [public code of the first and last one, W-PCA's README]; the forms for operators other
    than attention and ffn are ours.
    """
    import torch

    states: list[Any] = []
    queries: list[Any] = []
    blocks = supernet.nasbert.encoder.blocks
    hooks = [block.register_forward_hook(lambda _, __, output: states.append(output)) for block in blocks]
    for block, name in zip(blocks, child, strict=True):
        if operator_kind(name) == "attention":
            query = block.operators[name].get_submodule("self.query")
            hooks.append(query.register_forward_hook(lambda _, __, output: queries.append(output)))
    supernet.zero_grad()
    try:
        supernet(**batch, architecture=child).loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    saliency, components = 0.0, 0
    for block, name in zip(blocks, child, strict=True):
        matrices = [p for p in block.operators.parameters_of(name) if p.dim() > 1 and p.grad is not None]
        saliency += sum(float((p * p.grad).detach().abs().sum()) for p in matrices)
    for state in states:
        rows = state.detach().flatten(0, -2)
        shares = torch.linalg.svdvals(rows - rows.mean(dim=0)) ** 2
        components += int((shares.cumsum(0) < _VARIANCE * shares.sum()).sum()) + 1
    confidence = [float(query.detach().abs().amax(dim=-1).mean()) for query in queries]
    mean = sum(confidence) / len(confidence) if confidence else 0.0
    return dict(zip(SCORES, (saliency, num_parameters * components, mean), strict=True))


def score_table(truth: GroundTruth, seed: int, num_sequences: int = 16) -> dict[str, dict[str, float]]:
    """Scores of all children of a table, by name; as losses are, so that the lowest is the best."""
    import torch

    from hf_nasbert.modeling import SupernetConfig
    from hf_nasbert.training.pretrain import initial_supernet

    length, sizes = truth.recipe["sequence_length"], {name: truth.recipe[name] for name in _SIZES}
    config = SupernetConfig(search_space=truth.space, max_position_embeddings=length, **sizes)
    supernet = initial_supernet(config, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, config.vocab_size, (num_sequences, length), generator=generator)
    is_asked = torch.rand(tokens.shape, generator=generator) < truth.recipe["mlm_probability"]
    batch = {"input_ids": tokens, "labels": tokens.masked_fill(~is_asked, -100)}
    found: dict[str, dict[str, float]] = {name: {} for name in SCORES}
    for child, size in zip(truth.architectures, truth.num_parameters, strict=True):
        for name, value in scores_of(supernet, child, batch, float(size)).items():
            found[name][str(child)] = -value
    return found


def run(table: str, seeds: Sequence[int], file: Path = RECORDS) -> None:
    """Write a record of every score and seed."""
    truth = GroundTruth(load_table(table))
    for seed in seeds:
        for name, losses in score_table(truth, seed).items():
            record = {"supernet": f"untrained, {name}, seed {seed}", "method": f"{name} (training-free)", "seed": seed}
            record |= {"step": None, "max_steps": None, "recipe_hash": truth.recipe_hash, "proxy_losses": losses}
            records.append(file, {**record, "versions": records.versions()})


class Released(NamedTuple):
    """A model of NAS-Bench-BERT: mean of its GLUE scores, depth, width, and the released training-free scores."""

    number: int
    glue: float
    num_layers: int
    hidden_size: int
    scores: dict[str, float]


def read_nas_bench_bert(benchmark: str | Path, results: str | Path | None = None) -> list[Released]:
    """The released models.

    Args:
        benchmark: `BERT_benchmark.json`.
        results: `BERT_results_activation.csv`, which holds the scores and the numbers of parameters.

    Raises:
        ValueError: If a file is not of that format, or the two are of different models.
    """
    released = json.loads(Path(benchmark).read_text(encoding="utf-8"))
    scores: dict[int, dict[str, float]] = {}
    if results is not None:
        with Path(results).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                scores[int(row.pop("ID"))] = {name: float(value) for name, value in row.items()}
    found = []
    for model in released:
        try:
            shape = model["hparams"]["model_hparam_overrides"]
            of_model = scores.get(model["id"], {})
            one = Released(
                model["id"],
                model["scores"]["glue"],
                len(shape["nas_config"]["encoder_layers"]),
                shape["hidden_size"],
                {name: value for name, value in of_model.items() if name != "GLUE Score"},
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{benchmark} is no benchmark of trained models: an entry lacks {error}") from None
        if not math.isclose(of_model.get("GLUE Score", one.glue), one.glue, abs_tol=1e-6):
            raise ValueError(f"{results} is of other models than {benchmark}: number {one.number} has another score")
        found.append(one)
    return found


def read_shortened(file: str | Path = SHORTENED) -> list[Released]:
    """The released models from the shortened copy, whose first lines say where they are from."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return [
        Released(
            int(row["id"]),
            float(row["glue"]),
            int(row["num_layers"]),
            int(row["hidden_size"]),
            {"Number of Parameters": float(row["num_parameters"])},
        )
        for row in csv.DictReader(line for line in lines if not line.startswith("#"))
    ]


def table_of(models: Sequence[Released]) -> str:
    """How the models are ranked: over all, and within groups of one depth and width."""
    rows: dict[str, list[float]] = {
        "number of layers": [float(one.num_layers) for one in models],
        "layers, then hidden size": [one.num_layers + one.hidden_size / 1e6 for one in models],
    }
    common = set.intersection(*(set(one.scores) for one in models))
    rows |= {name: [one.scores[name] for one in models] for name in models[0].scores if name in common}
    lines = [
        "| score | tau, all | Spearman, all | mean tau at one depth and width |",
        "| --- | ---: | ---: | ---: |",
    ]
    glue = [one.glue for one in models]
    for name, values in rows.items():
        inside = f"{metrics.mean_of_known(list(_taus_within(models, values))):.2f}"
        inside = "" if inside == "nan" else inside
        whole = (metrics.kendall_tau(values, glue), metrics.spearman(values, glue))
        lines.append(f"| {name} | {whole[0]:.4f} | {whole[1]:.4f} | {inside} |")
    return "\n".join(lines)


def _taus_within(models: Sequence[Released], values: Sequence[float]) -> Iterator[float]:
    for shape in sorted({(one.num_layers, one.hidden_size) for one in models}):
        places = [place for place, one in enumerate(models) if (one.num_layers, one.hidden_size) == shape]
        if len(places) < 2:
            continue
        yield metrics.kendall_tau([values[place] for place in places], [models[place].glue for place in places])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("table")
    table.add_argument("--table", default="imdb")
    table.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    released = commands.add_parser("nas-bench-bert")
    released.add_argument("benchmark", nargs="?", help="BERT_benchmark.json; by default the shortened copy is read")
    released.add_argument("results", nargs="?", help="BERT_results_activation.csv")
    arguments = parser.parse_args()
    if arguments.command == "table":
        from hf_nasbert.training.farm import compress_table

        run(arguments.table, arguments.seeds)
        compress_table(RECORDS)
    else:
        files = (arguments.benchmark, arguments.results)
        print(table_of(read_shortened() if arguments.benchmark is None else read_nas_bench_bert(*files)))


if __name__ == "__main__":
    main()
