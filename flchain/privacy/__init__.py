"""What a device does to its update before anyone sees it, by the name that ChainParams holds.

Clipping bounds what one device can tell, or do, to the model; noise hides what is left. Both run on the device, so
the guarantee does not rest on a trusted server (McMahan et al. 2018, arXiv 1710.06963, with the noise added
by each client). What the codec does afterwards, error feedback included, is post-processing of noised updates.
No budget is counted here.
"""

from __future__ import annotations

from flchain.privacy import gaussian, none
from flchain.privacy.clipping import clip_l2
from flchain.privacy.mechanism import Mechanism

MECHANISMS: dict[str, Mechanism] = {
    "none": none.protect,
    "gaussian": gaussian.protect,
}

__all__ = ["MECHANISMS", "Mechanism", "clip_l2"]
