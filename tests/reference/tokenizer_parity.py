"""Token ids, decoded text and offsets of our tokenizer against PyPI `tokenizers`: no difference is allowed.

    python tests/reference/tokenizer_parity.py [--seed N] [--random-configurations N] [--megabytes N]
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import multilingual_text  # noqa: E402
import tokenizer_files  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

PRODUCT_FAMILIES = ("smollm2", "gpt2", "llama3", "qwen2", "llama2", "gemma2")
TOOL = os.path.join(os.environ["FINETUNED_BUILD_DIR"], "tests", "tokenize_tool")


def ours(path, texts, special):
    arguments = [TOOL, path, "--offsets", "--decode"] + (["--add-special-tokens"] if special else [])
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    result = subprocess.run(arguments, input=lines.encode(), capture_output=True)
    if result.returncode != 0:
        raise SystemExit(f"{TOOL} failed on {path}: {result.stderr.decode(errors='replace')}")
    return [json.loads(line) for line in result.stdout.decode().split("\n") if line]


def offsets_problem(text, output, rewrites):
    """What is wrong with the byte offsets, or None. Where text is not rewritten they follow each other."""
    size, previous = len(text.encode()), 0
    if len(output["offsets"]) != len(output["ids"]):
        return "not one offset an id"
    for begin, end in output["offsets"]:
        if not 0 <= begin <= end <= size:
            return f"offset {begin, end} outside of {size} bytes"
        if not rewrites and begin < end:
            if begin < previous:
                return f"offset {begin, end} overlaps the token before, which ends at {previous}"
            previous = end
    return None


def peer_ids(tokenizer, texts, special):
    """The texts that the peer can encode, their ids, and how many texts it panics on (it has defects of its own)."""
    kept, ids = [], []
    try:
        return texts, [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=special)], 0
    except BaseException as error:  # a Rust panic is no Exception
        if type(error).__name__ != "PanicException":
            raise
    for text in texts:
        try:
            ids.append(tokenizer.encode(text, add_special_tokens=special).ids)
            kept.append(text)
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
    return kept, ids, len(texts) - len(kept)


def compare(tokenizer, texts, folder, special):
    """Number of tokens compared and a list of what differs."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    path = os.path.join(folder, "tokenizer.json")
    tokenizer.save(path)
    # What the peer reads, too: it reads scores of Unigram less exactly than it writes them.
    tokenizer = Tokenizer.from_file(path)
    description = json.loads(tokenizer.to_str())
    # Then the bytes of one token may lie before or within those of the one in front of it.
    rewrites = (
        description["normalizer"] is not None
        or any(t["lstrip"] or t["rstrip"] for t in description["added_tokens"])
        or any(name in json.dumps(description["pre_tokenizer"]) for name in ("Metaspace", '"add_prefix_space": true'))
    )
    texts, ids, panics = peer_ids(tokenizer, texts, special)
    if panics:
        print(f"    {panics} texts left out, on which the peer panics")
    outputs = ours(path, texts, special)
    decoded = tokenizer.decode_batch(ids, skip_special_tokens=False)
    decoded_plain = tokenizer.decode_batch(ids, skip_special_tokens=True)
    failures, tokens = [], 0
    for i, text in enumerate(texts):
        tokens += len(ids[i])
        if outputs[i]["ids"] != ids[i]:
            k = next((k for k, (a, b) in enumerate(zip(outputs[i]["ids"], ids[i])) if a != b), min(len(ids[i]), len(outputs[i]["ids"])))
            failures.append(f"ids of {text!r:.300}: from {k} ours {outputs[i]['ids'][k:k + 8]}, theirs {ids[i][k:k + 8]}")
        elif outputs[i]["text"] != decoded[i]:
            failures.append(f"decoded {text!r:.200}: ours {outputs[i]['text']!r:.200}, theirs {decoded[i]!r:.200}")
        elif outputs[i]["text_without_special"] != decoded_plain[i]:
            failures.append(f"decoded {text!r:.200}: ours {outputs[i]['text_without_special']!r:.200}, theirs {decoded_plain[i]!r:.200}")
        elif problem := offsets_problem(text, outputs[i], rewrites):
            failures.append(f"offsets of {text!r:.200}: {problem}")
    return tokens, failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--random-configurations", type=int, default=60)
    parser.add_argument("--megabytes", type=float, default=2.5)
    arguments = parser.parse_args()
    print("seed", arguments.seed)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # fail rather than take the machine's memory
    rng = random.Random(arguments.seed)
    texts = multilingual_text.corpus(rng, int(arguments.megabytes * 1e6))
    strange = multilingual_text.random_unicode(rng, 4000) + ["", " ", "a", "\n", "a" * 3000, "ab" * 2000 + " " * 500]
    training = rng.sample(texts, min(len(texts), 8000))
    total_tokens = total_failures = 0
    with tempfile.TemporaryDirectory() as folder:

        def check(name, tokenizer, sample, special):
            nonlocal total_tokens, total_failures
            start = time.time()
            tokens, failures = 0, []
            for first in range(0, len(sample), 10000):  # in parts, for the offsets take memory
                counted, found = compare(tokenizer, sample[first : first + 10000], folder, special)
                tokens += counted
                failures += found
            total_tokens += tokens
            total_failures += len(failures)
            print(f"{name}: {len(sample)} texts, {tokens} tokens, {len(failures)} differences, {time.time() - start:.1f} s", flush=True)
            for failure in failures[:3]:
                print("   ", failure)

        for name, tokenizer in tokenizer_files.families(training).items():
            # The product's families see all of the text, variants of one mechanism a part of it.
            sample = texts if name in PRODUCT_FAMILIES or name.startswith("file ") else texts[: len(texts) // 8]
            check(name, tokenizer, sample + strange, special=True)
        small = rng.sample(texts, min(len(texts), 400)) + strange[:400] + strange[-6:]
        for i in range(arguments.random_configurations):
            seed = arguments.seed + i
            tokenizer, kind = tokenizer_files.random_configuration(seed, training[:600])
            check(f"random {kind} {seed}", tokenizer, small, special=i % 2 == 0)
    print(f"total: {total_tokens} tokens, {total_failures} differences")
    return 1 if total_failures else 0


if __name__ == "__main__":
    sys.exit(main())
