"""The encoder that is given: loaded as the child it is, with its tokenizer and what makes sentence vectors of it."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_nasbert.configs import check_model, fetching, load_config
from hf_nasbert.data.foreign_tokenizers import open_tokenizer
from hf_nasbert.data.packaged import PACKAGED_MODELS, PREFIX, model_folder
from hf_nasbert.data.vocabulary import vocabulary_size
from hf_nasbert.foreign import ForeignFileError, printable
from hf_nasbert.modeling import (
    NasBertForMaskedLM,
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
    NasBertModel,
)
from hf_nasbert.modeling.elastic import AUTO_CLASSES, SUPPORTED, load_full_child
from hf_nasbert.modeling.modeling_nasbert import NasBertPreTrainedModel
from hf_nasbert.modeling.sentence_transformer import SentenceModules, encoder_place, read_sentence_modules

_HEADS = {
    "ForMaskedLM": NasBertForMaskedLM,
    "BertForPreTraining": NasBertForMaskedLM,  # of an ELECTRA it tells real words from replaced ones
    "ForSequenceClassification": NasBertForSequenceClassification,
    "ForTokenClassification": NasBertForTokenClassification,
    "ForQuestionAnswering": NasBertForQuestionAnswering,
}
_NO_KIND = re.compile(r"model.type")  # how transformers says that it knows no such architecture
TASKS = {
    NasBertModel: "feature-extraction",
    NasBertForMaskedLM: "fill-mask",
    NasBertForSequenceClassification: "text-classification",
    NasBertForTokenClassification: "token-classification",
    NasBertForQuestionAnswering: "question-answering",
}
"""What the Hub calls that which a child with a head does."""


@dataclass(frozen=True)
class BaseModel:
    """An encoder that is to be made smaller.

    Args:
        name: What the user calls it: a folder, a name on the Hub, or `packaged:NAME`.
        place: Where its encoder and its tokenizer are loaded from: a folder, or a name on the Hub.
        revision: Branch, tag or commit of that place.
        full_child: The child that it is, with its head.
        tokenizer: Its tokenizer.
        modules: What makes a SentenceTransformer of it; `None` where it is none.
    """

    name: str
    place: str
    revision: str | None
    full_child: NasBertPreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    modules: SentenceModules | None

    @property
    def hub_task(self) -> str:
        """What the Hub calls that which it does."""
        return "sentence-similarity" if self.modules else TASKS[type(self.full_child)]

    @property
    def auto_class(self) -> Any:
        """The Auto class that its children load by."""
        return AUTO_CLASSES[type(self.full_child)]


def open_base_model(
    base_model: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    tokenizer_name: str | None = None,
    tokenizer_revision: str | None = None,
    lengths: Mapping[str, int | None] | None = None,
) -> BaseModel:
    """Load an encoder, its tokenizer and what stands around it; the model stays as it is.

    Args:
        base_model: Folder, name on the Hub, or a packaged one.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether code of the repository's own may run.
        tokenizer_name: A tokenizer in place of the model's own.
        tokenizer_revision: Its commit or tag.
        lengths: Tokens that it is to read, by the setting that says so.

    Raises:
        ValueError: If it is no encoder of a known family, its files are damaged, its code may not be run, it has no
            tokenizer, or one with more tokens than embeddings; or if it has fewer positions than it is to read
            tokens.
        OSError: If there is no such model.
    """
    whole = model_folder(base_model)
    check_model(whole, revision)
    try:
        with fetching(whole):
            place, own_revision = encoder_place(whole, revision=revision)
        options: dict[str, Any] = {"revision": own_revision, "trust_remote_code": trust_remote_code}
        config = load_config(place, **options)
    except ForeignFileError as error:
        if not _NO_KIND.search(str(error)):
            raise
        raise ForeignFileError(f"{printable(str(error), 600)}; {SUPPORTED}") from error
    except OSError as error:
        packaged = base_model.rpartition("/")[2]
        if packaged not in PACKAGED_MODELS:
            raise
        raise OSError(f"{error} Without a network: --base_model {PREFIX}{packaged}") from error
    modules = read_sentence_modules(whole, revision=revision)
    head = next(iter(getattr(config, "architectures", None) or ()), "")
    child_class = next((made for end, made in _HEADS.items() if head.endswith(end)), NasBertModel)
    full_child = load_full_child(place, NasBertModel if modules else child_class, may_draw_head=False, **options)
    if tokenizer_name is None:
        try:
            tokenizer = open_tokenizer(place, **options)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the base model {printable(base_model, 200)} has no tokenizer to cut text with ({error}): put its "
                "own beside it, or name one by tokenizer_name"
            ) from error
    else:
        tokenizer = open_tokenizer(tokenizer_name, revision=tokenizer_revision, trust_remote_code=trust_remote_code)
    if tokenizer_name is None and base_model.startswith(PREFIX):
        tokenizer.name_or_path = base_model  # as messages call it
    size, positions = vocabulary_size(tokenizer), full_child.config.max_position_embeddings
    if size > full_child.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {size} tokens and the base model {full_child.config.vocab_size} embeddings: it is "
            "another model's; name the right one by tokenizer_name"
        )
    for setting, length in (lengths or {}).items():
        if length is not None and length > positions:
            raise ValueError(
                f"{setting} asks for {length} tokens, and the base model has {positions} positions: set {setting} to "
                f"{positions} tokens at most"
            )
    if modules is not None:  # version 6 of its library leaves the longest text to the tokenizer
        longest = min(modules.max_seq_length or tokenizer.model_max_length, positions)
        modules = dataclasses.replace(modules, max_seq_length=longest)
        modules.check_width(full_child.config.hidden_size)
    return BaseModel(base_model, place, own_revision, full_child, tokenizer, modules)
