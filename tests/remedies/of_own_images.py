"""Remedies of the experiments on one's own images, and of what is told of their labels."""

from tests.remedies.rows import Elsewhere

DECISIONS, LOOKS = "tests/test_custom_decisions.py", "tests/analysis/test_set_looks.py"
BENCH = "tests/test_own_folder_bench.py::test_options_that_make_no_sense"

OF_OWN_IMAGES = (
    ("by heart: --config.data.holdout=0", "test_one_image", "--config.data.holdout=0"),
    ("give a side of 32 to 4096", "test_arguments_that_make_no_sense", ""),
    ("the share of the images from", "test_arguments_that_make_no_sense", "such as balance=0.1"),
    (
        "steps={} and minutes={}: give one of them",
        "test_arguments_that_make_no_sense",
        "steps=3 and minutes=1: give one of them",
    ),
)
OF_LOOKS = (
    ("python -m jdet.doctor shows them", "test_contradictory_labels", "most often a and b"),
    ("take images with more pixels", "test_objects_of_impossible_sizes", ""),
    ("give a larger input (size=", "test_remedies_of_sizes", ""),
    ("hardly anything can be learnt; {}", "test_remedies_of_sizes", "tile=128"),
    ("Leave tile= out", "test_remedies_of_sizes", ""),
    ("images with something around", "test_objects_of_impossible_sizes", "fill their images"),
    ("into the training split", "test_classes_without_examples", "no training image shows b"),
    ("hold out more images", "test_classes_without_examples", "holdout=3"),
)
OF_THE_BENCH = (
    ("minutes above 0, such as 15,60", ""),
    ("--arms={} matches none of", "--arms=nothing matches none of today, new"),
    ("--jobs={} must be at least 1", "must be at least 1"),
    ("--sets={} finds no labelled folder", "--sets=nothing finds no labelled folder"),
)

ROWS = [
    Elsewhere(
        "experiments/common_own.py",
        "name your folder: --config=experiments/{}.py:root=PATH",
        "tests/test_experiments.py::test_custom_experiment_says_what_it_needs",
        ".py:root=PATH",
    ),
    Elsewhere(
        "experiments/common_direct.py",
        "pre={} and minutes={}: give one of them",
        f"{DECISIONS}::test_phases_share_the_minutes",
        "pre=5 and minutes=8: give one of them",
    ),
    *(
        Elsewhere("experiments/studies/own_folder.py", text, BENCH, proof)
        for text, proof in OF_THE_BENCH
    ),
    *(
        Elsewhere("experiments/common_own.py", text, f"{DECISIONS}::{test}", proof)
        for text, test, proof in OF_OWN_IMAGES
    ),
    *(
        Elsewhere("jdet/analysis/set_problems.py", text, f"{LOOKS}::{test}", proof)
        for text, test, proof in OF_LOOKS
    ),
]
