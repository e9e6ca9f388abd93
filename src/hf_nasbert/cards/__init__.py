"""Records to Hugging Face cards: every number from the record, every name from it inert.

A card says what its record says and nothing else: an absent number is an absent row, an absent group no section.
All text that comes from a record is escaped for YAML, Markdown and HTML, and the same record gives the same bytes.
"""

from hf_nasbert.cards.child import ChildRecord as ChildRecord
from hf_nasbert.cards.child import render_child_card as render_child_card
from hf_nasbert.cards.compressed import CompressedRecord as CompressedRecord
from hf_nasbert.cards.compressed import render_compressed_card as render_compressed_card
from hf_nasbert.cards.evaluations import Evaluation as Evaluation
from hf_nasbert.cards.fields import FIGURES as FIGURES
from hf_nasbert.cards.finetuned import FinetunedRecord as FinetunedRecord
from hf_nasbert.cards.finetuned import render_finetuned_card as render_finetuned_card
from hf_nasbert.cards.metadata import FOR_PUBLISHING as FOR_PUBLISHING
from hf_nasbert.cards.metadata import check_card as check_card
from hf_nasbert.cards.metadata import metadata_problems as metadata_problems
from hf_nasbert.cards.metadata import read_card as read_card
from hf_nasbert.cards.metadata import unsaid_of as unsaid_of
from hf_nasbert.cards.metadata import with_metadata as with_metadata
from hf_nasbert.cards.origins import datasets_of as datasets_of
from hf_nasbert.cards.origins import title_of as title_of
from hf_nasbert.cards.pages import fill_page as fill_page
from hf_nasbert.cards.pages import marked_tables as marked_tables
from hf_nasbert.cards.quotes import quoted_texts as quoted_texts
from hf_nasbert.cards.quotes import without_quotes as without_quotes
from hf_nasbert.cards.supernet import SupernetRecord as SupernetRecord
from hf_nasbert.cards.supernet import render_supernet_card as render_supernet_card
from hf_nasbert.cards.tables import TableFacts as TableFacts
from hf_nasbert.cards.tables import read_table_facts as read_table_facts
from hf_nasbert.cards.tables import render_table_card as render_table_card
