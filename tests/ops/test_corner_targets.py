"""Targets of corners and classes against the authors' code, written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from jdet.ops.boxes import pairwise_iou
from jdet.ops.corner_targets import class_maps, heat_radius
from tests.ops.matching.test_points import GRIDS, draw

CLASSES = 3


def test_boxes_whose_corners_move_by_the_radius_overlap_enough():
    """The worst of inwards, outwards and sideways has exactly the IoU."""
    size = jnp.array([[30.0, 12.0], [5.0, 80.0]])
    reach = heat_radius(size)[:, None]
    box = jnp.concatenate([jnp.zeros((2, 2)), size], axis=1)
    moves = jnp.array([[1, 1, -1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]])
    overlap = jax.vmap(lambda b, r: pairwise_iou(b[None], b + r * moves)[0])(box, reach)
    np.testing.assert_allclose(overlap.min(1), 0.7, rtol=1e-4)


def test_class_maps_equal_the_authors():
    """Boxes from the largest to the smallest, cell by cell; points of other levels lie in cells of it."""
    boxes = draw(2, 8)
    boxes[3] = [20, 20, 40, 40]
    boxes[4] = [24, 16, 32, 24]  # on the borders of cells, over a larger one of its class
    labels = np.array([0, 1, 2, 1, 1, 0, 2, 0])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    finest = np.zeros((CLASSES, GRIDS[0].rows, GRIDS[0].columns))
    for i in np.argsort(areas[:6])[::-1]:
        x1, y1, x2, y2 = (boxes[i] / 8).astype(int)
        finest[labels[i], y1 : y2 + 1, x1 : x2 + 1] = 64 / areas[i]
    expected = []
    for grid in GRIDS:
        rows, columns = (np.arange(n) * int(grid.stride) // 8 for n in (grid.rows, grid.columns))
        expected.append(finest[:, rows][:, :, columns].reshape(CLASSES, -1))
    found = class_maps(*map(jnp.asarray, (boxes, labels, np.arange(8) < 6)), GRIDS, CLASSES)
    np.testing.assert_allclose(found, np.concatenate(expected, 1), rtol=1e-4)
