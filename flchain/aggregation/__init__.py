"""From the accepted updates of a round to one change of the global model, by the name that ChainParams holds."""

from __future__ import annotations

from flchain.aggregation.median import MEDIAN
from flchain.aggregation.rule import UPDATES_MAX, WEIGHT_LIMIT, AggregationRule, WeightedUpdate
from flchain.aggregation.trimmed_mean import TRIMMED_MEAN
from flchain.aggregation.weighted_sum import WEIGHTED_SUM

AGGREGATION_RULES: dict[str, AggregationRule] = {
    "weighted-sum": WEIGHTED_SUM,
    "median": MEDIAN,
    "trimmed-mean": TRIMMED_MEAN,
}

__all__ = ["AGGREGATION_RULES", "UPDATES_MAX", "WEIGHT_LIMIT", "AggregationRule", "WeightedUpdate"]
