use std::{
    iter::repeat_n,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use maskwright_blueprint::Digest;
use tokenizers::{
    AddedToken, EncodeInput, Encoding, Tokenizer, TruncationParams,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
    },
    pre_tokenizers::byte_level::ByteLevel,
    processors::template::TemplateProcessing,
};

use crate::{
    CheckpointError,
    checkpoint::{self, MOST_TOKENISER_BYTES},
};

/// Tokens of one set of texts, padding included: 1 GiB, and as much for which of a pair's texts they belong to.
const MOST_TOKENS: usize = 1 << 28;

/// How errors call a tokeniser that comes from no file.
const LEARNT: &str = "vocabulary learnt from the training texts";

/// Turns text into a model's tokens, as `tokenizer.json` says.
#[derive(Debug, Clone)]
pub struct Tokeniser {
    tokenizer: Tokenizer,
    path: PathBuf,
    /// Special tokens around a pair of texts.
    special: usize,
    /// One more than the highest token.
    vocabulary: u32,
}

/// What a text model reads as one example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text<'a> {
    One(&'a str),
    /// Two texts whose relation is asked for.
    Pair(&'a str, &'a str),
}

/// Texts as tokens, one row each, padded on the right to equal length, which is at least 1.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenisedTexts {
    /// Tokens of a row.
    pub length: usize,
    pub tokens: Vec<u32>,
    /// Which of a pair's texts a token belongs to: 0 or 1.
    pub token_types: Vec<u32>,
    /// Tokens of each row that are no padding.
    pub lengths: Vec<usize>,
    /// Rows that were cut because their text is longer.
    pub truncated: usize,
}

/// A batch of token sequences, padded on the right.
#[derive(Debug, Clone)]
pub struct TextBatch {
    /// `[batch, tokens]`
    pub tokens: Tensor<2, Int>,
    /// `[batch, tokens]`: which of a pair's texts, 0 or 1.
    pub token_types: Tensor<2, Int>,
    /// `[batch, tokens]`: 1 for each real token, 0 for padding.
    pub real: Tensor<2>,
}

impl Tokeniser {
    /// The token that fills up, in a vocabulary that was learnt.
    pub const PADDING: u32 = 0;
    /// The token that ends a text, in a vocabulary that was learnt.
    pub const END: u32 = 1;
    /// Tokens of the smallest vocabulary that can be learnt: the two above, and one for each byte.
    pub const LEAST: u32 = 258;

    /// Learns at most `vocabulary` tokens from texts by byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909), and
    /// at least [`Tokeniser::LEAST`].
    ///
    /// Pieces are made of bytes, so that every text can be written, and [`Tokeniser::decode`] gives it back. Each text
    /// ends in [`Tokeniser::END`]. Same texts, in any order: same tokeniser, to the byte.
    pub fn learn<'a>(texts: impl Iterator<Item = &'a str> + Send, vocabulary: u32) -> Result<Self, CheckpointError> {
        let special = ["<pad>", "</s>"].map(|name| AddedToken::from(name, true));
        let learn = || -> tokenizers::Result<Tokenizer> {
            let mut tokenizer = Tokenizer::new(BPE::default());
            let bytes = ByteLevel::new(true, false, true); // words begin with their space, the first one too
            let template = TemplateProcessing::builder()
                .try_single("$A </s>")?
                .try_pair("$A </s> $B </s>")?
                .special_tokens(vec![("</s>", Self::END)])
                .build()?;
            tokenizer
                .with_pre_tokenizer(Some(bytes))
                .with_decoder(Some(bytes))
                .with_post_processor(Some(template))
                .add_special_tokens(&special);
            let trainer = BpeTrainer::builder()
                .vocab_size(vocabulary.max(Self::LEAST) as usize)
                .min_frequency(2)
                .special_tokens(special.to_vec())
                .initial_alphabet(ByteLevel::alphabet())
                .show_progress(false)
                .build();
            tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), texts)?;
            Ok(tokenizer)
        };
        let path = Path::new(LEARNT);
        Ok(Self::from_tokenizer(learn().map_err(|error| refuse(path, &error))?, path)?.with_names_as_text())
    }

    /// A vocabulary that was learnt, from a file that holds what [`Tokeniser::to_json`] gave.
    pub fn load(path: &Path) -> Result<Self, CheckpointError> {
        Ok(Self::new(&checkpoint::read(path, MOST_TOKENISER_BYTES)?, path)?.with_names_as_text())
    }

    /// `</s>` and `<pad>` in a text are text like any other, not the tokens of that name. Files do not say so.
    fn with_names_as_text(mut self) -> Self {
        self.tokenizer.set_encode_special_tokens(true);
        self
    }

    /// As the contents of a `tokenizer.json`; the same tokeniser gives the same bytes.
    pub fn to_json(&self) -> String {
        self.tokenizer.to_string(false).expect("a tokeniser is plain data")
    }

    /// Of [`Tokeniser::to_json`].
    pub fn digest(&self) -> Digest {
        Digest::of([self.to_json()])
    }

    /// From the bytes of `path`, a `tokenizer.json`; its own padding and truncation are not used.
    pub(crate) fn new(json: &[u8], path: &Path) -> Result<Self, CheckpointError> {
        Self::from_tokenizer(Tokenizer::from_bytes(json).map_err(|error| refuse(path, &error))?, path)
    }

    fn from_tokenizer(mut tokenizer: Tokenizer, path: &Path) -> Result<Self, CheckpointError> {
        let read = || -> tokenizers::Result<Self> {
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None)?;
            let special = tokenizer.encode(("", ""), true)?.len();
            let vocabulary = tokenizer.get_vocab(true).into_values().max().map_or(0, |most| most.saturating_add(1));
            Ok(Self { tokenizer, path: path.into(), special, vocabulary })
        };
        read().map_err(|error| refuse(path, &error))
    }

    /// One more than the highest token.
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    /// Each text as at most `length` tokens, padded with `padding` to the longest of them. Of a pair that is too long,
    /// the longer text is cut first. Refused where `length` leaves no room beside the special tokens of a pair, and where
    /// that makes more than 2^28 tokens with padding (2 GiB).
    pub fn encode(&self, texts: &[Text<'_>], length: usize, padding: u32) -> Result<TokenisedTexts, CheckpointError> {
        if length <= self.special {
            return Err(CheckpointError::Length { asked: length, special: self.special });
        }
        let mut cutting = self.tokenizer.clone();
        let truncation = TruncationParams { max_length: length, ..TruncationParams::default() };
        cutting.with_truncation(Some(truncation)).map_err(|error| refuse(&self.path, &error))?;
        let encode = |text: &Text<'_>| {
            let input = match *text {
                Text::One(text) => EncodeInput::from(text),
                Text::Pair(first, second) => EncodeInput::from((first, second)),
            };
            cutting.encode(input, true).map_err(|error| refuse(&self.path, &error))
        };
        let mut rows = Rows { most: MOST_TOKENS, count: texts.len(), ..Rows::default() };
        for text in texts {
            rows.push(&encode(text)?)?;
        }
        Ok(rows.padded(padding))
    }

    /// The text of one row of tokens, special ones left out.
    pub fn decode(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens, true).unwrap_or_default()
    }
}

/// Rows of their own lengths, before padding.
#[derive(Default)]
struct Rows {
    /// Tokens that all rows may have together, padding included.
    most: usize,
    /// How many rows there will be.
    count: usize,
    /// Of the longest row so far.
    longest: usize,
    tokens: Vec<u32>,
    token_types: Vec<u32>,
    lengths: Vec<usize>,
    truncated: usize,
}

impl Rows {
    /// One row more, unless all of them, padded, would be too many tokens.
    fn push(&mut self, encoding: &Encoding) -> Result<(), CheckpointError> {
        self.longest = self.longest.max(encoding.len());
        if self.count.saturating_mul(self.longest) > self.most {
            let (rows, longest, most) = (self.count, self.longest, self.most);
            return Err(CheckpointError::TooManyTokens { rows, longest, most });
        }
        self.tokens.extend(encoding.get_ids());
        self.token_types.extend(encoding.get_type_ids().iter().map(|kind| (*kind).min(1)));
        self.lengths.push(encoding.len());
        self.truncated += usize::from(!encoding.get_overflowing().is_empty());
        Ok(())
    }

    /// All rows, filled up with `padding` to the longest.
    fn padded(self, padding: u32) -> TokenisedTexts {
        let length = self.longest.max(1);
        let fill = |values: Vec<u32>, with: u32| {
            let mut filled = Vec::with_capacity(length * self.lengths.len());
            let mut begin = 0;
            for row in &self.lengths {
                filled.extend(&values[begin..begin + row]);
                filled.extend(repeat_n(with, length - row));
                begin += row;
            }
            filled
        };
        let (tokens, token_types) = (fill(self.tokens, padding), fill(self.token_types, 0));
        TokenisedTexts { length, tokens, token_types, lengths: self.lengths, truncated: self.truncated }
    }
}

fn refuse(path: &Path, error: &tokenizers::Error) -> CheckpointError {
    CheckpointError::Tokeniser { path: path.into(), reason: error.to_string() }
}

impl TokenisedTexts {
    /// Sequences of tokens as they are, filled up with token 0.
    pub fn of_tokens(sequences: &[Vec<u32>]) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
        let length = lengths.iter().copied().max().unwrap_or(0).max(1);
        let mut tokens = vec![0; length * sequences.len()];
        for (row, sequence) in tokens.chunks_exact_mut(length).zip(sequences) {
            row[..sequence.len()].copy_from_slice(sequence);
        }
        Self { length, token_types: vec![0; tokens.len()], tokens, lengths, truncated: 0 }
    }

    /// Some of the rows, padded to the longest of them and on to the next multiple of eight, so that batches come in few
    /// lengths; `truncated` stays with the whole.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn rows(&self, indices: &[usize]) -> Self {
        let lengths: Vec<usize> = indices.iter().map(|at| self.lengths[*at]).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
        let length = longest.next_multiple_of(8).min(self.length);
        let pick = |values: &[u32]| -> Vec<u32> {
            indices.iter().flat_map(|at| &values[at * self.length..][..length]).copied().collect()
        };
        let (tokens, token_types) = (pick(&self.tokens), pick(&self.token_types));
        Self { length, tokens, token_types, lengths, truncated: 0 }
    }

    /// These rows, then others, filled up to the longest of all: with token 0, for padding is never looked at.
    pub fn followed_by(&self, others: &Self) -> Self {
        let length = self.length.max(others.length);
        let rows = |pick: fn(&Self) -> &[u32]| -> Vec<u32> {
            let row = |row: &[u32]| [row, &vec![0; length - row.len()]].concat();
            [self, others].iter().flat_map(|of| pick(of).chunks(of.length)).flat_map(row).collect()
        };
        Self {
            length,
            tokens: rows(|of| &of.tokens),
            token_types: rows(|of| &of.token_types),
            lengths: [&self.lengths[..], &others.lengths].concat(),
            truncated: self.truncated + others.truncated,
        }
    }

    /// All rows as one batch.
    pub fn batch(&self, device: &Device) -> TextBatch {
        let dims = [self.lengths.len(), self.length];
        let ints = |values: &[u32]| {
            let values: Vec<i32> = values.iter().map(|&value| value as i32).collect();
            Tensor::from_data(TensorData::new(values, dims), device)
        };
        let real = self.lengths.iter().flat_map(|&real| (0..self.length).map(move |at| f32::from(u8::from(at < real))));
        TextBatch {
            tokens: ints(&self.tokens),
            token_types: ints(&self.token_types),
            real: Tensor::from_data(TensorData::new(real.collect::<Vec<f32>>(), dims), device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 4] = ["the cat sat on the mat", "der Kater saß auf der Matte", "a cat, a mat", "Ein Kater!"];

    #[test]
    fn a_vocabulary_is_learnt_to_the_byte_whatever_the_order_of_the_texts() {
        let learnt = Tokeniser::learn(TEXTS.into_iter(), 300).unwrap().to_json();
        assert!((0..4).all(|_| Tokeniser::learn(TEXTS.into_iter(), 300).unwrap().to_json() == learnt));
        assert_eq!(Tokeniser::learn(TEXTS.into_iter().rev(), 300).unwrap().to_json(), learnt);
        let read = Tokeniser::new(learnt.as_bytes(), Path::new("tokenizer.json")).unwrap();
        assert_eq!(read.to_json(), learnt);
        assert!((260..=300).contains(&read.vocabulary()), "{}", read.vocabulary());
    }

    #[test]
    fn every_text_comes_back_and_ends_in_the_end() {
        let tokeniser = Tokeniser::learn(TEXTS.into_iter(), 300).unwrap();
        let texts = ["the cat", "Straße → 東京", "  two  spaces"];
        let found = tokeniser.encode(&texts.map(Text::One), 100, Tokeniser::PADDING).unwrap();
        for (text, (row, length)) in texts.iter().zip(found.tokens.chunks(found.length).zip(&found.lengths)) {
            assert_eq!(row[length - 1], Tokeniser::END);
            assert_eq!(tokeniser.decode(&row[..*length]).trim_start(), text.trim_start());
        }
        // " the" and " cat" occur twice or more, and are one token each.
        assert_eq!(found.lengths[0], 3);
    }

    #[test]
    fn the_names_of_special_tokens_are_text_where_texts_hold_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.tokenizer.json");
        let learnt = Tokeniser::learn(TEXTS.into_iter(), 300).unwrap();
        std::fs::write(&path, learnt.to_json()).unwrap();
        for tokeniser in [learnt, Tokeniser::load(&path).unwrap()] {
            let text = "a </s> b <pad>";
            let found = tokeniser.encode(&[Text::One(text)], 100, Tokeniser::PADDING).unwrap();
            let ends: Vec<usize> = (0..found.length).filter(|at| found.tokens[*at] <= Tokeniser::END).collect();
            assert_eq!(ends, [found.length - 1], "one end, and no padding: {:?}", found.tokens);
            assert_eq!(tokeniser.decode(&found.tokens).trim_start(), text);
        }
    }

    #[test]
    fn a_length_without_room_for_text_is_refused() {
        let tokeniser = Tokeniser::learn(TEXTS.into_iter(), 300).unwrap();
        let encode = |length| tokeniser.encode(&[Text::One("the cat")], length, Tokeniser::PADDING);
        // A pair has two ends.
        let refused = encode(2).unwrap_err().to_string();
        assert!(
            refused.starts_with("2 tokens leave no room for text beside 2 special ones: raise `length`"),
            "{refused}"
        );
        assert_eq!(encode(3).unwrap().lengths, [3]);
    }

    #[test]
    fn more_tokens_than_are_kept_are_refused_before_they_are_padded() {
        let tokeniser = Tokeniser::learn(TEXTS.into_iter(), 300).unwrap();
        let encodings = ["the cat", "the"].map(|text| tokeniser.tokenizer.encode(text, true).unwrap());
        // Three tokens and two, with their ends: six when both are as long as the longer one.
        let mut rows = Rows { most: 6, count: 2, ..Rows::default() };
        encodings.iter().for_each(|encoding| rows.push(encoding).unwrap());
        let padded = rows.padded(9);
        assert_eq!((padded.tokens.len(), &padded.lengths[..], padded.tokens[5]), (6, &[3, 2][..], 9));
        let refused = Rows { most: 5, count: 2, ..Rows::default() }.push(&encodings[0]).unwrap_err().to_string();
        assert!(refused.starts_with("2 texts of up to 3 tokens are more than 5 tokens with padding"), "{refused}");
    }
}
