"""Anomaly scores for latency, errors and traffic of every series."""

from operators.kernels.scoring.config import ScoringConfig
from operators.kernels.scoring.detector import Detector
from operators.kernels.scoring.detector_config import DetectorConfig
from operators.kernels.scoring.explanation import ChannelReading, Explanation, SignalExplanation
from operators.kernels.scoring.neighbours import Neighbours, NeighboursConfig
from operators.kernels.scoring.scorer import Scorer
from operators.kernels.scoring.signals import Gate
from operators.kernels.scoring.verdicts import Verdicts

__all__ = [
    "ChannelReading",
    "Detector",
    "DetectorConfig",
    "Explanation",
    "Gate",
    "Neighbours",
    "NeighboursConfig",
    "Scorer",
    "ScoringConfig",
    "SignalExplanation",
    "Verdicts",
]
