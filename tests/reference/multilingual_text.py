"""Text in many scripts from what every build machine has: message catalogues of installed programs (*.mo), and, where
they leave a script out, words made of that script's letters. Nothing is downloaded."""

import collections
import gettext
import glob
import random
import unicodedata

SCRIPTS = (
    "LATIN CYRILLIC GREEK ARABIC HEBREW DEVANAGARI BENGALI TAMIL TELUGU KANNADA MALAYALAM GUJARATI GURMUKHI THAI LAO "
    "TIBETAN MYANMAR GEORGIAN ARMENIAN ETHIOPIC KHMER HANGUL HIRAGANA KATAKANA CJK"
).split()


def script_of(char):
    return unicodedata.name(char, "").split(" ")[0] if ord(char) > 127 else "LATIN" if char.isalpha() else ""


def catalogue_texts(limit_bytes_per_language):
    by_language = collections.defaultdict(dict)
    for path in sorted(glob.glob("/usr/share/locale*/*/LC_MESSAGES/*.mo")):
        language = path.split("/")[-3].split("_")[0]
        kept = by_language[language]
        if sum(kept.values()) > limit_bytes_per_language:
            continue
        try:
            with open(path, "rb") as file:
                catalogue = gettext.GNUTranslations(file)._catalog
        except (OSError, LookupError, ValueError):  # a damaged catalogue is no business of ours
            continue
        for message in catalogue.values():
            if isinstance(message, str) and len(message) > 20:
                kept[message] = len(message.encode())
    return [text for language in sorted(by_language) for text in by_language[language]]


def invented_texts(rng, script, size):
    letters = [chr(c) for c in range(0x80, 0x30000) if script_of(chr(c)) == script and chr(c).isprintable()]
    if script == "LATIN":
        letters += "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    words = ["".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(400)]
    texts, total = [], 0
    while total < size:
        text = "".join(w + rng.choice([" ", " ", " ", ", ", ".\n", " 12 ", "\t", "'s "]) for w in rng.choices(words, k=40))
        texts.append(text)
        total += len(text.encode())
    return texts


def random_unicode(rng, count):
    """Texts of code points drawn from everywhere, with what tokenizers treat specially strewn in."""
    special = ["'s", "'LL", "'ſ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "1", "٣", "½", "<|im_start|>", "<s>",
               "[INST]", "▁", "é", "e\u0301", "\u0345\u0300", "가", "\u1100\u1161\u11a8", "İ", "ǅ", "ﬁ", "\u200d", "the", "\x00"]  # fmt: skip
    assigned = [c for c in range(0x30000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 60)):
            kind = rng.random()
            if kind < 0.25:
                parts.append(rng.choice(special))
            elif kind < 0.5:
                parts.append(chr(rng.randrange(0x20, 0x7F)))
            elif kind < 0.85:
                parts.append(chr(rng.choice(assigned)))
            else:
                code = rng.randrange(0x110000)
                parts.append(chr(code) if not 0xD800 <= code < 0xE000 else "?")
        texts.append("".join(parts))
    return texts


def corpus(rng, size):
    """At least `size` bytes in at least ten scripts; prints what they are."""
    texts = catalogue_texts(max(size // 80, 20000))
    bytes_by_script = collections.Counter()
    for text in texts:
        for char in text:
            bytes_by_script[script_of(char)] += len(char.encode())
    real = sum(len(text.encode()) for text in texts)
    invented = 0
    for script in SCRIPTS:
        if bytes_by_script[script] < 20000:
            texts += invented_texts(rng, script, 20000)
            invented += 20000
    if real + invented < size:
        for script in SCRIPTS:
            texts += invented_texts(rng, script, (size - real - invented) // len(SCRIPTS) + 1)
        invented = size - real
    rng.shuffle(texts)
    kept, total = 0, 0
    while kept < len(texts) and total < size:
        total += len(texts[kept].encode())
        kept += 1
    texts = texts[:kept]
    counts = collections.Counter(script_of(char) for text in texts for char in text)
    present = [s for s in SCRIPTS if counts[s] >= 1000]
    print(f"text: {total / 1e6:.1f} MB, about {min(1, real / (real + invented)):.0%} of it from message catalogues, the rest invented words;")
    print(f"{len(present)} scripts with 1,000 characters and more: {', '.join(present).lower()}")
    return texts
