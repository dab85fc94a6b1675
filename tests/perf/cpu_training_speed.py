"""CPU training speed beside transformers + PEFT: forward and backward of SmolLM2-135M, fp32, rank 16 on all linears, 4 rows
of 512 packed tokens, the same model, adapter and tokens on both sides, alternating in one run.

    cpu_training_speed.py [--model DIR] [--passes 3] [--document 54]

The peer gets the rows as transformers trains packed data: position_ids that restart, from which it builds a block-diagonal
mask. Prints tokens per second, loss and gradient norm of each side, and the ratio of the medians.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS, LENGTH = 4, 512


def make_rows(vocabulary, mean):
    """Documents of 0.5 to 1.5 times `mean` tokens that fill every row."""
    generator = torch.Generator().manual_seed(5)
    positions, boundaries = [], [0]
    for _ in range(ROWS):
        left = LENGTH
        while left:
            length = min(left, int(torch.randint(max(1, mean // 2), mean * 3 // 2 + 1, (1,), generator=generator)))
            positions.append(torch.arange(length))
            boundaries.append(boundaries[-1] + length)
            left -= length
    ids = torch.randint(vocabulary, (ROWS * LENGTH,), generator=generator)
    targets = torch.roll(ids, -1)
    targets[torch.tensor(boundaries[1:]) - 1] = -100
    return {"input_ids": ids, "position_ids": torch.cat(positions), "targets": targets,
            "cu_seqlens": torch.tensor(boundaries)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--document", type=int, default=54)
    args = parser.parse_args()
    probe = pathlib.Path(os.environ["FINETUNED_BUILD_DIR"]) / "tests" / "model_probe"
    with tempfile.TemporaryDirectory() as directory:
        path = args.model or f"{directory}/model"
        if not args.model:
            subprocess.run([sys.executable, ROOT / "docker" / "make_demo_model.py", "--out", path], check=True)
        model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32)
        peft = get_peft_model(model, LoraConfig(
            r=16, lora_alpha=32, task_type="CAUSAL_LM",
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
        torch.manual_seed(7)
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        peft.save_pretrained(f"{directory}/adapter")
        batch = make_rows(model.config.vocab_size, args.document)
        save_file(batch, f"{directory}/batch.safetensors")

        def ours():
            output = subprocess.run([probe, path, f"{directory}/batch.safetensors", "-", "--adapter",
                                     f"{directory}/adapter", "--bench", str(args.passes)], check=True,
                                    capture_output=True, text=True).stdout
            lines = [line.split() for line in output.splitlines()]
            return [float(line[0]) for line in lines], float(lines[0][3]), float(lines[0][5])

        def theirs():
            peft.train()
            rates = []
            for pass_index in range(args.passes + 1):
                start = time.perf_counter()
                logits = peft(input_ids=batch["input_ids"].view(ROWS, LENGTH),
                              position_ids=batch["position_ids"].view(ROWS, LENGTH), use_cache=False).logits
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["targets"])
                loss.backward()
                gradients = [p.grad for p in peft.parameters() if p.grad is not None]
                norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt().item()
                peft.zero_grad(set_to_none=True)
                if pass_index:
                    rates.append(ROWS * LENGTH / (time.perf_counter() - start))
            return rates, loss.item(), norm

        results = {"finetuned": ([], 0, 0), "transformers + PEFT": ([], 0, 0)}
        for _ in range(2):
            for name, run in zip(results, (ours, theirs)):
                rates, loss, norm = run()
                results[name] = (results[name][0] + rates, loss, norm)
        for name, (rates, loss, norm) in results.items():
            print(f"{name:20s} {statistics.median(rates):6.1f} tok/s (of {', '.join(f'{r:.0f}' for r in rates)})  "
                  f"loss {loss:.5f}  gradient norm {norm:.5f}")
        ratio = [statistics.median(rates) for rates, _, _ in results.values()]
        print(f"ratio {ratio[0] / ratio[1]:.2f} with {torch.get_num_threads()} threads, "
              f"{len(batch['cu_seqlens']) - 1} documents in {ROWS * LENGTH} tokens")


if __name__ == "__main__":
    main()
