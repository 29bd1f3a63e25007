"""From the names in a config to objects; ``jdet.build.table`` has all names.

build.group("backbone", "root_resnet", depth=34)    # a complete config group, for experiments
build.detector(config, class_names)                 # the detector of a whole config
build.sources(config)                               # its data
"""

from jdet.build import limits as limits
from jdet.build import normalise as normalise
from jdet.build.class_weights import describe_class_weights as describe_class_weights
from jdet.build.class_weights import settle_class_weights as settle_class_weights
from jdet.build.data import agreed_classes as agreed_classes
from jdet.build.data import augment as augment
from jdet.build.data import category_ids as category_ids
from jdet.build.data import folder_group as folder_group
from jdet.build.data import look_at_images as look_at_images
from jdet.build.data import resize as resize
from jdet.build.data import source as source
from jdet.build.data import sources as sources
from jdet.build.data import train_mix as train_mix
from jdet.build.data import train_tile as train_tile
from jdet.build.detector_parts import describe_norms as describe_norms
from jdet.build.detector_parts import detector as detector
from jdet.build.detector_parts import summary as summary
from jdet.build.detector_parts import test_keys as test_keys
from jdet.build.detector_parts import with_frozen_stages as with_frozen_stages
from jdet.build.groups import class_groups as class_groups
from jdet.build.groups import class_of as class_of
from jdet.build.groups import defaults as defaults
from jdet.build.groups import fields as fields
from jdet.build.groups import group as group
from jdet.build.groups import make as make
from jdet.build.groups import renamed as renamed
from jdet.build.same_network import check_same_network as check_same_network
from jdet.build.table import TABLE as TABLE
from jdet.build.table import resolve as resolve
