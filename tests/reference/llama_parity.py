"""Llama against transformers + PEFT: logits, loss and the gradient of every LoRA matrix.

    llama_parity.py tiny     random models of every rope type, grouped queries, biases, untied and tied embeddings, fp32
    llama_parity.py real     SmolLM2-135M-Instruct, fp32; gradients also against an fp64 run
    llama_parity.py bf16     SmolLM2-135M-Instruct in bfloat16: our distance from an fp64 run over transformers' distance
    llama_parity.py 4bit     SmolLM2-135M-Instruct with NF4 base weights, fp32 compute, against bitsandbytes' dequantized ones

Ours sees documents packed end to end; the peer sees each document alone, so that this also proves that packing does not
mix documents. Errors are max |ours − theirs| / max |theirs| of each tensor; the limit in fp32 is 1e-5.

On the real model fp32 itself does not reach that for gradients: its logits are large, and their rounding alone moves the
softmax by more. There both sides are measured against an fp64 run, and ours must be no further from it than transformers
(times 1.1: at 1e-6 the rounding of either is a matter of luck; times 1.05 in bf16).
"""
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

LIMIT = 1e-5
PROBE = pathlib.Path(os.environ["FINETUNED_BUILD_DIR"]) / "tests" / "model_probe"
SOURCE = pathlib.Path(os.environ["FINETUNED_SOURCE_DIR"])
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def make_adapter(model, path, **options):
    """A LoRA adapter with B ≠ 0, so that every gradient is non-zero."""
    options = {"r": 8, "lora_alpha": 16, "target_modules": ALL_LINEAR, "task_type": "CAUSAL_LM", **options}
    peft = get_peft_model(model, LoraConfig(**options))
    torch.manual_seed(7)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    peft.save_pretrained(path)
    return peft.unload()


def make_batch(documents):
    """documents: lists of token ids. Every third token has no target, as prompts have none."""
    ids, positions, targets, boundaries = [], [], [], [0]
    for document in documents:
        ids += document
        positions += range(len(document))
        following = document[1:] + [-100]
        targets += [t if (i % 3 or t == -100) else -100 for i, t in enumerate(following)]
        boundaries.append(len(ids))
    return {
        "input_ids": torch.tensor(ids), "position_ids": torch.tensor(positions), "targets": torch.tensor(targets),
        "cu_seqlens": torch.tensor(boundaries),
    }


def run_peer(model, batch):
    """Documents one by one through transformers; the loss in the model's widest precision."""
    model.train()
    logits, loss = [], 0
    bounds = batch["cu_seqlens"].tolist()
    for begin, end in zip(bounds[:-1], bounds[1:]):
        out = model(input_ids=batch["input_ids"][None, begin:end], use_cache=False).logits[0]
        logits.append(out.detach())
        wide = out if out.dtype == torch.float64 else out.float()
        loss = loss + torch.nn.functional.cross_entropy(wide, batch["targets"][begin:end], reduction="sum")
    loss.backward()
    result = {"logits": torch.cat(logits), "loss_sum": loss.detach().reshape(1)}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            result["grad." + name.replace(".default", "")] = parameter.grad
    return result


def run_ours(directory, model_dir, adapter, batch, *flags):
    save_file(batch, f"{directory}/batch.safetensors")
    subprocess.run([PROBE, model_dir, f"{directory}/batch.safetensors", f"{directory}/out.safetensors", "--adapter",
                    adapter, *flags], check=True)
    return load_file(f"{directory}/out.safetensors")


def error(ours, theirs):
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()


def make_double(model):
    """fp64 throughout: transformers' RMSNorm would fall back to fp32."""
    def forward(norm, x):
        return norm.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.variance_epsilon))

    model.double()
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = forward.__get__(module)
    return model


def distance(run, exact, keys):
    """Relative 2-norm of the difference over all tensors named."""
    squares = sum((run[key].double() - exact[key].double()).square().sum() for key in keys)
    return (squares / sum(exact[key].double().square().sum() for key in keys)).sqrt().item()


def compare_with_exact(name, ours, theirs, exact, allowance):
    """Ours is no further from fp64 than theirs (times `allowance`) in logits, loss and gradients."""
    gradients = [key for key in exact if key.startswith("grad.")]
    for what, keys in {"logits": ["logits"], "gradients": gradients}.items():
        mine, peer = distance(ours, exact, keys), distance(theirs, exact, keys)
        print(f"{name} {what}: ours {mine:.2e} from fp64, transformers {peer:.2e}, ratio {mine / peer:.2f}; worst tensor "
              f"{max(error(ours[key], exact[key]) for key in keys):.1e} and "
              f"{max(error(theirs[key], exact[key]) for key in keys):.1e}", flush=True)
        assert mine <= allowance * peer, f"{name} {what}: further from fp64 than transformers"


def compare(name, ours, theirs, limit=LIMIT, with_gradients=True):
    assert theirs["logits"].abs().max() > 0 and torch.isfinite(theirs["loss_sum"]).all()
    gradients = [key for key in theirs if key.startswith("grad.")]
    assert gradients and all(theirs[key].abs().max() > 0 for key in gradients), "the peer has a zero gradient"
    missing = set(theirs) - set(ours)
    assert not missing, f"{name}: missing {sorted(missing)[:3]}"
    worst = max(gradients, key=lambda key: error(ours[key], theirs[key]))
    total = error(ours["token_losses"].double().sum().reshape(1), theirs["loss_sum"])
    figures = {"logits": error(ours["logits"], theirs["logits"]), "loss": error(ours["loss_sum"], theirs["loss_sum"]),
               "token losses": total, "worst gradient": error(ours[worst], theirs[worst])}
    print(f"{name:34s} " + "  ".join(f"{key} {value:.1e}" for key, value in figures.items()) +
          f"  ({len(gradients)} gradients, loss {theirs['loss_sum'].item():.4f})", flush=True)
    if not with_gradients:
        del figures["worst gradient"]
    assert all(value <= limit for value in figures.values()), f"{name}: over {limit}; worst gradient: {worst}"


TINY = dict(vocab_size=199, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.1, bos_token_id=1, eos_token_id=2)
LENGTHS = [1, 2, 59, 17, 130, 97]
CASES = {
    "Llama 2 (no grouping)": dict(num_key_value_heads=4, rms_norm_eps=1e-5),
    "grouped queries, untied": dict(),
    "one key/value head, tied": dict(num_key_value_heads=1, tie_word_embeddings=True),
    "attention and MLP bias": dict(attention_bias=True, mlp_bias=True),
    "head_dim 24 ≠ hidden/heads": dict(head_dim=24),
    "theta 500000, 151 tokens of vocabulary": dict(vocab_size=151, rope_parameters=dict(rope_type="default",
                                                                                      rope_theta=500000.0)),
    "rope linear": dict(rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=10000.0)),
    "rope llama3": dict(rope_parameters=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                                             high_freq_factor=4.0, original_max_position_embeddings=64,
                                             rope_theta=10000.0)),
    "rope yarn": dict(rope_parameters=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64,
                                           rope_theta=10000.0)),
    "rope yarn, own attention factor": dict(rope_parameters=dict(
        rope_type="yarn", factor=4.0, attention_factor=1.2, beta_fast=16, beta_slow=2,
        original_max_position_embeddings=64, rope_theta=10000.0)),
    "rope dynamic, within": dict(rope_parameters=dict(rope_type="dynamic", factor=2.0, rope_theta=10000.0)),
}


def run_tiny_case(name, changes, lengths, adapter_options=None, flags=()):
    torch.manual_seed(1)
    config = LlamaConfig(**{**TINY, **changes})
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() == 1:  # biases and norms away from 0 and 1
            torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)
    documents = [torch.randint(config.vocab_size, (n,)).tolist() for n in lengths]
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(f"{directory}/model", max_shard_size="100KB")  # sharded
        model = make_adapter(model, f"{directory}/adapter", **(adapter_options or {}))
        peft = PeftModel.from_pretrained(model, f"{directory}/adapter", is_trainable=True)
        batch = make_batch(documents)
        ours = run_ours(directory, f"{directory}/model", f"{directory}/adapter", batch, "--save-adapter",
                        f"{directory}/resaved", *flags)
        compare(name, ours, run_peer(peft, batch))
        return directory, ours


def check_resaved_adapter():
    """An adapter that ours wrote gives PEFT the same logits as the one it read."""
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**TINY))
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(f"{directory}/model")
        options = dict(rank_pattern={"k_proj": 4}, alpha_pattern={"layers.1.mlp.up_proj": 5}, use_rslora=True)
        model = make_adapter(model, f"{directory}/adapter", **options)
        batch = make_batch([torch.randint(199, (33,)).tolist()])
        run_ours(directory, f"{directory}/model", f"{directory}/adapter", batch, "--save-adapter", f"{directory}/resaved")
        logits = []
        for which in ("adapter", "resaved"):
            fresh = LlamaForCausalLM.from_pretrained(f"{directory}/model")
            peft = PeftModel.from_pretrained(fresh, f"{directory}/{which}").eval()
            with torch.no_grad():
                logits.append(peft(input_ids=batch["input_ids"][None]).logits)
        assert torch.equal(logits[0], logits[1]), "PEFT's logits differ between its adapter and ours"
        print("an adapter written by us loads in PEFT with bit-equal logits")


def tiny():
    for name, changes in CASES.items():
        run_tiny_case(name, changes, LENGTHS)
    run_tiny_case("rope dynamic, beyond", dict(max_position_embeddings=64, rope_parameters=dict(
        rope_type="dynamic", factor=2.0, rope_theta=10000.0)), [130])
    run_tiny_case("gradient checkpointing", dict(), LENGTHS, flags=["--checkpointing"])
    run_tiny_case("rank and alpha patterns, rsLoRA", dict(), LENGTHS, dict(
        rank_pattern={"q_proj": 4, "layers.2.mlp.down_proj": 2}, alpha_pattern={"v_proj": 3}, use_rslora=True,
        target_modules=["q_proj", "v_proj", "down_proj"]))
    check_resaved_adapter()


def demo_model(directory):
    path = f"{directory}/smollm2"
    subprocess.run([sys.executable, SOURCE / "docker" / "make_demo_model.py", "--out", path], check=True)
    return path


def real_documents(path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    texts = (["define the noun " + word for word in ("river", "tariff", "owl")] + [SOURCE.joinpath(name).read_text()
             for name in ("worker/nn/linear.h", "worker/nn/batch.h")])
    return [tokenizer(text).input_ids[:200] for text in texts]


def load_peer(path, adapter, dtype):
    model = LlamaForCausalLM.from_pretrained(path, dtype=dtype)
    return PeftModel.from_pretrained(model, adapter, is_trainable=True)


def run_exact(path, adapter, batch):
    return run_peer(make_double(load_peer(path, adapter, torch.float32)), batch)


def on_demo_model(body):
    with tempfile.TemporaryDirectory() as directory:
        path = demo_model(directory)
        make_adapter(LlamaForCausalLM.from_pretrained(path, dtype=torch.float32), f"{directory}/adapter", r=16,
                     lora_alpha=32)
        body(directory, path, f"{directory}/adapter", make_batch(real_documents(path)))


def real():
    def body(directory, path, adapter, batch):
        ours = run_ours(directory, path, adapter, batch)
        theirs = run_peer(load_peer(path, adapter, torch.float32), batch)
        compare("SmolLM2-135M-Instruct", ours, theirs, with_gradients=False)
        compare_with_exact("fp32", ours, theirs, run_exact(path, adapter, batch), allowance=1.1)

    on_demo_model(body)


def bf16():
    def body(directory, path, adapter, batch):
        ours = run_ours(directory, path, adapter, batch, "--dtype", "bfloat16")
        theirs = run_peer(load_peer(path, adapter, torch.bfloat16), batch)
        compare_with_exact("bf16", ours, theirs, run_exact(path, adapter, batch), allowance=1.05)

    on_demo_model(body)


def four_bit():
    import bitsandbytes.functional as bnb

    def body(directory, path, adapter, batch):
        for kind, nested in (("nf4", True), ("fp4", False)):
            def peer():
                """The same values that ours dequantizes to, in ordinary fp32 weights."""
                model = load_peer(path, adapter, torch.float32)
                stored = LlamaForCausalLM.from_pretrained(path, dtype=torch.bfloat16).state_dict()
                for name, module in model.named_modules():
                    if name.endswith("_proj.base_layer"):
                        key = name.removeprefix("base_model.model.").removesuffix(".base_layer") + ".weight"
                        packed, state = bnb.quantize_4bit(stored[key], quant_type=kind, compress_statistics=nested)
                        state.dtype = torch.float32
                        module.weight.data = bnb.dequantize_4bit(packed, state)
                return model

            flags = ["--4bit", kind] + ([] if nested else ["--single-quant"])
            name = f"{kind}{', double quantization' if nested else ''}"
            ours = run_ours(directory, path, adapter, batch, *flags)
            theirs = run_peer(peer(), batch)
            compare(f"SmolLM2 on {name}", ours, theirs, with_gradients=False)
            compare_with_exact(name, ours, theirs, run_peer(make_double(peer()), batch), allowance=1.1)

    on_demo_model(body)


if __name__ == "__main__":
    torch.manual_seed(0)
    {"tiny": tiny, "real": real, "bf16": bf16, "4bit": four_bit}[sys.argv[1]]()
    print("ok")
