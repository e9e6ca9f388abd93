"""What a network learns from beside labels: children of super-nets, averages, encoders from elsewhere, base models."""

from hf_nasbert.teachers.base import Taught, Teacher
from hf_nasbert.teachers.base_models import BaseModelTeacher, Lesson, Spread, mask_of, read_child
from hf_nasbert.teachers.children import AlignedStates, AverageTeacher, ChildTeacher, aligned_states
from hf_nasbert.teachers.encoders import EncoderTeacher, find_attention, predicting_at, read, vectors_of
from hf_nasbert.teachers.stages import StageErrors, masks_of, run_stage

__all__ = [
    "AlignedStates",
    "AverageTeacher",
    "BaseModelTeacher",
    "ChildTeacher",
    "EncoderTeacher",
    "Lesson",
    "Spread",
    "StageErrors",
    "Taught",
    "Teacher",
    "aligned_states",
    "find_attention",
    "mask_of",
    "masks_of",
    "predicting_at",
    "read",
    "read_child",
    "run_stage",
    "vectors_of",
]
