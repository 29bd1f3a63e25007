"""Targets of corners and classes against the authors' code, written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdet.ops.boxes import pairwise_iou
from jdet.ops.corner_targets import class_maps, corner_targets, heat_radius
from tests.ops.matching.test_points import CONTENT, GRIDS, all_points, draw

CLASSES = 3


def radius(sizes, overlap=0.7):
    """``gaussian_radius`` of the authors' code."""
    w, h = sizes.T
    b, c = h + w, w * h * (1 - overlap) / (1 + overlap)
    first = (b - np.sqrt(b**2 - 4 * c)) / 2
    b, c = 2 * (h + w), (1 - overlap) * w * h
    second = (b - np.sqrt(b**2 - 16 * c)) / 8
    a, b, c = 4 * overlap, -2 * overlap * (h + w), (overlap - 1) * w * h
    third = (b + np.sqrt(b**2 - 4 * a * c)) / (2 * a)
    return np.min([first, second, third], axis=0)


def reference(corners, reach):
    """``PointHMAssigner`` with bumps, but that the nearest of several corners has a peak's offset."""
    heats, offsets = [], []
    for places, grid in zip(all_points(), GRIDS):
        distance = np.linalg.norm(places[:, None] - corners, axis=2)
        sigma = (2 * reach + 1) / 6
        heat = np.where(distance < reach, np.exp(-(distance**2) / (2 * sigma**2)), 0).max(1)
        offset, taken = np.zeros(places.shape), np.full(len(places), np.inf)
        distance[(places >= CONTENT[::-1]).any(1)] = np.inf
        for i, j in enumerate(distance.argmin(0)):
            heat[j] = 1
            if distance[j, i] < taken[j]:
                taken[j] = distance[j, i]
                offset[j] = (corners[i] - places[j]) / grid.stride
        heats.append(heat)
        offsets.append(offset)
    return np.concatenate(heats), np.concatenate(offsets)


@pytest.mark.parametrize("count", [0, 5])
def test_corners_equal_the_authors(count):
    boxes = draw(1, 9)
    boxes[2, :2] = boxes[1, :2] + 0.5  # two corners for one point of every level
    reach = heat_radius(jnp.asarray(boxes[:, 2:] - boxes[:, :2]))
    np.testing.assert_allclose(reach, radius(boxes[:, 2:] - boxes[:, :2]), rtol=1e-4)
    reach = 3 * reach  # so that some points lie within it which are no peaks
    there = jnp.arange(9) < count
    found = corner_targets(jnp.asarray(boxes[:, :2]), reach, there, GRIDS, jnp.array(CONTENT))
    if not count:
        assert not found.peaks.any() and not found.heat.any() and not found.offsets.any()
        return
    heat, offsets = reference(boxes[:count, :2].astype(np.float64), np.asarray(reach)[:count])
    np.testing.assert_allclose(found.heat, heat, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.peaks, heat == 1)
    np.testing.assert_allclose(found.offsets, offsets, atol=1e-5)
    assert (found.heat[~found.peaks] > 0).any()


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
