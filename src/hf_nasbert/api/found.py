"""`search`: the best children of a super-net under a budget, and what there is to see of them."""

import html
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from hf_nasbert.api.trainer import Text
from hf_nasbert.data import DataArguments, given_texts
from hf_nasbert.data.vocabulary import save_tokenizer
from hf_nasbert.extraction import extract_child, load_supernet
from hf_nasbert.hub.models import known_tokenizer
from hf_nasbert.lazy import check_extra
from hf_nasbert.modeling.modeling_nasbert import NasBertPreTrainedModel
from hf_nasbert.modeling.modeling_supernet import SupernetPreTrainedModel
from hf_nasbert.pipeline import SearchChildrenArguments, SearchReportArguments, report_search, search_children
from hf_nasbert.pipeline.confirm import front_of
from hf_nasbert.pipeline.text_settings import settings_of_model
from hf_nasbert.processes import be_alone
from hf_nasbert.scored import ScoredChild
from hf_nasbert.searching import SETTINGS
from hf_nasbert.settings import check_names
from hf_nasbert.space import Architecture

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]
    from matplotlib.axes import Axes

_SHOWN = 10  # children of the table that a notebook shows


@dataclass(frozen=True)
class FoundChild:
    """A child of a super-net that a search has scored.

    Args:
        architecture: One operator of every choice block.
        loss: With the weights that it inherits, on the held-out text: nats per masked token, or of a super-net that a
            base model teaches, its distance from that; infinite where it is no finite number.
        cost: What it costs: `num_parameters`, `flops` and `peak_activation_bytes` of one sequence, and with a latency
            table `latency_ms`.
    """

    architecture: Architecture
    loss: float
    cost: dict[str, float]
    _supernet: Callable[[], SupernetPreTrainedModel] = field(repr=False, compare=False)

    def extract(self) -> NasBertPreTrainedModel:
        """The child as a model of its own, with copies of its weights: see `extract_child`."""
        return extract_child(self._supernet(), self.architecture)


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search has found.

    Args:
        scored: All children that were scored on all dev batches, best first.
        objectives: The costs that `front` is of, beside the loss.
        history: The file of the search's records, which `hf-nasbert report` and a search that goes on read.
        supernet: The super-net, or its folder.
    """

    scored: tuple[ScoredChild, ...] = field(repr=False)
    objectives: tuple[str, ...]
    history: Path
    supernet: SupernetPreTrainedModel | Path = field(repr=False)

    @property
    def best(self) -> FoundChild:
        """The best child within the budget.

        Raises:
            ValueError: If no child has a finite loss.
        """
        if not self.scored or self.scored[0].proxy_loss is None:
            raise ValueError(f"none of the {len(self.scored)} children has a finite loss: is the super-net trained?")
        return self._found(self.scored[0])

    @cached_property
    def front(self) -> tuple[FoundChild, ...]:
        """The children than which none is better in loss and in `objectives` at once, by their loss."""
        return tuple(map(self._found, front_of(self.scored, self.objectives)))

    def to_pandas(self) -> "pandas.DataFrame":
        """Every scored child as a line of a `pandas.DataFrame`, best first.

        Its columns: `architecture`, `loss`, the costs by their names, `is_on_front`, and where there are further dev
        sets `loss_on_NAME`; `measured_latency_ms` where children were run.
        """
        import pandas

        front = {child.architecture for child in self.front}
        lines: list[dict[str, Any]] = []
        for child in self.scored:
            line = {"architecture": str(child.architecture), "loss": child.loss, **child.cost}
            if child.measured_latency_ms is not None:
                line["measured_latency_ms"] = child.measured_latency_ms
            others = {f"loss_on_{name}": loss for name, loss in child.dev_losses.items()}
            lines.append(line | others | {"is_on_front": child.architecture in front})
        return pandas.DataFrame(lines)

    def plot(self, cost: str | None = None) -> "Axes":
        """Draw loss over a cost: every child, the front and the best; `.figure` of what is returned is the figure.

        Args:
            cost: The cost, by default the first of `objectives`.

        Raises:
            ImportError: If matplotlib is not installed; says how to get it.
            ValueError: If there is no such cost, or no child with a finite loss.
        """
        check_extra("plot", "plots", "matplotlib")
        from hf_nasbert.plots import plot_pareto_front

        cost, known = cost or self.objectives[0], self.best.cost
        if cost not in known:
            raise ValueError(f"cost={cost!r} is none of {', '.join(known)}")
        return plot_pareto_front(self.scored, cost=cost, winner=self.best.architecture).axes[0]

    def report(self, path: str | Path) -> Path:
        """Write the page of HTML that `hf-nasbert report` writes, and return its file.

        Raises:
            ValueError: If the name does not end in .html.
            OSError: If the file cannot be written.
        """
        if Path(path).suffix != ".html":
            raise ValueError(f"{path} ends in {Path(path).suffix!r}; expected .html")
        folder = str(self.supernet) if isinstance(self.supernet, Path) else "path/to/supernet"
        return report_search(SearchReportArguments(records=str(self.history), output=str(path), supernet=folder))

    def __str__(self) -> str:
        return "\n".join("  ".join(line) for line in self._table())

    def _repr_html_(self) -> str:
        head, *lines = self._table()
        rows = [_row("th", head), *(_row("td", line) for line in lines)]
        said = f"{len(self.scored):,} children scored, {len(self.front):,} on the front; the best:"
        return f"<p>{html.escape(said)}</p>\n<table>{''.join(rows)}</table>"

    def _table(self) -> list[list[str]]:
        """The best children as cells, below their names."""
        costs = list(self.scored[0].cost) if self.scored else []
        lines = [
            [str(child.architecture), f"{child.loss:.4f}", *(f"{child.cost[name]:,.6g}" for name in costs)]
            for child in self.scored[:_SHOWN]
        ]
        return [["architecture", "loss", *costs], *lines]

    @cached_property
    def _loaded(self) -> SupernetPreTrainedModel:
        return load_supernet(self.supernet, None) if isinstance(self.supernet, Path) else self.supernet

    def _found(self, child: ScoredChild) -> FoundChild:
        return FoundChild(child.architecture, child.loss, dict(child.cost), lambda: self._loaded)


def search(
    supernet: str | Path | SupernetPreTrainedModel,
    dataset: Text | None = None,
    eval_dataset: Text | None = None,
    *,
    processing_class: PreTrainedTokenizerBase | None = None,
    output: str | Path | None = None,
    **settings: Any,
) -> SearchResult:
    """Search a super-net for its best children under a budget, as `hf-nasbert search` does.

    Args:
        supernet: Its folder, or the super-net itself.
        dataset: The text that it was trained on, of which the part that was held out is scored on: a
            `datasets.Dataset` with a column "text", texts, a file or folder, or `DataArguments`. By default what the
            folder says, where it names a packaged text or one of the Hub.
        eval_dataset: Text to score on, all of it, in place of that part.
        processing_class: The tokenizer; by default the one that lies in the super-net's folder.
        output: File of the search's history (.jsonl): a call that was killed goes on there. By default a file of
            temporary ones, which lives as long as the result.
        **settings: Fields of `SearchChildrenArguments`: `search="evolution"`, `num_evaluations=1000`, a budget such
            as `max_parameters="2M"`; the search's own settings, such as `population_size=50`; and fields of
            `DataArguments`, such as `max_seq_length=128`.

    Raises:
        ValueError: If no child is within the budget, super-net, tokenizer and text do not fit each other, or a
            setting is none of this search.
        OSError: If there is no such super-net or text, or a file cannot be written.
        ImportError: If the search needs a package that is not installed.
        TypeError: If there is no such setting.

    Example:
        ```python
        from hf_nasbert import search

        result = search(
            trainer.args.output_dir, dataset=texts, max_parameters="0.9x", num_evaluations=20, num_dev_batches=1
        )
        print(result.best.architecture, result.best.loss, result.best.cost["num_parameters"])
        child = result.best.extract()
        result.to_pandas().head()
        result.report("runs/search.html")
        ```
    """
    be_alone("searching in Python")
    scratch = Path(tempfile.mkdtemp(prefix="searched-"))
    try:
        home, folder = supernet, scratch / "supernet"
        if isinstance(home, SupernetPreTrainedModel):
            tokenizer = processing_class or known_tokenizer(home)
            if tokenizer is None:
                raise ValueError("the super-net does not know its tokenizer: give it as processing_class")
            home.save_pretrained(folder)
            save_tokenizer(tokenizer, folder, home.config.max_position_embeddings)
        else:
            home = folder = Path(home)
            if processing_class is not None:
                save_tokenizer(processing_class, scratch / "tokenizer", None)
                settings["tokenizer_name"] = str(scratch / "tokenizer")
        data = _text(str(folder), dataset, eval_dataset, _taken(settings, fields(DataArguments)))
        own = [one for kind in SETTINGS.values() for one in fields(kind)]  # those of another search are refused below
        own_settings = _taken(settings, own, but=fields(SearchChildrenArguments))
        check_names("search", SearchChildrenArguments, settings)
        arguments = SearchChildrenArguments(
            supernet=str(folder), output=str(output or scratch / "history.jsonl"), search_settings=own_settings,
            **settings,
        )  # fmt: skip
        scored = search_children(arguments, data)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    result = SearchResult(tuple(scored), tuple(arguments.objectives), Path(arguments.output), home)
    weakref.finalize(result, shutil.rmtree, scratch, ignore_errors=True)
    return result


def _text(folder: str, dataset: Text | None, eval_dataset: Text | None, settings: dict[str, Any]) -> DataArguments:
    """The text to score on: what is not said of it, the super-net's folder says."""
    if isinstance(dataset, DataArguments):
        return given_texts(dataset, eval_dataset, **settings)
    if dataset is None and eval_dataset is None:
        return DataArguments(**(settings_of_model({"supernet": folder, **settings}) | settings))
    # Of a text that the folder cannot name, it says the lengths of sequences and the masking.
    other = {"supernet": folder, "train_files": ["text given in Python"], **settings}
    return given_texts(dataset, eval_dataset, **(settings_of_model(other) | settings))


def _taken(settings: dict[str, Any], known: Sequence[Field[Any]], but: Sequence[Field[Any]] = ()) -> dict[str, Any]:
    """Take those settings that are among these fields out of all."""
    names = {one.name for one in known} - {one.name for one in but}
    return {name: settings.pop(name) for name in list(settings) if name in names}


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
