"""Records to Hugging Face cards: every number from the record, every name from it inert.

A card says what its record says and nothing else: an absent number is an absent row, an absent group no section.
All text that comes from a record is escaped for YAML, Markdown and HTML, and the same record gives the same bytes.
"""

from hf_nasbert.cards.child import ChildRecord, render_child_card
from hf_nasbert.cards.compressed import CompressedRecord, render_compressed_card
from hf_nasbert.cards.evaluations import Evaluation
from hf_nasbert.cards.fields import FIGURES
from hf_nasbert.cards.finetuned import FinetunedRecord, render_finetuned_card
from hf_nasbert.cards.metadata import FOR_PUBLISHING, check_card, metadata_problems, read_card
from hf_nasbert.cards.pages import fill_page, marked_tables
from hf_nasbert.cards.supernet import SupernetRecord, render_supernet_card
from hf_nasbert.cards.tables import TableFacts, read_table_facts, render_table_card

__all__ = [
    "FIGURES",
    "FOR_PUBLISHING",
    "ChildRecord",
    "CompressedRecord",
    "Evaluation",
    "FinetunedRecord",
    "SupernetRecord",
    "TableFacts",
    "check_card",
    "fill_page",
    "marked_tables",
    "metadata_problems",
    "read_card",
    "read_table_facts",
    "render_child_card",
    "render_compressed_card",
    "render_finetuned_card",
    "render_supernet_card",
    "render_table_card",
]
