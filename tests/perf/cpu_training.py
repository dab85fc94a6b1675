"""CPU training speed beside transformers + PEFT: SmolLM2-135M, fp32, 4 packed rows of 512 tokens an update, rank 16 on all
linears. The same model, data, first adapter, batches and number of threads; ours as a job of the real service, the peer as a plain PyTorch
loop right after it.

    cpu_training.py [--steps 12] [--model DIR] [--data FILE.jsonl] [--rounds 1]

Prints tokens a second (padding not counted), loss and gradient norm of every step on both sides, and the ratio of the medians.
Ours is what metrics.jsonl says, the first step left out on both sides.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import torch

sys.path.insert(0, str(pathlib.Path(os.environ["FINETUNED_SOURCE_DIR"]) / "tests/reference"))
from peer_run import SOURCE, load_peer, run_job, train_peer  # noqa: E402

JOB = {"learning_rate": 1e-3, "warmup_ratio": 0.03, "max_grad_norm": 1.0, "max_seq_length": 512, "per_device_train_batch_size": 4,
       "gradient_accumulation_steps": 1, "bf16": False}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))  # as the worker: each processor it may use
    torch.set_num_threads(threads)
    home = pathlib.Path(tempfile.mkdtemp(prefix="finetuned-cpu-training-"))
    model, data = options.model, options.data
    if model is None:
        model = home / "made/smollm2-135m"
        subprocess.run([sys.executable, SOURCE / "docker/make_demo_model.py", "--out", model], check=True)
    if data is None:
        subprocess.run([sys.executable, SOURCE / "docker/make_demo_data.py", "--out", home / "made/wordnet"], check=True)
        data = home / "made/wordnet/train.jsonl"

    job = JOB | {"max_steps": options.steps}
    rates = {"finetuned": [], "transformers + PEFT": []}
    for number in range(options.rounds):
        directory = home / f"round-{number}"
        (directory / "datasets").mkdir(parents=True)
        shutil.copytree(model, directory / "models/smollm2-135m")
        shutil.copy(data, directory / "datasets/train.jsonl")
        metrics, batches, adapter = run_job(directory, "smollm2-135m", job)
        peer = train_peer(load_peer(model, adapter), batches, job, fused=True)
        print(f"{'step':>4} {'tokens':>6} {'finetuned: tok/s':>16} {'loss':>9} {'norm':>9}   {'transformers: tok/s':>19} {'loss':>9} {'norm':>9}")
        for step, (ours, window, (loss, norm, seconds)) in enumerate(zip(metrics, batches, peer, strict=True)):
            tokens = sum(micro_batch["input_ids"].numel() for micro_batch in window)
            speeds = tokens / ours["step_seconds"], tokens / seconds
            print(f"{step + 1:4d} {tokens:6d} {speeds[0]:16.1f} {ours['loss']:9.5f} {ours['grad_norm']:9.5f}   {speeds[1]:19.1f} {loss:9.5f} "
                  f"{norm:9.5f}", flush=True)
            if step > 0:
                for side, speed in zip(rates, speeds):
                    rates[side].append(speed)
            assert abs(ours["loss"] - loss) <= 1e-3 * loss, "the two sides do not compute the same"
    medians = {side: statistics.median(speeds) for side, speeds in rates.items()}
    for side, median in medians.items():
        print(f"{side:20s} {median:7.1f} tok/s (median of {len(rates[side])} steps, {min(rates[side]):.1f} to {max(rates[side]):.1f})")
    print(f"ratio {medians['finetuned'] / medians['transformers + PEFT']:.2f} with {threads} threads, fp32, 4 x 512 packed")
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
