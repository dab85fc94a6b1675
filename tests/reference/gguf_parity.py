"""GGUF files of ours read by gguf-py: every key and tensor against the model directory, quantized blocks against its own.

    python tests/reference/gguf_parity.py [--seed N]

For each model of gguf_models.py and each type: the keys' values from config.json and the tokenizer, the set of tensors, their
types, and their bytes — equal to what gguf.quants makes of the source with llama.cpp's order of the rotary rows. Besides, numbers
chosen to be hard to round.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFReader, quants
from safetensors.torch import load_file
from tokenizers import Tokenizer

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gguf_models  # noqa: E402

QUANT = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16, "bf16": GGMLQuantizationType.BF16,
         "q8_0": GGMLQuantizationType.Q8_0}  # fmt: skip
FILE_TYPE = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7}  # llama.h
PRE = {"smollm2": "smollm", "llama3": "llama-bpe", "llama2": "default", "linear": "qwen2", "yarn": "gpt-2"}
LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}  # fmt: skip


def encode(type_name, values):
    """Bytes as gguf-py stores them; None where it cannot."""
    if type_name == "f16":
        return values.astype(np.float16).view(np.uint8)
    return np.ascontiguousarray(quants.quantize(values, QUANT[type_name])).view(np.uint8)


def expected_tensors(path, config):
    """GGUF name → fp32 array, and the type's name for those that are always the same."""
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    tensors = {}
    for name, tensor in load_file(f"{path}/model.safetensors").items():
        array = tensor.float().numpy()
        parts = name.split(".")
        if parts[1] == "layers":
            inner = ".".join(parts[3:-1])
            new = f"blk.{parts[2]}.{LAYER[inner]}.{parts[-1]}"
            if inner in ("self_attn.q_proj", "self_attn.k_proj"):
                n = heads if "q_proj" in inner else kv
                array = array.reshape(n, 2, head_dim // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        else:
            new = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                   "lm_head.weight": "output.weight"}[name]  # fmt: skip
        tensors[new] = array
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type") == "llama3":
        from transformers import LlamaConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig.from_pretrained(path), "cpu")
        plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)
        tensors["rope_freqs.weight"] = (plain / scaled).numpy()
    return tensors


def expected_numbers(config):
    rope = config.get("rope_parameters") or {}
    heads = config["num_attention_heads"]
    numbers = {
        "block_count": config["num_hidden_layers"], "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"], "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads, "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": np.float32(config["rms_norm_eps"]), "vocab_size": config["vocab_size"],
        "rope.dimension_count": config.get("head_dim") or config["hidden_size"] // heads,
        "rope.freq_base": np.float32(rope.get("rope_theta") or config.get("rope_theta")),
    }  # fmt: skip
    if config.get("head_dim"):
        numbers.update({"attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"]})
    if rope.get("rope_type") in ("linear", "yarn"):
        numbers.update({"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]})
    if rope.get("rope_type") == "yarn":
        numbers["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        numbers["rope.scaling.attn_factor"] = np.float32(rope["attention_factor"] / (1 + 0.1 * math.log(rope["factor"])))
    return {f"llama.{key}": value for key, value in numbers.items()}


def expected_tokenizer(name, path, config):
    tokenizer = Tokenizer.from_file(f"{path}/tokenizer.json")
    described = json.loads(tokenizer.to_str())
    added = {t["id"]: t for t in described["added_tokens"]}
    vocab = {i: t for t, i in tokenizer.get_vocab(with_added_tokens=True).items()}
    sentencepiece = described["model"]["byte_fallback"]
    tokens = [vocab.get(i, f"[PAD{i}]") for i in range(config["vocab_size"])]

    def kind(i):
        if i not in vocab:
            return 5
        if sentencepiece and vocab[i] == described["model"]["unk_token"]:
            return 2
        if i in added:
            return 3 if added[i]["special"] or vocab[i].startswith("<|") else 4
        return 6 if sentencepiece and len(vocab[i]) == 6 and vocab[i].startswith("<0x") else 1

    with open(f"{path}/tokenizer_config.json") as file:
        special = json.load(file)
    keys = {"tokenizer.ggml.model": "llama" if sentencepiece else "gpt2", "tokenizer.ggml.pre": PRE[name],
            "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [kind(i) for i in range(len(tokens))],
            "tokenizer.chat_template": special["chat_template"]}  # fmt: skip
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if special.get(f"{role}_token"):
            keys[f"tokenizer.ggml.{key}_token_id"] = tokenizer.token_to_id(special[f"{role}_token"])
    plain, around = (tokenizer.encode("x", add_special_tokens=flag).ids for flag in (False, True))
    keys["tokenizer.ggml.add_bos_token"] = around[0] != plain[0]
    keys["tokenizer.ggml.add_eos_token"] = around[-1] != plain[-1]
    if sentencepiece:
        keys["tokenizer.ggml.add_space_prefix"] = True
    else:
        keys["tokenizer.ggml.merges"] = [" ".join(m) if isinstance(m, list) else m for m in described["model"]["merges"]]
    return keys


def compare_keys(reader, expected, own):
    found = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    scores = found.pop("tokenizer.ggml.scores", None)  # checked by llama.cpp's tokenization
    for key, value in expected.items():
        assert key in found, f"{key} is missing"
        assert found[key] == value, f"{key}: {str(found[key])[:200]}, expected {str(value)[:200]}"
    unexpected = set(found) - set(expected) - own
    assert not unexpected, f"keys {unexpected}"
    return len(found) + (scores is not None)


def compare(name, path, directory, type_name):
    with open(f"{path}/config.json") as file:
        config = json.load(file)
    out = f"{directory}/{name}-{type_name}.gguf"
    provenance = {"name": f"test {name}", "license": "apache-2.0", "base_model": {"name": "base", "repo_url": "https://example.org/b"},
                  "dataset_sha256": "ab" * 32, "spec": {"r": 16}, "steps": 30}  # fmt: skip
    report = gguf_models.export(path, out, type_name, provenance)
    assert os.listdir(directory).count(os.path.basename(out)) == 1
    reader = GGUFReader(out)
    keys = {
        "general.architecture": "llama", "general.type": "model", "general.name": f"test {name}", "general.license": "apache-2.0",
        "general.base_model.count": 1, "general.base_model.0.name": "base", "general.base_model.0.repo_url": "https://example.org/b",
        "finetuned.dataset_sha256": "ab" * 32, "finetuned.spec": '{"r":16}', "finetuned.steps": 30,
        "general.file_type": FILE_TYPE[type_name], "general.quantization_version": 2,
    }  # fmt: skip
    keys.update(expected_numbers(config))
    keys.update(expected_tokenizer(name, path, config))
    count = compare_keys(reader, keys, {"general.size_label"})

    expected = expected_tensors(path, config)
    assert {t.name for t in reader.tensors} == set(expected), {t.name for t in reader.tensors} ^ set(expected)
    fallback, worst = 0, 0.0
    for tensor in reader.tensors:
        source = expected[tensor.name]
        kind = "f32" if source.ndim == 1 else type_name
        if kind == "q8_0" and source.shape[-1] % 32:
            kind, fallback = "f16", fallback + 1
        assert tensor.tensor_type == QUANT[kind], f"{tensor.name}: {tensor.tensor_type.name}, expected {kind}"
        assert list(reversed(tensor.shape.tolist())) == list(source.shape), tensor.name
        if tensor.name == "rope_freqs.weight":
            np.testing.assert_allclose(tensor.data, source, rtol=3e-7)
            continue
        stored = np.ascontiguousarray(tensor.data).view(np.uint8)
        assert np.array_equal(stored.ravel(), encode(kind, source).ravel()), f"{tensor.name}: other bytes than gguf.quants"
        dequantized = quants.dequantize(tensor.data, tensor.tensor_type).reshape(source.shape)
        worst = max(worst, float(np.abs(dequantized - source).max() / np.abs(source).max()))
    assert bool(fallback) == any("F16" in note for note in report["notes"]), report["notes"]
    print(f"{name} {type_name}: {count} keys, {len(reader.tensors)} tensors equal gguf-py's ({fallback} F16 where Q8_0 does not fit), "
          f"{report['bytes']} bytes, largest rounding {worst:.1e} (ours says {report['max_relative_error']:.1e})", flush=True)  # fmt: skip
    assert abs(worst - report["max_relative_error"]) <= 1e-6
    os.unlink(out)


def hard_numbers(rng):
    """Rows of 32: random floats of all magnitudes, ties, subnormals, zeros."""
    bits = rng.integers(0, 2**32, 32 * 40000, dtype=np.uint32).view(np.float32)
    bits = np.where(np.isfinite(bits) & (np.abs(bits) < 60000), bits, np.float32(0))
    normal = (rng.standard_normal(32 * 40000) * 10.0 ** rng.integers(-12, 3, 32 * 40000)).astype(np.float32)
    same = np.repeat((10.0 ** rng.uniform(-9, 3, 20000)), 32).astype(np.float32) * rng.standard_normal(32 * 20000).astype(np.float32)
    ties = (rng.integers(-254, 255, 32 * 20000) / 2).astype(np.float32).reshape(-1, 32)
    ties[:, 0] = 127
    halves = (np.arange(0, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32))
    between = np.concatenate([halves[:-1] / 2 + halves[1:] / 2, halves, -halves])
    between = np.resize(between, (len(between) // 32 + 1) * 32)
    return np.concatenate([bits, normal, same, ties.ravel(), between, np.zeros(64, np.float32)])


def compare_encodings(seed):
    values = hard_numbers(np.random.default_rng(seed))
    for type_name in gguf_models.TYPES:
        done = subprocess.run([gguf_models.PROBE, "--encode", type_name], input=values.tobytes(), capture_output=True, check=True)
        ours = np.frombuffer(done.stdout, dtype=np.uint8)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            theirs = encode(type_name, values.reshape(-1, 32)).ravel()
            if type_name == "q8_0":
                # 1/d overflows in blocks of the very smallest numbers; ggml's result is then undefined, the scale is zero.
                largest = np.abs(values.reshape(-1, 32)).max(axis=1) / np.float32(127)
                defined = (largest == 0) | np.isfinite(np.float32(1) / largest)
                ours, theirs = ours.reshape(-1, 34)[defined], theirs.reshape(-1, 34)[defined]
        differing = int((ours != theirs).sum())
        print(f"{type_name}: {len(values)} numbers, {differing} bytes differ from gguf.quants", flush=True)
        assert ours.shape == theirs.shape and differing == 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    seed = parser.parse_args().seed
    print(f"seed {seed}")
    compare_encodings(seed)
    with tempfile.TemporaryDirectory() as directory:
        for name, path in gguf_models.all_models(directory, seed).items():
            for type_name in gguf_models.TYPES:
                compare(name, path, directory, type_name)


main()
