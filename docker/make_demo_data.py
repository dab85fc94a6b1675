#!/usr/bin/env python3
"""Makes an instruction dataset of English nouns from WordNet 3.0 (Debian's wordnet-base; free with its notice).

    make_demo_data.py --out DIR [--wordnet /usr/share/wordnet] [--train 10000] [--validation 600]

Writes DIR/train.jsonl and DIR/validation.jsonl, records of two kinds:

    {"instruction": "Define the noun \"pewter\".", "response": "any of various alloys of tin ..."}
    {"instruction": "What kind of thing is a pewter?", "response": "A pewter is a kind of alloy."}

Both are asked of a noun's first sense alone, so the same question never has two answers. A synset that validation asks
about, and each of its lemmas, is asked about nowhere in training. The records are the same on every machine: their order
is that of the SHA-256 of the lemma. Each file is written beside its place and renamed; a directory that has both is kept
as it is. Needs Python alone.
"""
import argparse
import hashlib
import json
import os
import pathlib
import re
import sys

# Phrases, digits and proper names (which have a capital or are instances, without a hypernym) are skipped, and so are
# glosses too short or too long to be an answer.
WORD = re.compile(r"[a-z]{3,14}")
GLOSS_CHARACTERS = (15, 160)


def read_synsets(path):
    """offset -> (lemmas, gloss without examples, hypernym offset or None); the format is wndb(5WN)."""
    synsets = {}
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("  "):  # the licence
                continue
            fields, _, gloss = line.partition(" | ")
            fields = fields.split()
            count = int(fields[3], 16)
            lemmas = [fields[4 + 2 * i] for i in range(count)]
            pointers = fields[5 + 2 * count:]
            hypernym = next((pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] == "@"), None)
            definition = gloss.split('; "')[0].strip().rstrip(";")
            synsets[fields[0]] = (lemmas, definition, hypernym)
    return synsets


def first_senses(path):
    """Yields (lemma, offset of its most frequent sense) of the index file."""
    with open(path, encoding="ascii") as file:
        for line in file:
            if line.startswith("  "):
                continue
            fields = line.split()
            yield fields[0], fields[6 + int(fields[3])]


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def nouns(wordnet):
    """Yields (order, records, keys) per noun; keys: the synsets and lemmas that its records speak of."""
    synsets = read_synsets(wordnet / "data.noun")
    for lemma, offset in first_senses(wordnet / "index.noun"):
        lemmas, gloss, hypernym = synsets[offset]
        if not WORD.fullmatch(lemma) or lemma not in lemmas or hypernym is None:
            continue
        if not GLOSS_CHARACTERS[0] <= len(gloss) <= GLOSS_CHARACTERS[1]:
            continue
        kind = synsets[hypernym][0][0].replace("_", " ")
        records = [
            {"instruction": f'Define the noun "{lemma}".', "response": gloss},
            {"instruction": f"What kind of thing is {article(lemma)}?",
             "response": f"{article(lemma).capitalize()} is a kind of {kind}."},
        ]
        order = hashlib.sha256(lemma.encode()).digest()
        yield order, records, {offset, *(name.lower() for name in lemmas)}


def split(ordered, train_size, validation_size):
    """Nouns in order: first the validation part, then every noun that shares no key with it."""
    validation, train, held_out = [], [], set()
    for _, records, keys in ordered:
        if len(validation) < validation_size:
            validation += records
            held_out |= keys
        elif len(train) < train_size and not keys & held_out:
            train += records
    return train[:train_size], validation[:validation_size]


def write(path, records):
    partial = path.with_name(f"{path.name}.partial.{os.getpid()}")
    with open(partial, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    partial.rename(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--wordnet", type=pathlib.Path, default=pathlib.Path("/usr/share/wordnet"))
    parser.add_argument("--train", type=int, default=10000)
    parser.add_argument("--validation", type=int, default=600)
    args = parser.parse_args()
    paths = args.out / "train.jsonl", args.out / "validation.jsonl"
    if all(path.exists() for path in paths):
        print(f"{args.out} is there already")
        return
    if not (args.wordnet / "data.noun").exists():
        sys.exit(f"make_demo_data: {args.wordnet}/data.noun is missing; run docker/install-deps.sh (wordnet-base)")

    parts = split(sorted(nouns(args.wordnet), key=lambda noun: noun[0]), args.train, args.validation)
    for part, wanted in zip(parts, (args.train, args.validation)):
        if len(part) < wanted:
            sys.exit(f"make_demo_data: only {len(part)} of {wanted} records; ask for fewer")
    args.out.mkdir(parents=True, exist_ok=True)
    for path, records in zip(paths, parts):
        write(path, records)
    print(f"{args.out}: {len(parts[0])} training and {len(parts[1])} validation records from WordNet 3.0")


if __name__ == "__main__":
    main()
