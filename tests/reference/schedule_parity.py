"""Learning-rate schedules against transformers' get_scheduler: every update of runs of many lengths, to 1e-12 of the peak."""
import os
import pathlib
import subprocess
import sys

import torch
from transformers.optimization import get_scheduler

TOOL = pathlib.Path(os.environ["FINETUNED_BUILD_DIR"]) / "tests" / "schedule_tool"
worst, compared = 0.0, 0
for kind in ("cosine", "linear", "polynomial", "constant", "constant_with_warmup", "cosine_with_min_lr"):
    for warmup, total in ((0, 1), (0, 7), (1, 2), (3, 100), (100, 1001), (17, 18), (5, 5000)):
        for peak in (2e-4, 1e-2, 3.3e-6):
            minimum = 0.1 if kind == "cosine_with_min_lr" else 0.0
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
            extra = {"scheduler_specific_kwargs": {"min_lr_rate": minimum}} if minimum else {}
            scheduler = get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=total, **extra)
            ours = subprocess.run([TOOL, "cosine" if minimum else kind, repr(peak), repr(minimum), str(warmup), str(total)],
                                  check=True, capture_output=True, text=True).stdout.split()
            for step, rate in enumerate(map(float, ours)):
                error = abs(rate - scheduler.get_last_lr()[0]) / peak
                worst, compared = max(worst, error), compared + 1
                if error > 1e-12:
                    sys.exit(f"{kind}, peak {peak}, {warmup} of {total}: update {step} is {rate}, theirs {scheduler.get_last_lr()[0]}")
                optimizer.step()
                scheduler.step()
print(f"{compared} rates compared, largest difference {worst:.1e} of the peak")
