"""GGUF files of ours in llama.cpp: token ids against `tokenizers`, logits, greedy text and perplexity against transformers.

    python tests/reference/gguf_llama_cpp.py [--seed N] [--models NAME ...]

Models: those of gguf_models.py. Texts of the tokenization: message catalogues, invented words of 25 scripts, random Unicode,
and the repository's own files. Everything is compared with the directory the file was made from, its weights as fp32.

    token ids     equal, with and without special tokens. Code points that Python's Unicode tables do not know are left out:
                  llama.cpp takes the letters and digits of Unicode 16 for punctuation. So is 'ſ, an apostrophe with the
                  long s: (?i:'s) matches it, llama.cpp's '[sS] does not
    logits        F32: max |llama.cpp − transformers| / max |transformers| ≤ 1e-4
    greedy text   F32 and F16: 32 tokens equal for every prompt. llama.cpp rounds activations to fp16 too where the weights
                  are, which tips the near ties of a random model: there F16 may leave transformers' text where the margin is
                  within the error of the logits, and is compared up to that
    perplexity    F32, F16, BF16 and Q8_0 within 1 % of transformers'; of a random model within 3 %

Ends with 77 and the reason where llama_cpp is not installed: it is no part of the usual set-up, for it builds for minutes.
    pip install --no-deps llama-cpp-python==0.3.36 diskcache
"""

import argparse
import importlib.util
import math
import os
import random
import sys
import tempfile
import unicodedata

if importlib.util.find_spec("llama_cpp") is None:
    print("skipped: llama_cpp is not installed (docker/install-deps.sh --slow; it builds 7 minutes)")
    sys.exit(77)

import llama_cpp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import LlamaForCausalLM  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gguf_models  # noqa: E402

QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(QUIET, None)
PROMPTS = ["The capital of France is", "def fibonacci(n):", "Once upon a time, in a small village", "Das Wetter ist heute",
           "<|im_start|>user\nWhat is a river?<|im_end|>\n<|im_start|>assistant\n", "1, 2, 3, 4,"]  # fmt: skip


def load(path, **options):
    # fp32 keys and values, no flash attention: only the weights' type is to differ.
    return llama_cpp.Llama(path, n_ctx=1024, n_batch=1024, n_ubatch=1024, n_threads=2, type_k=0, type_v=0, flash_attn=False,
                           verbose=False, **options)  # fmt: skip


def compare_tokens(name, path, gguf, texts):
    """Number of texts whose token ids differ."""
    tokenizer = Tokenizer.from_file(f"{path}/tokenizer.json")
    model = load(gguf, vocab_only=True)
    total, differing, shown = 0, 0, []
    for special in (False, True):
        for text in texts:
            theirs = tokenizer.encode(text, add_special_tokens=special).ids
            ours = model.tokenize(text.encode(), add_bos=special, special=True)
            total += len(theirs)
            if ours != theirs:
                differing += 1
                if len(shown) < 5:
                    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
                    shown.append((tokenizer.decode(theirs[max(0, at - 3) : at + 3]), ours[at : at + 4], theirs[at : at + 4]))
    print(f"{name}: {total} token ids of {2 * len(texts)} texts, {differing} texts differ between llama.cpp and tokenizers", flush=True)
    for case in shown:
        print(f"    {case}")
    return differing


def llama_logits(model, ids):
    model.reset()
    model.eval(ids)
    return np.array(model.scores[: len(ids)], dtype=np.float64)


def greedy(model, ids, count):
    out = list(ids)
    model.reset()
    model.eval(ids)
    for _ in range(count):
        out.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(out[-1:])
    return out[len(ids) :]


def leaves_at_a_tie(ours, theirs, wanted, error):
    """Whether the first token that differs is one that transformers itself prefers by no more than `error` of its logits."""
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)
    if at is None:
        return True
    logits = wanted[at]
    return logits[theirs[at]] - logits[ours[at]] <= 2 * error * np.abs(logits).max()


def perplexity(logits, ids):
    logits = torch.from_numpy(logits[:-1])
    return math.exp(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).item())


def compare_numbers(name, path, directory, long_text):
    peer = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(f"{path}/tokenizer.json")
    window = min(peer.config.max_position_embeddings, 700)
    ids = tokenizer.encode(long_text).ids[:window]
    prompts = [tokenizer.encode(p).ids for p in PROMPTS] + [ids[:60], ids[:200]]
    with torch.no_grad():
        wanted = peer(torch.tensor([ids])).logits[0].double().numpy()
        texts = [peer.generate(torch.tensor([p]), max_new_tokens=32, do_sample=False, pad_token_id=0, eos_token_id=None)[0, len(p) :].tolist()
                 for p in prompts]  # fmt: skip
        steps = [peer(torch.tensor([p + t])).logits[0, len(p) - 1 :].double().numpy() for p, t in zip(prompts, texts)]
    base = perplexity(wanted, ids)
    for type_name in gguf_models.TYPES:
        gguf = f"{directory}/{name}-{type_name}.gguf"
        gguf_models.export(path, gguf, type_name)
        model = load(gguf, logits_all=True)
        logits = llama_logits(model, ids)
        error = np.abs(logits - wanted).max() / np.abs(wanted).max()
        ratio = perplexity(logits, ids) / base - 1
        real = name == "smollm2"
        # Coarser types leave a random model's text at once; on the real one it is worth a look.
        ours = [greedy(model, p, 32) for p in prompts] if real or type_name in ("f32", "f16") else []
        equal = [a == b for a, b in zip(ours, texts)]
        print(f"{name} {type_name}: logits {error:.1e} from transformers' over {len(ids)} tokens, perplexity {base:.4f} {ratio:+.3%}"
              + (f", {sum(equal)} of {len(equal)} greedy texts of 32 tokens equal" if ours else ""), flush=True)  # fmt: skip
        assert abs(ratio) <= (0.01 if real else 0.03), f"{type_name} perplexity"
        if type_name == "f32":
            assert error <= 1e-4, "logits"
        if type_name == "f16" and not real:
            equal = [leaves_at_a_tie(a, b, s, error) for a, b, s in zip(ours, texts, steps)]
        if type_name in ("f32", "f16"):
            assert all(equal), f"{type_name} greedy text of prompts {[i for i, e in enumerate(equal) if not e]}"
        del model
        os.unlink(gguf)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--models", nargs="*", help="these alone")
    arguments = parser.parse_args()
    seed = arguments.seed
    print(f"seed {seed}, llama-cpp-python {llama_cpp.__version__}")
    texts = gguf_models.sample_texts(random.Random(seed + 1), bytes_per_script=20000, random_count=1000)
    # A C string holds no NUL. What else goes is named at the top.
    texts = ["".join(c for c in text if c != "\0" and unicodedata.category(c) not in ("Cn", "Cs")) for text in texts]
    texts = [text.replace("'ſ", "'s") for text in texts]
    long_text = "\n".join(gguf_models.SOURCE.joinpath(name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        for name, path in gguf_models.all_models(directory, seed).items():
            if arguments.models and name not in arguments.models:
                continue
            gguf = f"{directory}/{name}-vocabulary.gguf"
            gguf_models.export(path, gguf, "q8_0")
            if compare_tokens(name, path, gguf, texts) != 0:
                failures.append(f"{name}: token ids")
            os.unlink(gguf)
            try:
                compare_numbers(name, path, directory, long_text)
            except AssertionError as error:
                failures.append(f"{name}: {error}")
    if failures:
        sys.exit("differences: " + "; ".join(failures))


main()
