"""What a network learns from beside its labels: children of a super-net, averages of one, encoders from elsewhere."""

from hf_nasbert.teachers.base import Taught, Teacher
from hf_nasbert.teachers.children import AlignedStates, AverageTeacher, ChildTeacher, aligned_states
from hf_nasbert.teachers.encoders import EncoderTeacher, find_attention, predicting_at, read, vectors_of

__all__ = [
    "AlignedStates",
    "AverageTeacher",
    "ChildTeacher",
    "EncoderTeacher",
    "Taught",
    "Teacher",
    "aligned_states",
    "find_attention",
    "predicting_at",
    "read",
    "vectors_of",
]
