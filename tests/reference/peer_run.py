"""A job through the real service, and the same training by transformers + PEFT: same model, first adapter and batches, a loop
written by hand. Shared by loss_curve.py and tests/perf/cpu_training.py.
"""
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaForCausalLM, get_cosine_schedule_with_warmup

SOURCE = pathlib.Path(os.environ["FINETUNED_SOURCE_DIR"])
sys.path.insert(0, str(SOURCE / "tests/e2e"))
from service import BIN, Service  # noqa: E402

PROBE = pathlib.Path(os.environ["FINETUNED_BUILD_DIR"]) / "tests/run_probe"
# Nothing is drawn and nothing is evaluated: steps are all there is.
PLAIN = {"devices": 0, "lora": {"r": 16, "dropout": 0}, "quantization": {"load_in_4bit": False}, "packing": True,
         "gradient_checkpointing": False, "eval_strategy": "no", "save_strategy": "no", "logging_steps": 1,
         "dataset": {"path": "train.jsonl", "split": {"validation_fraction": 0}},
         "evaluation": {"baseline": False, "generate_samples": 0}, "export": {"formats": ["adapter"]}}


def run_job(directory, model, job):
    """Runs a job on directory/models/MODEL and directory/datasets/train.jsonl. → (metrics by step, batches, adapter directory).

    batches: for each update a list of micro-batches.
    """
    (directory / "job.yaml").write_text(json.dumps(PLAIN | {"model_name_or_path": model} | job))  # JSON is YAML
    service = Service(directory)
    service.start()
    try:
        client = [BIN / "finetune", "--server", f"127.0.0.1:{service.port}"]
        submitted = subprocess.run([*client, "submit", directory / "job.yaml"], check=True, capture_output=True, text=True)
        job_id = submitted.stdout.split()[-1]
        watched = subprocess.run([*client, "watch", job_id], capture_output=True, text=True)
        assert watched.returncode == 0, watched.stdout[-3000:] + watched.stderr[-3000:]
    finally:
        service.stop()
    home = directory / "data/jobs" / job_id
    subprocess.run([PROBE, home / "attempt-1/plan.pb", directory], check=True)
    metrics = [json.loads(line) for line in open(home / "artifacts/metrics.jsonl")]
    updates = {}
    for name, tensor in load_file(directory / "batches.safetensors").items():
        update, micro_batch, field = name.split(".")
        updates.setdefault(int(update), {}).setdefault(int(micro_batch), {})[field] = tensor
    batches = [[micro_batches[m] for m in sorted(micro_batches)] for _, micro_batches in sorted(updates.items())]
    return metrics, batches, directory / "adapter"


def as_rows(micro_batch):
    """Packed rows as transformers takes them: [rows, longest], positions that restart in each document, from which it builds a
    block-diagonal mask. Padding is a document of its own without targets."""
    ends = micro_batch["row_ends"].tolist()
    begins = [0] + ends[:-1]
    longest = max(end - begin for begin, end in zip(begins, ends))
    rows = {"input_ids": [], "position_ids": [], "targets": []}
    for begin, end in zip(begins, ends):
        padding = longest - (end - begin)
        for name, fill in (("input_ids", torch.zeros(padding, dtype=torch.long)), ("position_ids", torch.arange(padding)),
                           ("targets", torch.full((padding,), -100))):
            rows[name].append(torch.cat([micro_batch[name][begin:end], fill]))
    return {name: torch.stack(parts) for name, parts in rows.items()}


def load_peer(model, adapter, dtype=torch.float32):
    return PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(model, dtype=dtype), adapter, is_trainable=True)


def train_peer(peft, batches, job, fused):
    """→ for each update (loss, gradient norm before clipping, seconds). job: learning_rate, warmup_ratio, max_grad_norm."""
    parameters = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=job["learning_rate"], weight_decay=job.get("weight_decay", 0.0), fused=fused)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(job["warmup_ratio"] * len(batches)), len(batches))
    peft.train()
    steps = []
    for window in batches:
        start = time.perf_counter()
        targets = sum(int((micro_batch["targets"] != -100).sum()) for micro_batch in window)
        total = 0.0
        for micro_batch in window:
            rows = as_rows(micro_batch)
            logits = peft(input_ids=rows["input_ids"], position_ids=rows["position_ids"], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows["targets"].flatten(), reduction="sum") / targets
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(parameters, job["max_grad_norm"]).item()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        steps.append((total, norm, time.perf_counter() - start))
    return steps
