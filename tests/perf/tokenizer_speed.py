"""Tokenizing speed against PyPI `tokenizers`: same texts, same machine, same run.

    FINETUNED_BUILD_DIR=build python tests/perf/tokenizer_speed.py [--megabytes N] [--threads N]

Both are timed on tokenizing alone, best of three passes, over short texts (messages) and over long documents (the same
messages joined). The peer runs in one thread, then in as many as it likes; ours in one, then in --threads.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))
arguments = argparse.ArgumentParser()
arguments.add_argument("--megabytes", type=float, default=10)
arguments.add_argument("--threads", type=int, default=os.cpu_count())
arguments = arguments.parse_args()
TOOL = os.path.join(os.environ["FINETUNED_BUILD_DIR"], "tests", "tokenize_tool")


def ours(path, texts, threads):
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    result = subprocess.run([TOOL, path, "--time", str(threads)], input=lines.encode(), capture_output=True, check=True)
    return json.loads(result.stdout)


def peer(tokenizer, texts):
    best, count = float("inf"), 0
    for _ in range(3):
        start = time.perf_counter()
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        best = min(best, time.perf_counter() - start)
        count = sum(len(e.ids) for e in encodings)
    return {"seconds": best, "tokens": count}


def main():
    # The peer reads this once, so its thread count is that of this process: run the script twice for both figures.
    single = os.environ.setdefault("TOKENIZERS_PARALLELISM", "false") == "false"
    import multilingual_text
    import tokenizer_files

    rng = random.Random(1)
    texts = multilingual_text.corpus(rng, int(arguments.megabytes * 1e6))
    documents = ["\n".join(texts[i : i + 200]) for i in range(0, len(texts), 200)]
    size = sum(len(text.encode()) for text in texts)
    threads = 1 if single else arguments.threads
    print(f"{size / 1e6:.1f} MB, {threads} thread(s)")
    with tempfile.TemporaryDirectory() as folder:
        for name, tokenizer in tokenizer_files.families(rng.sample(texts, 8000)).items():
            path = os.path.join(folder, "tokenizer.json")
            tokenizer.save(path)
            for shape, sample in (("short texts", texts), ("documents", documents)):
                theirs, mine = peer(tokenizer, sample), ours(path, sample, threads)
                if theirs["tokens"] != mine["tokens"]:
                    raise SystemExit(f"{name}: {mine['tokens']} tokens, the peer {theirs['tokens']}")
                print(
                    f"{name:24} {shape:12} ours {size / 1e6 / mine['seconds']:7.1f} MB/s, "
                    f"peer {size / 1e6 / theirs['seconds']:6.1f} MB/s, ratio {theirs['seconds'] / mine['seconds']:5.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
