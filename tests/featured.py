"""What proofs about features of real images look at."""

import torch

ORDER = torch.randperm(600, generator=torch.Generator().manual_seed(2))
