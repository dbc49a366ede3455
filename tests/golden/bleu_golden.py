#!/usr/bin/env python3
"""Makes the golden values of BLEU with the real sacreBLEU: python3 tests/golden/bleu_golden.py, where it is installed.

Writes tests/golden/bleu/NAME.{hyp,ref,ref1} from a fixed seed, and expected.tsv: files, options of `harness bleu`, score,
precisions, brevity, lengths as sacreBLEU gives them.  tests/golden/bleu.sh holds the program against them.
"""
import pathlib
import random

import sacrebleu
from sacrebleu.metrics import BLEU

FOLDER = pathlib.Path(__file__).parent / "bleu"
WORDS = "the of a in house Haus tree Baum der die das und nicht 1,000 3.5 U.S. e-mail 2014-06 it's don't co-operate café naïve x=y 50% $3".split()
SIGNS = list(".,;:!?-()[]{}\"'`/\\|@#%^&*_+=<>~$")
UNICODE = ["\u00a0", "\u2009", "\u3000", "\u0085", "\u001c", "\u001f", "\u200b", "\u2028", "\u00ad", "\u0301", "\u2014", "\u201e", "\u201c", "\u00ab",
           "\u00bb", "\u20ac", "\u00b2", "\u0663", "\u0968", "\U0001d7d8", "\U0001f600", "\u65e5\u672c\u8a9e", "\u041f\u0440\u0438\u0432\u0435\u0442",
           "\u0130stanbul", "\u039f\u0394\u039f\u03a3", "STRASSE", "\u1e9e", "\u2167", "\ufb01", "\u00bd", "\u2212", "\u066b"]
ENTITIES = ["&quot;", "&amp;", "&lt;", "&gt;", "&amp;lt;", "&amp;amp;quot;", "&apos;", "&", "&nbsp;", "<skipped>", "<b>", "a&b"]


def sentence(rng, kinds, length):
    words = []
    for _ in range(length):
        kind = rng.choice(kinds)
        pool = {"word": WORDS, "sign": SIGNS, "unicode": UNICODE, "entity": ENTITIES}[kind]
        text = rng.choice(pool)
        words.append(text if rng.random() < 0.7 or not words else words.pop() + text)
    return " ".join(words).replace("\n", " ")


def disturbed(rng, text):
    words = text.split(" ")
    for _ in range(rng.randint(0, 3)):
        if len(words) > 1:
            i = rng.randrange(len(words))
            rng.choice([lambda: words.pop(i), lambda: words.insert(i, rng.choice(WORDS)), lambda: words.reverse()])()
    return " ".join(words)


def corpora():
    rng = random.Random(20140606)
    mixes = {"words": ["word"], "signs": ["word", "sign"], "unicode": ["word", "unicode"], "entities": ["word", "entity", "sign"],
             "everything": ["word", "sign", "unicode", "entity"]}
    for name, kinds in mixes.items():
        for size in (1, 7, 40):
            ref = [sentence(rng, kinds, rng.randint(1, 25)) for _ in range(size)]
            yield f"{name}{size}", [disturbed(rng, r) for r in ref], [ref]
    ref = [sentence(rng, mixes["everything"], 12) for _ in range(30)]
    yield "equal", list(ref), [ref]
    yield "nothing", ["zzz"] * 5, [["a b c", "", "d", "e f", "g"]]
    yield "empty", ["", "", ""], [["a b", "", "c"]]
    yield "empty-lines", ["a b c d", "", "e f g h i", " ", "\u3000"], [["a b c d", "x", "", "", "e"]]
    yield "short", ["a", "b c", "d"], [["a", "b c", "d"]]
    yield "no-fourth", ["a b c x", "d e f y"], [["a b c z", "d e f w"]]
    yield "no-second", ["a x b y c", "d q"], [["a z b w c", "d r"]]
    yield "carriage-return", ["a b\r", "c\rd e", "f g h i\r"], [["a b", "c d e", "f g h i"]]
    yield "repeated", ["the the the the the the the", "a a a b"], [["the cat is on the mat", "a b a b"]]
    yield "ties", ["a b c d e", "p q r s", "u v"], [["a b c d", "p q r", "u v w"], ["a b c d e f", "p q r s t", "u"]]
    ref = [sentence(rng, mixes["everything"], rng.randint(3, 20)) for _ in range(25)]
    yield "two-references", [disturbed(rng, r) for r in ref], [ref, [disturbed(rng, r) for r in ref]]


OPTIONS = [("--smooth exp", {}), ("--lowercase", {"lowercase": True}), ("--tokenize intl", {"tokenize": "intl"}), ("--tokenize none", {"tokenize": "none"}),
           ("--smooth none", {"smooth_method": "none"}), ("--smooth floor --effective-order", {"smooth_method": "floor", "effective_order": True}),
           ("--lowercase --tokenize intl", {"lowercase": True, "tokenize": "intl"})]


def main():
    FOLDER.mkdir(exist_ok=True)
    rows = [f"# made by bleu_golden.py with sacreBLEU {sacrebleu.__version__}", "# hyp\trefs\toptions\tscore\tprecisions\tbrevity\thyp_len\tref_len"]
    for name, hyp, refs in corpora():
        names = [f"{name}.ref{i or ''}" for i in range(len(refs))]
        for file, lines in zip([f"{name}.hyp"] + names, [hyp] + refs):
            (FOLDER / file).write_bytes("".join(line + "\n" for line in lines).encode())
        for text, options in OPTIONS:
            s = BLEU(**options, force=True).corpus_score(hyp, refs)
            rows.append("\t".join([f"{name}.hyp", " ".join(names), text, f"{s.score:.9f}", " ".join(f"{p:.9f}" for p in s.precisions), f"{s.bp:.9f}",
                                   str(s.sys_len), str(s.ref_len)]))
    (FOLDER / "expected.tsv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
