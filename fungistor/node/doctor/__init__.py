"""What is wrong with a home and its network, and what to do: keys, clocks, members, catalog, disk, formats.

Each module looks at one of these and changes nothing. What cannot be told is said to be so, and is no finding.
"""

from fungistor.node.doctor.examine import examine
from fungistor.node.doctor.finding import Finding

__all__ = ["Finding", "examine"]
