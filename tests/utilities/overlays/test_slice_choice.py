from __future__ import annotations

import numpy as np
import pytest

from nnunetv2.utilities.overlay_plots import select_slice_to_plot, select_slice_to_plot2


def volume(*planes):
    return np.array(planes)[:, None]


@pytest.mark.parametrize(
    ("segmentation", "most_foreground", "most_of_each"),
    [
        (volume([0, 0, 0], [1, 1, 0], [1, 0, 0]), 1, 1),
        (volume([1, 1, 1], [1, 0, 0], [0, 2, 1]), 0, 2),  # 3/5 of label 1; 1/5 of it and all of label 2
        (volume([0, 0, 0], [0, 0, 0]), 0, 0),
        (volume([-1, -1, -1], [0, 0, 5]), 0, 1),
        (volume([1, 0, 0], [1, 0, 0]), 0, 0),
        # shares of 0.6 / 0 and 0.4 / 1: the single voxel counts as much as the ten
        (volume([1] * 6 + [0] * 4, [1] * 4 + [2] + [0] * 5), 0, 1),
    ],
)
def test_the_chosen_slice(segmentation, most_foreground, most_of_each):
    assert select_slice_to_plot(segmentation, segmentation) == most_foreground
    assert select_slice_to_plot2(segmentation, segmentation) == most_of_each
