"""Anomaly scores for latency, errors and traffic of every series."""

from operators.kernels.scoring.config import ScoringConfig
from operators.kernels.scoring.detector import Detector, Verdicts
from operators.kernels.scoring.detector_config import DetectorConfig
from operators.kernels.scoring.neighbours import Neighbours, NeighboursConfig
from operators.kernels.scoring.scorer import Scorer

__all__ = ["Detector", "DetectorConfig", "Neighbours", "NeighboursConfig", "Scorer", "ScoringConfig", "Verdicts"]
