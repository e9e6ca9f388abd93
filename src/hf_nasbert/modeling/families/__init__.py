"""Families of stock encoders that children and super-nets come from and turn into."""

from hf_nasbert.modeling.families.bert import bert_blocks, from_bert, native_form, to_bert

__all__ = ["bert_blocks", "from_bert", "native_form", "to_bert"]
