"""All claims by their numbers, and the order in which they are tried."""

import placement
import sampling
from control import CONTROL

_ALL = (CONTROL, *placement.CLAIMS, *sampling.CLAIMS, placement.LEARNING_CURVE)
CLAIMS = {claim.number: claim for claim in _ALL}
#: The control first, then what practitioners ask most.
ORDER = (0, 13, 2, 3, 7, 11, 12, 10, 8, 6, 9, 4, 5, 1)
