"""Shrinking masks so that thin anatomy stays in one piece."""

import numpy as np
from numpy.typing import NDArray

# The eight neighbours of a cell, clockwise from the north; neighbour k is bit k of a cell's surroundings.
_AROUND = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
_MANY_COMPONENTS = 256  # a mask in more pieces than this is noise, and is treated as one figure to save time


def resize_keeping_lines(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Mask (H, W) -> (height, width): the cells at least half covered, and lines where thin anatomy covers less.

    The cells that a connected component touches keep it in one piece, but make it too wide. So they are
    thinned, the least covered cell first, never taking one whose loss would cut or shorten the figure, until
    only the half covered cells and lines one cell wide are left. Components are thinned one by one, so that no
    line joins two.
    """
    from scipy import ndimage

    resized = np.zeros((height, width), np.bool_)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return resized
    top, left = int(rows[0]), int(columns[0])
    anatomy = mask[top : rows[-1] + 1, left : columns[-1] + 1]  # most of a mask is empty, and need not be gone through
    window, covered = _coverage(anatomy, (top, left), mask.shape, resized.shape)
    resized[window] = 2 * covered >= mask.size
    body = resized.copy()
    labels, count = ndimage.label(anatomy, np.ones((3, 3)))
    if count > _MANY_COMPONENTS:
        labels = anatomy.astype(np.int32)
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        corner = top + box[0].start, left + box[1].start
        window, covered = _coverage(labels[box] == label, corner, mask.shape, resized.shape)
        resized[window] |= _thin(covered, body[window])
    return resized


def _coverage(
    part: NDArray[np.bool_], corner: tuple[int, int], shape: tuple[int, ...], grid: tuple[int, ...]
) -> tuple[tuple[slice, slice], NDArray[np.float64]]:
    """The cells of the new `grid` that a part reaches into, cut out at `corner` of a mask of `shape`; its area in each.

    A full cell counts H x W, so all areas are whole numbers: exact, and the same in a mirrored mask.
    """
    rows, row_sums = _sum_bins(part, corner[0], shape[0], grid[0])
    columns, sums = _sum_bins(row_sums.T, corner[1], shape[1], grid[1])
    return (slice(rows.start, rows.stop), slice(columns.start, columns.stop)), sums.T


def _sum_bins(
    values: NDArray[np.bool_] | NDArray[np.float64], start: int, n: int, count: int
) -> tuple[range, NDArray[np.float64]]:
    """Sum `values`, the rows from `start` on out of n, into the bins, out of `count`, that they reach into.

    Lengths are exact: a row is `count` long and a bin n.
    """
    bins = range(start * count // n, -(-(start + len(values)) * count // n))
    sums = np.zeros((len(bins), values.shape[1]))
    for bin_sum, i in zip(sums, bins, strict=True):
        rows = np.arange(max(i * n // count, start), min(-(-(i + 1) * n // count), start + len(values)))
        overlap = np.minimum((rows + 1) * count, (i + 1) * n) - np.maximum(rows * count, i * n)
        bin_sum += overlap.astype(np.float64) @ values[rows - start].astype(np.float64)
    return bins, sums


def _thin(covered: NDArray[np.float64], body: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The covered cells without those that are neither body, bridge nor end; the least covered go first."""
    stride = covered.shape[1] + 2
    steps = [down * stride + right for down, right in _AROUND]
    kept = bytearray(np.pad(covered > 0, 1).tobytes())
    fixed = np.pad(body & (covered > 0), 1).tobytes()
    weight = np.pad(covered, 1).ravel().tolist()
    todo = [cell for cell in range(len(kept)) if kept[cell] and not fixed[cell]]
    while todo:
        again: set[int] = set()
        for cell in sorted(todo, key=weight.__getitem__):  # of equals the first in the order of reading
            around = sum(kept[cell + step] << k for k, step in enumerate(steps))
            if _SIMPLE[around] and (not _END[around] or any(fixed[cell + step] for step in steps)):
                kept[cell] = 0
                again.update(cell + step for step in steps)
        todo = sorted(cell for cell in again if kept[cell] and not fixed[cell])
    return np.frombuffer(bytes(kept), np.bool_).reshape(-1, stride)[1:-1, 1:-1]


def _is_simple(around: int) -> bool:
    """Whether a cell may go without cutting or joining anything: its Yokoi number (8-connected) is 1."""
    out = [1 - (around >> k & 1) for k in range(8)]
    return sum(out[k] - out[k] * out[k + 1] * out[(k + 2) % 8] for k in (0, 2, 4, 6)) == 1


def _is_end(around: int) -> bool:
    """One neighbour, or two side by side: the last cell of a line one or two cells wide."""
    near = [around >> k & 1 for k in range(8)]
    return sum(near) == 1 or (sum(near) == 2 and any(near[k] and near[k - 1] for k in range(8)))


_SIMPLE = [_is_simple(around) for around in range(256)]
_END = [_is_end(around) for around in range(256)]
