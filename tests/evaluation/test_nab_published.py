"""The NAB score against what was published for two simple detectors, file by file."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from evaluation import nab
from evaluation.recordings import Recording, read_all, read_labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

FILES = Path(__file__).parent / "nab_files"
STANDARD = nab.PROFILES[0]

GAUSSIAN_THRESHOLD = 1 - 5e-13
"""The published threshold is 1.0, of scores that were written with twelve digits."""

RANDOM_THRESHOLD = 0.9984497070312507

PUBLISHED_GAUSSIAN = {
    "TravelTime_387": -1.79598133079,
    "ec2_cpu_utilization_24ae8d": -1.26667875935,
    "ec2_network_in_257a54": 0.86067182427,
    "exchange-3_cpc_results": 2.50266326119,
    "iio_us-east-1_i-a2eb1cd9_NetworkIn": -2.0,
    "speed_t4013": 1.76631783122,
}
"""`windowedGaussian_standard_scores.csv` of the benchmark."""

PUBLISHED_RANDOM = {
    "ec2_cpu_utilization_24ae8d": -1.74479197233,
    "ec2_network_in_257a54": 0.194081567936,
    "iio_us-east-1_i-a2eb1cd9_NetworkIn": -0.639278295814,
}
"""`random_standard_scores.csv` of the benchmark, which is older and has no other of these files."""


def windowed_gaussian(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """One less the tail probability of each value; mean and deviation of 6,400 values, moved on by 100 at a time."""
    score = np.zeros(len(values))
    for row in range(1, len(values)):
        last = row if row <= 6_400 else row - row % 100
        window = values[max(last - 6_400, 0) : last]
        distance = abs(values[row] - window.mean()) / (window.std() or 1e-6)
        score[row] = 1 - math.erfc(distance / math.sqrt(2)) / 2
    return score


def uniform(values: NDArray[np.float64]) -> NDArray[np.float64]:
    drawn = random.Random(42)
    return np.array([drawn.uniform(0, 1) for _ in values])


@pytest.mark.parametrize(
    ("detector", "threshold", "published"),
    [(windowed_gaussian, GAUSSIAN_THRESHOLD, PUBLISHED_GAUSSIAN), (uniform, RANDOM_THRESHOLD, PUBLISHED_RANDOM)],
    ids=["windowed Gaussian", "random"],
)
def test_files_have_the_published_scores(
    detector: Callable[[NDArray[np.float64]], NDArray[np.float64]], threshold: float, published: dict[str, float]
) -> None:
    found = {one.name.removesuffix(".csv.gz"): one for one in read_all(FILES)}
    spans = read_labels(FILES / "labels.json", found.values())

    def raw(one: Recording) -> float:
        sheet = nab.judge_rows(one.time_s, spans[one.name])
        return nab.raw_score(sheet, detector(one.value) >= threshold, STANDARD)

    assert {name: raw(found[name]) for name in published} == pytest.approx(published, abs=1e-5)
