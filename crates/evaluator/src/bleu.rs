use std::collections::HashMap;

/// Longest n-grams that count.
const ORDER: usize = 4;

/// How well a set of translations matches its references (Papineni et al. 2002), as sacrebleu 2 computes it by default:
/// signature `case:mixed|eff:no|tok:13a|smooth:exp` (and `nrefs` as many as were given).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bleu {
    /// In points from 0 to 100, as sacrebleu and every table of results have it.
    pub score: f64,
    /// Share of n-grams of 1 to 4 tokens that a reference has, in points from 0 to 100, after smoothing.
    pub precisions: [f64; ORDER],
    /// Factor in [0, 1] by which translations shorter than their references lower the score.
    pub brevity_penalty: f64,
    /// Tokens of all translations.
    pub translation_tokens: u64,
    /// Tokens of all references; of several for one translation, those of the one whose length is closest.
    pub reference_tokens: u64,
}

impl Bleu {
    /// Of translations, each with one or more references.
    ///
    /// ```
    /// use maskwright_evaluator::Bleu;
    ///
    /// let bleu = Bleu::of([("the cat sat on a mat", ["the cat sat on the mat"])]);
    /// assert_eq!(bleu.precisions[0], 100.0 * 5.0 / 6.0);
    /// ```
    ///
    /// # Panics
    /// When a translation has no reference.
    pub fn of<'a, R: AsRef<[&'a str]>>(translations: impl IntoIterator<Item = (&'a str, R)>) -> Self {
        let (mut matched, mut total) = ([0_u64; ORDER], [0_u64; ORDER]);
        let (mut translation_tokens, mut reference_tokens) = (0, 0);
        for (translation, references) in translations {
            let tokens = tokenise(translation);
            let references: Vec<Vec<String>> = references.as_ref().iter().map(|text| tokenise(text)).collect();
            let lengths = references.iter().map(Vec::len);
            let closest = lengths.min_by_key(|&length| (length.abs_diff(tokens.len()), length));
            translation_tokens += tokens.len() as u64;
            reference_tokens += closest.expect("a translation has one or more references") as u64;
            for n in 1..=ORDER {
                let mut allowed: HashMap<&[String], u64> = HashMap::new();
                for reference in &references {
                    for (ngram, count) in count(reference, n) {
                        let most = allowed.entry(ngram).or_default();
                        *most = count.max(*most);
                    }
                }
                for (ngram, count) in count(&tokens, n) {
                    total[n - 1] += count;
                    matched[n - 1] += count.min(allowed.get(ngram).copied().unwrap_or(0));
                }
            }
        }
        Self::from_counts(matched, total, translation_tokens, reference_tokens)
    }

    /// An order without any match is smoothed: the k-th such counts `1 / 2^k` matches (Chen and Cherry 2014, method 3).
    fn from_counts(matched: [u64; ORDER], total: [u64; ORDER], translation_tokens: u64, reference_tokens: u64) -> Self {
        let brevity_penalty = match translation_tokens {
            0 if reference_tokens > 0 => 0.0,
            shorter if shorter < reference_tokens => (1.0 - reference_tokens as f64 / shorter as f64).exp(),
            _ => 1.0,
        };
        let mut precisions = [0.0; ORDER];
        if matched.iter().any(|&count| count > 0) {
            let mut smoothing = 1.0;
            for n in (0..ORDER).take_while(|&n| total[n] > 0) {
                precisions[n] = match matched[n] {
                    0 => {
                        smoothing *= 2.0;
                        100.0 / (smoothing * total[n] as f64)
                    }
                    count => 100.0 * count as f64 / total[n] as f64,
                };
            }
        }
        // The geometric mean of four precisions is 0 as soon as one is.
        let mean = (precisions.iter().map(|precision: &f64| precision.ln()).sum::<f64>() / ORDER as f64).exp();
        Self { score: brevity_penalty * mean, precisions, brevity_penalty, translation_tokens, reference_tokens }
    }
}

/// How often each n-gram occurs.
fn count<T: Eq + std::hash::Hash>(tokens: &[T], n: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    for ngram in tokens.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// The tokens of mteval-v13a, the script of the WMT shared tasks: punctuation stands alone, but for periods and commas
/// within numbers, apostrophes, and hyphens that follow no digit.
fn tokenise(text: &str) -> Vec<String> {
    let text = text.trim_end_matches(is_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    let text = text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    let mut line = String::from(" ");
    for one in text.chars() {
        match one {
            '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/' => line.extend([' ', one, ' ']),
            _ => line.push(one),
        }
    }
    line.push(' ');
    let stop = |one| matches!(one, '.' | ',');
    let digit = |one: char| one.is_ascii_digit();
    let line = replace_pairs(&line, |a, b| !digit(a) && stop(b), |a, b| [a, ' ', b, ' ']);
    let line = replace_pairs(&line, |a, b| stop(a) && !digit(b), |a, b| [' ', a, ' ', b]);
    let line = replace_pairs(&line, |a, b| digit(a) && b == '-', |a, b| [a, ' ', b, ' ']);
    line.split(is_space).filter(|token| !token.is_empty()).map(str::to_owned).collect()
}

/// Replaces pairs of neighbours from the left, none of which overlap.
fn replace_pairs(line: &str, wanted: impl Fn(char, char) -> bool, by: impl Fn(char, char) -> [char; 4]) -> String {
    let mut replaced = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(first) = chars.next() {
        match chars.next_if(|&second| wanted(first, second)) {
            Some(second) => replaced.extend(by(first, second)),
            None => replaced.push(first),
        }
    }
    replaced
}

/// What separates words for Python, which counts four control characters that Unicode does not.
pub(crate) fn is_space(one: char) -> bool {
    one.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&one)
}
