"""NF4 and FP4 against bitsandbytes: packed bytes, block scales, nested scales, offset and dequantized values, all equal.

Inputs: odd and even sizes in fp32, bf16 and fp16, values of very different magnitude, blocks of zeros, exact ties between
code values. With --cuda both sides run on the GPU; blocks of zeros are left out there, because bitsandbytes' kernel computes
0 · 1/0 and codes them as the lowest value, which ours does not copy.
"""
import os

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes compiles its fallback for odd shapes: minutes, for the same values
import pathlib
import subprocess
import sys
import tempfile

import bitsandbytes.functional as bnb
import torch
from safetensors.torch import load_file, save_file

PROBE = pathlib.Path(os.environ["FINETUNED_BUILD_DIR"]) / "tests" / "quantize_probe"
DEVICE = "cuda" if "--cuda" in sys.argv else "cpu"
SIZES = [1, 2, 59, 64, 97, 128, 1025, 4096, 64 * 256 + 64, 65537]


def make_inputs():
    torch.manual_seed(3)
    inputs = {f"normal_{n}": torch.randn(n) for n in SIZES}
    inputs["matrix"] = torch.randn(192, 576) * 0.05
    inputs["odd_columns"] = torch.randn(64, 59)
    inputs["magnitudes"] = torch.randn(8192) * torch.logspace(-20, 4, 128).repeat_interleave(64)
    zeros = torch.randn(1024)
    zeros[128:320] = 0
    inputs["zero_blocks"] = zeros
    for kind in ("nf4", "fp4"):  # values halfway between codes, in blocks of absmax 1
        code = bnb.get_4bit_type(kind, device="cpu").sort().values
        ties = torch.cat([(code[1:] + code[:-1]) / 2, torch.ones(49)])
        inputs[f"ties_{kind}"] = ties.repeat(4)
    return {f"{name}.{dtype}": value.to(getattr(torch, dtype))
            for name, value in inputs.items() for dtype in ("float32", "bfloat16", "float16")}


def has_zero_block(value):
    return any(not block.any() for block in value.flatten().split(64))


def expected(weight):
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            packed, state = bnb.quantize_4bit(weight.to(DEVICE), quant_type=kind, compress_statistics=nested)
            prefix = f"{kind}.{'double' if nested else 'single'}."
            yield prefix + "packed", packed.flatten()
            yield prefix + "absmax", state.absmax
            if nested:
                yield prefix + "nested_absmax", state.state2.absmax
                yield prefix + "offset", state.offset.reshape(1)
            for dtype in ("float32", "bfloat16", "float16"):
                state.dtype = getattr(torch, dtype)
                yield prefix + "dequantized_" + dtype, bnb.dequantize_4bit(packed, state)


def main():
    if DEVICE == "cuda" and not torch.cuda.is_available():
        print("skipped: no GPU on this machine")
        sys.exit(77)
    inputs = make_inputs()
    if DEVICE == "cuda":
        with_zero_blocks = [name for name, value in inputs.items() if has_zero_block(value)]
        print("left out, they hold blocks of zeros:", ", ".join(with_zero_blocks))
        inputs = {name: value for name, value in inputs.items() if name not in with_zero_blocks}
    with tempfile.TemporaryDirectory() as directory:
        save_file(inputs, f"{directory}/in.safetensors")
        subprocess.run([PROBE, f"{directory}/in.safetensors", f"{directory}/out.safetensors", DEVICE], check=True)
        ours = load_file(f"{directory}/out.safetensors")
    compared, differences = 0, []
    for name, weight in inputs.items():
        for key, value in expected(weight):
            mine, value = ours[f"{name}.{key}"], value.cpu()
            if mine.shape != value.shape:
                mine = mine.reshape(value.shape)
            compared += value.numel()
            # Equal bits, except that the sign of zero and NaN payloads do not matter.
            wrong = (mine != value) & ~(mine.isnan() & value.isnan())
            if wrong.any():
                at = wrong.flatten().nonzero()[0].item()
                differences.append(f"{name}.{key}: {wrong.sum()} of {value.numel()} differ, first at {at}: "
                                   f"{mine.flatten()[at].item()} for {value.flatten()[at].item()}")
    print("\n".join(sorted(differences, key=lambda line: ".fp4." in line)[:40]))
    print(f"{compared} values of {len(inputs)} tensors compared on {DEVICE}, {len(differences)} results differ")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
