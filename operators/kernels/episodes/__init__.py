"""Alert episodes: what turns the scores of one shard into pages that open once and close once."""

from operators.kernels.episodes.config import EpisodeConfig
from operators.kernels.episodes.shard import Episodes

__all__ = ["EpisodeConfig", "Episodes"]
