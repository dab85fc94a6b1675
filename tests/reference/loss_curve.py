"""20 steps of a job, run by the service, against a plain PyTorch loop around transformers + PEFT in fp32 on the same batches,
from the same first adapter: loss and gradient norm of every step.

    loss_curve.py [--model DIR] [--data FILE.jsonl] [--steps 20]

Without --model: a small random Llama. 2 rows by 2 micro-batches an update over three epochs, so that partial last windows are
among them.

What to expect: one forward and backward pass of both agrees to about 1e-6 (llama_parity.py). AdamW then divides each gradient
by its own magnitude, so an element that is all rounding moves by a full learning rate in a random direction, and two runs in
fp32 drift apart however right both are. The measure is therefore a third run of the peer in fp64: ours may be further from it
than the peer in fp32 by a factor of 4 at most (or 1e-6), and never by more than LIMIT.
"""
import argparse
import json
import pathlib
import random
import shutil
import tempfile

import torch

from llama_parity import make_double
from peer_run import load_peer, run_job, train_peer
from service import make_model

LIMIT = 1e-5
JOB = {"learning_rate": 2e-3, "warmup_ratio": 0.1, "max_grad_norm": 1.0, "max_seq_length": 128, "per_device_train_batch_size": 2,
       "gradient_accumulation_steps": 2, "seed": 11}


def make_data(path):
    chance = random.Random(5)
    with open(path, "w") as file:
        for i in range(90):
            a, b = chance.randrange(100), chance.randrange(100)
            file.write(json.dumps({"instruction": f"{i}: what is {a} plus {b}?", "response": f"{a} plus {b} is {a + b}."}) + "\n")


def relative(ours, theirs):
    return abs(ours - theirs) / abs(theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="finetuned-loss-curve-"))
    (directory / "datasets").mkdir()
    (directory / "models").mkdir()
    model = directory / "models/model"
    if options.model:
        shutil.copytree(options.model, model)
    else:
        make_model(model)
    if options.data:
        shutil.copy(options.data, directory / "datasets/train.jsonl")
    else:
        make_data(directory / "datasets/train.jsonl")

    job = JOB | {"max_steps": options.steps}
    metrics, batches, adapter = run_job(directory, "model", job)
    assert [m["step"] for m in metrics] == [str(i + 1) for i in range(options.steps)]
    assert len(batches) == options.steps
    single = train_peer(load_peer(model, adapter), batches, job, fused=False)
    double = train_peer(make_double(load_peer(model, adapter)), batches, job, fused=False)

    print(f"{'step':>4} {'micro':>5} {'tokens':>6}  {'loss':>10} {'transformers':>12} {'relative':>8}  {'norm':>10} {'transformers':>12} "
          f"{'relative':>8}   from fp64: loss ours, theirs; norm ours, theirs")
    worst = dict.fromkeys(("loss", "norm", "loss ours from fp64", "norm ours from fp64", "loss theirs from fp64",
                           "norm theirs from fp64"), 0.0)
    for step, (ours, window) in enumerate(zip(metrics, batches)):
        line = f"{step + 1:4d} {len(window):5d} {sum(m['input_ids'].numel() for m in window):6d}"
        distances = []
        for index, (name, key) in enumerate((("loss", "loss"), ("norm", "grad_norm"))):
            mine, peer, exact = ours[key], single[step][index], double[step][index]
            found = {name: relative(mine, peer), f"{name} ours from fp64": relative(mine, exact),
                     f"{name} theirs from fp64": relative(peer, exact)}
            worst |= {what: max(worst[what], error) for what, error in found.items()}
            line += f"  {mine:10.6f} {peer:12.6f} {found[name]:8.1e}"
            distances.append(f"{relative(mine, exact):.1e}, {relative(peer, exact):.1e}")
        print(line + "   " + "; ".join(distances), flush=True)
    print("worst relative difference: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()))
    if not options.data:
        assert any(len(window) == 1 for window in batches), "no partial window was among them"
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.3, "nothing was learnt"
    for name in ("loss", "norm"):
        assert worst[name] <= LIMIT, f"{name} differs by more than {LIMIT}"
        assert worst[f"{name} ours from fp64"] <= max(4 * worst[f"{name} theirs from fp64"], 1e-6), f"{name}: further from fp64"
    shutil.rmtree(directory)
    print("ok")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
