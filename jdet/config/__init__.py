"""Configs: defaults, checks, experiment files, and what runs have stored.

A config holds plain values and names only; ``jdet.build`` turns ``{"name": …, **fields}`` groups
into objects. ``get_defaults()`` is complete: every key the program reads stands there with its
default, so a typing error in an experiment or on the command line is an unknown key.

config = jdet.config.from_file("experiments/quickstart.py:steps=100")
"""

from jdet.config.checks import CLASS_GROUPS as CLASS_GROUPS
from jdet.config.checks import FREE as FREE
from jdet.config.checks import LOCAL as LOCAL
from jdet.config.checks import NORM_NAMES as NORM_NAMES
from jdet.config.checks import flatten as flatten
from jdet.config.checks import norms as norms
from jdet.config.checks import validate as validate
from jdet.config.defaults import get_defaults as get_defaults
from jdet.config.experiment import apply_settings as apply_settings
from jdet.config.experiment import from_file as from_file
from jdet.config.experiment import parse_arg as parse_arg
from jdet.config.images import image_kind as image_kind
from jdet.config.images import image_settings as image_settings
from jdet.config.images import set_found as set_found
from jdet.config.images import trained_range as trained_range
from jdet.config.phased import BEFORE as BEFORE
from jdet.config.phased import Phase as Phase
from jdet.config.phased import check_common as check_common
from jdet.config.phased import check_phase as check_phase
from jdet.config.phased import complete_phase as complete_phase
from jdet.config.phased import of_phase as of_phase
from jdet.config.phased import split_phases as split_phases
from jdet.config.stored import RENAMED as RENAMED
from jdet.config.stored import complete as complete
from jdet.config.stored import load as load
from jdet.config.stored import migrate as migrate
from jdet.types import nearest as nearest
