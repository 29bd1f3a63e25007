"""What a run says of going on with other images per device."""

import pytest

from jdet.train.workdir import Workdir
from tests.train import fake


@pytest.mark.parametrize(
    "accumulation, group, before, now, says",
    [
        (1, 0, 2, 4, False),  # all images of the step, however they are split
        (2, 0, 2, 4, True),
        (2, 0, 4, 4, False),
        (2, 2, 2, 4, False),  # groups inside a device
        (2, 4, 2, 4, True),
        (2, 4, 4, 2, True),
    ],
)
def test_groups_over_devices_change_where_micro_batches_do(
    tmp_path, accumulation, group, before, now, says
):
    config = fake.config(train__accumulation=accumulation, parallel__bn_group_size=group)
    with config.unlocked():
        config.model.norm = "sync_batch"
    folder = Workdir(tmp_path, config, 20)
    folder.update(micro_batch=before, devices=2)
    note = folder.check_split(config, 4, now)
    folder.close()
    assert ("train.accumulation=2, BatchNorm groups" in note) == says
    assert (f"{before} each before and {now} now" in note) == says
