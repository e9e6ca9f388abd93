"""What a network learns from beside labels: children of super-nets, averages, encoders from elsewhere, base models."""

from hf_nasbert.teachers.base import Taught as Taught
from hf_nasbert.teachers.base import Teacher as Teacher
from hf_nasbert.teachers.base_models import BaseModelTeacher as BaseModelTeacher
from hf_nasbert.teachers.base_models import Lesson as Lesson
from hf_nasbert.teachers.base_models import Spread as Spread
from hf_nasbert.teachers.base_models import mask_of as mask_of
from hf_nasbert.teachers.base_models import read_child as read_child
from hf_nasbert.teachers.children import AlignedStates as AlignedStates
from hf_nasbert.teachers.children import AverageTeacher as AverageTeacher
from hf_nasbert.teachers.children import ChildTeacher as ChildTeacher
from hf_nasbert.teachers.children import aligned_states as aligned_states
from hf_nasbert.teachers.encoders import EncoderTeacher as EncoderTeacher
from hf_nasbert.teachers.encoders import find_attention as find_attention
from hf_nasbert.teachers.encoders import predicting_at as predicting_at
from hf_nasbert.teachers.encoders import read as read
from hf_nasbert.teachers.encoders import vectors_of as vectors_of
from hf_nasbert.teachers.stages import StageErrors as StageErrors
from hf_nasbert.teachers.stages import masks_of as masks_of
from hf_nasbert.teachers.stages import run_stage as run_stage
