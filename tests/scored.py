"""What proofs about scores are measured with."""

from diffuse.scoring import Settings

SETTINGS = Settings(kid_subsets=4, kid_subset_size=16, neighbours=3)
POSSIBLE = ["fid", "kid", "prdc", "per_class", "gap", "memorisation", "pixels"]
