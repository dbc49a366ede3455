#!/usr/bin/env python3
"""Makes the golden segmentations: python3 tests/golden/subwords_golden.py, where the real subword-nmt is installed.

Writes tests/golden/subwords/{text,codes,codes01,text.units,text.units01}: seeded text, 300 merges learned from it by subword-nmt
in the format of version 0.2, the same merges headed 0.1, and what subword-nmt makes of the text with either.
"""
import io
import pathlib
import random

from subword_nmt.apply_bpe import BPE
from subword_nmt.learn_bpe import learn_bpe

FOLDER = pathlib.Path(__file__).parent / "subwords"
STEMS = "haus baum straße schön groß klein geh seh work walk house tree nation über naïve café 東京 слово ﬁne".split()
ENDS = ["", "", "s", "e", "en", "er", "ing", "ed", "ung", "lich", "al", "es"]


def main():
    rng = random.Random(1508)
    FOLDER.mkdir(exist_ok=True)
    lines = [" ".join(rng.choice(STEMS) + rng.choice(ENDS) + rng.choice(ENDS) for _ in range(rng.randint(1, 14))) for _ in range(150)]
    lines += ["", "a", "  two   spaces  ", "unseenword ξένος 😀😀 @@ x@@y </w> a</w>b", "Hausen-Baumes, 3.14!"]
    text = "\n".join(lines) + "\n"
    (FOLDER / "text").write_text(text)
    codes = io.StringIO()
    learn_bpe(io.StringIO(text), codes, 300)
    (FOLDER / "codes").write_text(codes.getvalue())
    older = codes.getvalue().replace("#version: 0.2", "#version: 0.1")
    (FOLDER / "codes01").write_text(older)
    for name, content in (("text.units", codes.getvalue()), ("text.units01", older)):
        bpe = BPE(io.StringIO(content))
        (FOLDER / name).write_text("".join(bpe.process_line(line).strip() + "\n" for line in lines))


if __name__ == "__main__":
    main()
