"""Alert episodes: what turns the scores of one shard into pages that open once and close once."""

from operators.kernels.episodes.config import EpisodeConfig
from operators.kernels.episodes.shard import Episodes
from operators.kernels.episodes.suppression import Harmless, HeldBack, Maintenance
from operators.kernels.episodes.track import Standing

__all__ = ["EpisodeConfig", "Episodes", "Harmless", "HeldBack", "Maintenance", "Standing"]
