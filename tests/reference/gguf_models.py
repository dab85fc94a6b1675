"""Model directories for the GGUF tests: SmolLM2-135M-Instruct, and tiny random ones that have what it lacks — Llama 3's rope
scaling and tokenizer, yarn, linear scaling, biases, an untied head, a vocabulary smaller than the embedding, SentencePiece."""

import io
import json
import os
import pathlib
import random
import subprocess
import sys

import sentencepiece
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

import multilingual_text
import tokenizer_files

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
SOURCE = pathlib.Path(os.environ["FINETUNED_SOURCE_DIR"])
PROBE = pathlib.Path(os.environ["FINETUNED_BUILD_DIR"]) / "tests" / "gguf_probe"
TYPES = ("f32", "f16", "bf16", "q8_0")
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)


def sample_texts(rng, bytes_per_script=20000, random_count=150):
    """Text in every script of multilingual_text, messages of installed programs and English documents, each a few lines."""
    texts = multilingual_text.catalogue_texts(1500)
    for script in multilingual_text.SCRIPTS:
        texts += multilingual_text.invented_texts(rng, script, bytes_per_script)
    for name in ("README.md", "CONTRIBUTING.md", "worker/README.md", "worker/text/bpe.cc"):
        texts.append(SOURCE.joinpath(name).read_text())
    texts += multilingual_text.random_unicode(rng, random_count)
    return texts


def sentencepiece_json(texts, vocab_size=6000):
    """A BPE of SentencePiece with byte fallback as the tokenizer.json that converted Llama 2 models have."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in texts for line in text.split("\n") if line.strip()), model_writer=trained,
        model_type="bpe", vocab_size=vocab_size, byte_fallback=True, character_coverage=0.98, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        hard_vocab_limit=False, minloglevel=2)  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    normal = {p: i for i, p in enumerate(pieces) if not (model.is_control(i) or model.is_unknown(i) or model.is_byte(i))}
    merges = []
    for piece in sorted(normal, key=lambda p: -model.get_score(normal[p])):
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in normal and piece[i:] in normal]
        merges += sorted(splits, key=lambda s: (normal[s[0]], normal[s[1]]))
    special = [dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
               for i, t in enumerate(("<unk>", "<s>", "</s>"))]  # fmt: skip
    extra = dict(special[0], id=len(pieces), content="<tool>", special=False)
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return model, {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special + [extra],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
                  "vocab": {p: i for i, p in enumerate(pieces)}, "merges": [" ".join(m) for m in merges]},
    }  # fmt: skip


def tiny_model(path, tokenizer, special, dtype=torch.bfloat16, **changes):
    """A random Llama in a directory with `tokenizer` (a tokenizer.json as text)."""
    rows = 1 + max(list(json.loads(tokenizer)["model"]["vocab"].values()) + [t["id"] for t in json.loads(tokenizer)["added_tokens"]])
    config = dict(vocab_size=rows + 7, hidden_size=128, intermediate_size=192, num_hidden_layers=3, num_attention_heads=8,
                  num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-5, tie_word_embeddings=False,
                  bos_token_id=None, eos_token_id=None)
    torch.manual_seed(11)
    model = LlamaForCausalLM(LlamaConfig(**{**config, **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Weights large enough that every part shows in the logits; norms away from one.
            if parameter.dim() == 1:
                parameter.copy_(torch.randn_like(parameter) * 0.2 + (0 if name.endswith("bias") else 1))
            else:
                parameter.copy_(torch.randn_like(parameter) * 1.5 / parameter.shape[1] ** 0.5)
    model.to(dtype).save_pretrained(path)
    pathlib.Path(path, "tokenizer.json").write_text(tokenizer)
    pathlib.Path(path, "tokenizer_config.json").write_text(json.dumps({**special, "chat_template": "{{ messages[0]['content'] }}"}))
    return path


def demo_model(directory):
    path = f"{directory}/smollm2"
    subprocess.run([sys.executable, SOURCE / "docker/make_demo_model.py", "--out", path], check=True, stdout=subprocess.DEVNULL)
    return path


def all_models(directory, seed):
    """name → directory. `seed` draws the texts that the tokenizers are trained on."""
    rng = random.Random(seed)
    texts = sample_texts(rng, bytes_per_script=4000, random_count=0)
    llama3 = tokenizer_files.llama3(texts).to_str()
    llama3_special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    qwen2 = json.loads(tokenizer_files.qwen2(texts).to_str())
    qwen2["normalizer"] = None  # llama.cpp knows none
    _, spm = sentencepiece_json(texts)
    spm_special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return {
        "smollm2": demo_model(directory),
        "llama3": tiny_model(f"{directory}/llama3", llama3, llama3_special, rope_parameters=LLAMA3, head_dim=32),
        "llama2": tiny_model(f"{directory}/llama2", json.dumps(spm), spm_special, torch.float16, attention_bias=True,
                             mlp_bias=True, intermediate_size=200),
        "linear": tiny_model(f"{directory}/linear", json.dumps(qwen2), {"eos_token": "<|im_end|>"}, torch.float32,
                             tie_word_embeddings=True, rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
        "yarn": tiny_model(f"{directory}/yarn", tokenizer_files.gpt2(texts).to_str(), {"eos_token": "<|endoftext|>"},
                           rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, attention_factor=1.3,
                                                original_max_position_embeddings=128)),
    }  # fmt: skip


def export(model_dir, path, type_name, provenance=None, check=True):
    """Runs our exporter; its JSON, or with check=False the finished process."""
    command = [PROBE, model_dir, path, type_name] + ([json.dumps(provenance)] if provenance is not None else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if not check:
        return done
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
