"""Writes unicode_tables.inc: the character data that Hugging Face `tokenizers` applies, measured on that package.

Its parts (Rust's standard library, its regex engine, a normalization crate, Oniguruma) each carry a Unicode version of
their own, and none is the version of a C++ library at hand. So every property is taken from the behaviour of the
package itself, for every code point. Run it again when the reference version changes:

    python worker/text/unicode_tables.py > worker/text/unicode_tables.inc
"""
import struct
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co").split()
# Scripts that pre-tokenizer patterns name; the rest is left to the regex library.
SCRIPTS = ("Han Hiragana Katakana Hangul Latin Cyrillic Greek Arabic Hebrew Thai Devanagari Bengali Tamil").split()


def regex_set(pattern):
    text = "".join(map(chr, CODE_POINTS))
    kept = normalizers.Replace(Regex(pattern), "").normalize_str(text)
    return set(CODE_POINTS) - set(map(ord, kept))


def pieces(pre_tokenizer, code_point):
    return len(pre_tokenizer.pre_tokenize_str("a" + chr(code_point) + "a"))


def properties():
    category = {}
    for index, name in enumerate(CATEGORIES, 1):
        for c in regex_set(r"\p{%s}" % name):
            category[c] = index
    script = {}
    for index, name in enumerate(SCRIPTS, 1):
        for c in regex_set(r"\p{%s}" % name):
            script[c] = index
    regex_word = regex_set(r"[\w]")  # outside of brackets six more, see regex.cc
    regex_space = regex_set(r"\s")
    assert regex_set(r"\d") == {c for c in category if CATEGORIES[category[c] - 1] == "Nd"}
    digits, punctuation = pre_tokenizers.Digits(True), pre_tokenizers.Punctuation()
    space, word = pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Whitespace()
    accents = normalizers.StripAccents()
    bert_options = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    bert_clean = normalizers.BertNormalizer(**{**bert_options, "clean_text": True}).normalize_str
    bert_accents = normalizers.BertNormalizer(**{**bert_options, "strip_accents": True}).normalize_str
    rows = {}
    for c in CODE_POINTS:
        is_space = pieces(space, c) == 2
        assert is_space == (c in regex_space), hex(c)
        flags = (
            (pieces(digits, c) == 3) << 0
            | (pieces(punctuation, c) == 3) << 1
            | is_space << 2
            | (pieces(word, c) == 1) << 3
            | (accents.normalize_str(chr(c)) == "") << 4
            | (c in regex_word) << 5
            | (bert_clean(chr(c)) == "") << 6
            | (bert_accents(chr(c)) == "") << 7
        )
        assert bert_clean(chr(c)) == ("" if flags & 1 << 6 else " " if is_space else chr(c)), hex(c)
        rows[c] = (category.get(c, 0), script.get(c, 0), flags)
    return rows


def charsmap(root):
    """A Precompiled normalizer that replaces every key by "b". A node maps a byte to (next node or None, key ends here)."""
    nodes, order = {}, []

    def visit(node):
        if id(node) not in nodes:
            nodes[id(node)] = 256 * (len(nodes) + 1)
            order.append(node)
            for child, _ in node.values():
                visit(child)

    visit(root)
    units = [1 << 31] * (256 * (len(nodes) + 1))  # a unit that no byte leads to
    units[0] = nodes[id(root)] << 10
    for node in order:
        for byte, (child, ends) in node.items():
            at, to = nodes[id(node)] ^ byte, nodes[id(child)]
            units[at] = (at ^ to) << 10 | ends << 8 | byte
    # What ends at a node has its value, the offset of its replacement, in the node's slot of byte 0: always 0.
    trie = struct.pack(f"<{len(units)}I", *units)
    return normalizers.Precompiled(struct.pack("<I", len(trie)) + trie + b"b\0")


def one_key(char):
    node, ends = {}, True
    for byte in reversed(char.encode()):
        node, ends = {byte: (node, ends)}, False
    return charsmap(node)


def every_character():
    end = {}
    last = {byte: (end, True) for byte in range(0x80, 0xC0)}
    third = {byte: (last, False) for byte in range(0x80, 0xC0)}
    second = {byte: (third, False) for byte in range(0x80, 0xC0)}
    root = {byte: (end, True) for byte in range(1, 0x80) if byte != 10}  # line breaks separate the texts of ask()
    root |= {byte: (last, False) for byte in range(0xC2, 0xE0)}
    root |= {byte: (third, False) for byte in range(0xE0, 0xF0)}
    root |= {byte: (second, False) for byte in range(0xF0, 0xF5)}
    return charsmap(root)


def graphemes():
    """What each code point does to the grapheme clusters that Precompiled looks up as a whole.

    A cluster of up to 5 bytes is replaced by what its first character stands for; what swallows the rest tells where the
    clusters end. A longer one is looked up character by character, so nothing about it has to be known.
    """

    def ask(normalizer, texts):
        answers = normalizer.normalize_str("\n".join(texts)).split("\n")
        assert len(answers) == len(texts)
        return answers

    characters = [chr(c) for c in CODE_POINTS if c not in (0, 10, 13)]
    base, mark, copyright = one_key("a"), one_key("\u0300"), one_key("\u00a9")
    hangul_l, hangul_v, hangul_t = one_key("\u1100"), one_key("\u1161"), one_key("\u11a8")
    devanagari = one_key("\u0924")
    # Texts end in a base and a mark: "b" alone says they were a cluster of their own, so what is before did not join.
    joins = lambda key, texts: [answer.endswith("\u0300") for answer in ask(key, texts)]
    columns = [
        [answer == c + "b" for c, answer in zip(characters, ask(mark, [c + "\u0300\u0301" for c in characters]))],
        [answer == "b" for answer in ask(base, ["a" + c for c in characters])],
        [answer == "b" for answer in ask(every_character(), [c + "a" for c in characters])],
        joins(copyright, [c + "\u200d\u00a9\u0300" for c in characters]),
        joins(copyright, ["\u263a" + c + "\u200d\u00a9\u0300" for c in characters]),
        joins(devanagari, [c + "\u094d\u0924\u0300" for c in characters]),
        joins(devanagari, ["\u0915" + c + "\u0924\u0300" for c in characters]),
        joins(devanagari, ["\u0915" + c + "\u094d\u0924\u0300" for c in characters]),
    ]  # fmt: skip
    prepend = {c for c, joined in zip(characters, columns[2]) if joined}
    kirat_rai = [(0x16D63, 0x16D63), (0x16D67, 0x16D6A)]  # vowels that Unicode 16 treats as Hangul's
    for key, char, ranges in (
        (hangul_l, "\u1100", [(0x1100, 0x115F), (0xA960, 0xA97C)]),
        (hangul_v, "\u1161", [(0x1100, 0x11A7), (0xA960, 0xA97C), (0xD7B0, 0xD7C6)] + kirat_rai + [(c, c) for c in range(0xAC00, 0xD7A4, 28)]),
        (hangul_t, "\u11a8", [(0x1160, 0x11FF), (0xAC00, 0xD7A3), (0xD7B0, 0xD7C6), (0xD7CB, 0xD7FB)] + kirat_rai),
    ):
        joined = {c for c, joined in zip(characters, joins(key, [c + char + "\u0300" for c in characters])) if joined}
        assert joined - prepend == {chr(c) for first, last in ranges for c in range(first, last + 1)}, char
    rows = {0: 1, 10: 1, 13: 1}
    for c, *bits in zip(characters, *columns):
        # What joins by itself says nothing about what it joins in the later columns.
        alone = next((i for i in (2, 3, 5) if bits[i]), None)
        rows[ord(c)] = 1 << alone if alone is not None else sum(bit << i for i, bit in enumerate(bits))
    return rows


def unicode_scripts():
    """Classes of code points between which UnicodeScripts cuts; 0 for those that go with what is before them."""
    pieces_of = pre_tokenizers.UnicodeScripts().pre_tokenize_str
    scripts, representatives = {}, []
    previous = None
    for c in CODE_POINTS:
        char = chr(c)
        # A Latin and a Han letter around it: what belongs to neither side on either order goes with anything.
        if pieces_of("a" + char + "\u4e00")[0][0] == "a" + char and pieces_of("\u4e00" + char + "a")[0][0] == "\u4e00" + char:
            scripts[c] = 0
            continue
        if previous is not None and len(pieces_of(chr(previous) + char)) == 1:
            scripts[c] = scripts[previous]
        else:
            known = next((i for i, r in enumerate(representatives) if len(pieces_of(r + char)) == 1), None)
            if known is None:
                known = len(representatives)
                representatives.append(char)
            scripts[c] = known + 1
        previous = c
    return scripts


def emit_runs(name, rows):
    runs, previous = [], None
    for c in range(0x110000):
        row = rows.get(c, 0)
        if row != previous:
            runs.append("{0x%x,%d}" % (c, row))
            previous = row
    emit(name, "CodePointPair", runs)


def combining_classes(nfd):
    """Reordering against a character of each class tells the class; the package's own Unicode version decides."""

    def swaps(a, b):
        return a != b and nfd(a + b) == b + a

    low, high = chr(0x334), chr(0x345)  # classes 1 and 240, the least and the greatest
    combining = [
        chr(c)
        for c in CODE_POINTS
        if nfd(chr(c)) == chr(c) and (chr(c) in (low, high) or swaps(chr(c), low) or swaps(high, chr(c)))
    ]
    representative = {}
    for char in combining:
        value = unicodedata.combining(char)
        if value:
            representative.setdefault(value, char)
    classes = {}
    for char in combining:
        matching = [v for v, r in representative.items() if not swaps(char, r) and not swaps(r, char)]
        assert len(matching) == 1, (hex(ord(char)), matching)
        classes[ord(char)] = matching[0]
    return classes


def emit(name, element, rows, per_line=8):
    print(f"constexpr {element} {name}[] = {{")
    for start in range(0, len(rows), per_line):
        print("    " + " ".join(row + "," for row in rows[start : start + per_line]))
    print("};")


def main():
    print("// Generated by unicode_tables.py from the behaviour of PyPI tokenizers", tokenizers.__version__ + "; do not edit.")
    print("// clang-format off")
    emit("kCategoryNames", "const char*", [f'"{n}"' for n in ["Cn"] + CATEGORIES], 16)
    emit("kScriptNames", "const char*", [f'"{n}"' for n in [""] + SCRIPTS], 16)

    print("// First code point of each run of equal properties: {first, category, script, flags}.")
    rows, runs, previous = properties(), [], None
    for c in range(0x110000):
        row = rows.get(c, (0, 0, 0))
        if row != previous:
            runs.append("{0x%x,%d,%d,%d}" % (c, *row))
            previous = row
    emit("kPropertyRuns", "PropertyRun", runs)

    lower = normalizers.Lowercase().normalize_str
    print("// {code point, lower case}; U+0130 alone becomes two code points and is handled in code.")
    pairs = []
    for c in CODE_POINTS:
        mapped = lower(chr(c))
        if mapped == chr(c):
            continue
        if len(mapped) > 1:
            assert c == 0x130 and mapped == "i\u0307"
            continue
        pairs.append("{0x%x,0x%x}" % (c, ord(mapped)))
    emit("kLowercase", "CodePointPair", pairs)

    nfd, nfkd = normalizers.NFD().normalize_str, normalizers.NFKD().normalize_str
    nfc = normalizers.NFC().normalize_str
    print("// {code point, canonical combining class}, others 0.")
    emit("kCombiningClasses", "CodePointPair", ["{0x%x,%d}" % item for item in sorted(combining_classes(nfd).items())])

    print("// Full decompositions without Hangul: {code point, offset into kDecompositionPool, length}.")
    pool, compositions = [], []
    for name, decompose in (("kCanonical", nfd), ("kCompatibility", nfkd)):
        entries = []
        for c in CODE_POINTS:
            char = chr(c)
            mapped = decompose(char)
            if mapped == char or 0xAC00 <= c < 0xD7A4 or (name == "kCompatibility" and mapped == nfd(char)):
                continue
            entries.append("{0x%x,%d,%d}" % (c, len(pool), len(mapped)))
            pool.extend("0x%x" % ord(m) for m in mapped)
            if name == "kCanonical" and nfc(mapped) == char:
                first = nfc(mapped[:-1])
                assert len(first) == 1 and nfc(first + mapped[-1]) == char, hex(c)
                compositions.append((ord(first), ord(mapped[-1]), c))
        emit(name, "Decomposition", entries)
    emit("kDecompositionPool", "char32_t", pool, 16)
    print("// Canonical compositions without Hangul, sorted: {first, second, composed}.")
    emit("kCompositions", "Composition", ["{0x%x,0x%x,0x%x}" % item for item in sorted(compositions)])
    print("// First code point of each run: {first, bits of GraphemeProperty}.")
    emit_runs("kGraphemeRuns", graphemes())
    print("// First code point of each run: {first, class of UnicodeScripts}.")
    emit_runs("kUnicodeScriptRuns", unicode_scripts())
    print("// clang-format on")


if __name__ == "__main__":
    sys.exit(main())
