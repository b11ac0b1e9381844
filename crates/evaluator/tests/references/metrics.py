"""Makes translations.json: translations, their references, and what sacrebleu says of them.

python -m venv venv && venv/bin/pip install sacrebleu
venv/bin/python crates/evaluator/tests/references/metrics.py
"""

import json
import pathlib

import sacrebleu

SETS = {
    "plain": (
        ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."],
        [["The dog bit the man.", "It was not unexpected.", "The man bit him first."]],
    ),
    "two references": (
        ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."],
        [
            ["The dog bit the man.", "It was not unexpected.", "The man bit him first."],
            ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."],
        ],
    ),
    "numbers and marks": (
        ["In 2016-17 it rose 3.5%, to 1,000.25 (or so).", "&quot;A&amp;B&quot; e-mail: a@b.de/x_y, U.S. -5", "it's [a] {b} ~c `d` <e>"],
        [["In 2016-17 it rose 3.4 %, to 1,000.25 (about).", "\"A&B\" E-mail: a@b.de/x-y, US -5", "it is [a] {b} ~c 'd' <e>"]],
    ),
    "umlauts": (
        ["Größe und Maße der Übertragung sind unbekannt", "das Paket läßt sich nicht installieren ."],
        [["Die Größe und die Maße der Übertragung sind nicht bekannt.", "Das Paket lässt sich nicht installieren."]],
    ),
    "no four-gram in common": (["a b c d e f"], [["a c e b d f"]]),
    "nothing in common": (["xyz"], [["a b c d"]]),
    "shorter than four tokens": (["two words"], [["two words"]]),
    "far too short": (["the cat sat on"], [["the cat sat on the mat in front of the warm stove"]]),
    "one empty": (["", "the cat sat on the mat"], [["a dog", "the cat sat on the mat"]]),
}

sets = []
for name, (translations, references) in SETS.items():
    bleu = sacrebleu.corpus_bleu(translations, references)
    sets.append({
        "name": name,
        "translations": translations,
        "references": [list(of_one) for of_one in zip(*references)],
        "bleu": bleu.score,
        "precisions": bleu.precisions,
        "brevity_penalty": bleu.bp,
        "tokens": [bleu.sys_len, bleu.ref_len],
        "chrf": sacrebleu.corpus_chrf(translations, references).score,
    })
made = {"sacrebleu": sacrebleu.__version__, "sets": sets}
path = pathlib.Path(__file__).with_name("translations.json")
path.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")
