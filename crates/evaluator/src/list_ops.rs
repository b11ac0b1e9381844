use std::{collections::BTreeSet, fmt, str::FromStr};

use rand::{Rng, RngExt, SeedableRng, rngs::ChaCha12Rng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Examples, TaskData};

/// Operators of a token, behind the ten digits.
const OPERATORS: [&str; 4] = ["[MIN", "[MAX", "[MED", "[SM"];
const END: u8 = 14;

/// The symbol that follows the 15 of an expression.
const CLASS: u32 = 15;

/// Shape of the random trees, as Long Range Arena draws them.
const MOST_DEPTH: u32 = 10;
const MOST_ARGUMENTS: usize = 10;
const OPERATOR_SHARE: f64 = 0.25;

/// Trees drawn for each one wanted, before the lengths are given up.
const MOST_ATTEMPTS: u64 = 2000;

/// More tokens than this are not kept at once, 2 GiB: the published set has 200 million with padding.
const MOST_TOKENS: u64 = 1 << 28;

/// How many ListOps expressions (Nangia and Bowman 2018) are generated, and how long, by the rules of Long Range Arena
/// (Tay et al. 2021), whose lengths are 501 to 1999 and whose counts are 96000, 2000 and 2000.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListOps {
    /// Fewest and most tokens of an expression.
    pub shortest: u32,
    pub longest: u32,
    pub train: u32,
    pub validation: u32,
    pub test: u32,
    /// Of the generator: same numbers, same expressions.
    pub seed: u64,
}

/// Why ListOps data could not be generated, or an expression not evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListOpsError {
    #[error("{tokens} tokens of ListOps, more than {MOST_TOKENS} are kept at once: lower the counts or `longest`")]
    TooLarge { tokens: u64 },
    #[error(
        "only {found} of {wanted} different expressions of {shortest} to {longest} tokens were found: widen the lengths"
    )]
    TooFew { found: usize, wanted: u64, shortest: u32, longest: u32 },
    #[error("`{token}` is no token of ListOps: digits 0 to 9, [MIN, [MAX, [MED, [SM and ]")]
    Token { token: String },
    #[error("an expression has one value at its end, and each operator one or more arguments; not so at token {at}")]
    Form { at: usize },
}

/// A list operation in prefix form, such as `[MAX 2 9 [MIN 4 7 ] 0 ]`: digits are 0 to 9, then come MIN, MAX, MED (the
/// median, rounded down), SM (the sum modulo 10) and the closing bracket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expression(Vec<u8>);

impl ListOps {
    /// Expressions that all differ, behind a class token; the label is the value.
    ///
    /// The 16 symbols are those of [`Expression`], then the class token.
    pub fn generate(&self) -> Result<TaskData, ListOpsError> {
        let length = u64::from(self.longest) + 1;
        let wanted = u64::from(self.train) + u64::from(self.validation) + u64::from(self.test);
        if wanted.saturating_mul(length) > MOST_TOKENS {
            return Err(ListOpsError::TooLarge { tokens: wanted.saturating_mul(length) });
        }
        let mut generator = ChaCha12Rng::seed_from_u64(self.seed);
        let (mut seen, mut expressions) = (BTreeSet::new(), Vec::new());
        let mut attempts = wanted * MOST_ATTEMPTS;
        while (expressions.len() as u64) < wanted {
            if attempts == 0 {
                let (shortest, longest) = (self.shortest, self.longest);
                return Err(ListOpsError::TooFew { found: expressions.len(), wanted, shortest, longest });
            }
            attempts -= 1;
            let Some(expression) = Expression::draw(self.longest as usize, &mut generator) else { continue };
            if expression.0.len() >= self.shortest as usize && seen.insert(expression.clone()) {
                expressions.push(expression);
            }
        }
        let mut expressions = expressions.into_iter();
        let mut split = |count: u32| {
            let (mut sequences, mut labels) = (Vec::new(), Vec::new());
            for expression in expressions.by_ref().take(count as usize) {
                let symbols = expression.0.iter().map(|&token| u32::from(token));
                sequences.push(std::iter::once(CLASS).chain(symbols).collect());
                labels.push(u32::from(expression.value()));
            }
            Examples::sequences(&sequences, labels)
        };
        Ok(TaskData::new(split(self.train), split(self.validation), split(self.test)))
    }
}

impl Expression {
    /// Its value, 0 to 9.
    pub fn value(&self) -> u8 {
        evaluate(&self.0).expect("an expression is checked when it is made")
    }

    /// A random expression; `None` when it grows longer than `longest` tokens.
    fn draw(longest: usize, generator: &mut impl Rng) -> Option<Self> {
        let mut tokens = Vec::new();
        draw_tree(1, longest, generator, &mut tokens).then_some(Self(tokens))
    }
}

/// Adds a tree: a digit, or an operator with 2 to 10 trees below it. False as soon as there are too many tokens.
fn draw_tree(depth: u32, longest: usize, generator: &mut impl Rng, tokens: &mut Vec<u8>) -> bool {
    let operator = depth < MOST_DEPTH && generator.random::<f64>() <= OPERATOR_SHARE;
    if !operator {
        tokens.push(generator.random_range(0..10));
        return tokens.len() <= longest;
    }
    let arguments = generator.random_range(2..=MOST_ARGUMENTS);
    tokens.push(10 + generator.random_range(0..OPERATORS.len() as u8));
    let fits = (0..arguments).all(|_| draw_tree(depth + 1, longest, generator, tokens));
    tokens.push(END);
    fits && tokens.len() <= longest
}

/// The value, or the token at which this is no expression.
fn evaluate(tokens: &[u8]) -> Result<u8, usize> {
    let mut open: Vec<(u8, Vec<u8>)> = Vec::new();
    for (at, &token) in tokens.iter().enumerate() {
        let value = match token {
            0..=9 => token,
            END => {
                let (operator, arguments) = open.pop().ok_or(at)?;
                apply(operator, arguments).ok_or(at)?
            }
            operator => {
                open.push((operator, Vec::new()));
                continue;
            }
        };
        match open.last_mut() {
            Some((_, arguments)) => arguments.push(value),
            None if at + 1 == tokens.len() => return Ok(value),
            None => return Err(at + 1),
        }
    }
    Err(tokens.len())
}

/// `None` without arguments.
fn apply(operator: u8, mut arguments: Vec<u8>) -> Option<u8> {
    arguments.sort_unstable();
    let (least, most) = (*arguments.first()?, *arguments.last()?);
    Some(match operator {
        10 => least,
        11 => most,
        12 => (arguments[(arguments.len() - 1) / 2] + arguments[arguments.len() / 2]) / 2,
        _ => (arguments.iter().map(|&argument| u64::from(argument)).sum::<u64>() % 10) as u8,
    })
}

impl FromStr for Expression {
    type Err = ListOpsError;

    fn from_str(text: &str) -> Result<Self, ListOpsError> {
        let token = |token: &str| match (token, token.as_bytes()) {
            ("]", _) => Ok(END),
            (_, [digit @ b'0'..=b'9']) => Ok(digit - b'0'),
            _ => match OPERATORS.iter().position(|operator| *operator == token) {
                Some(operator) => Ok(10 + operator as u8),
                None => Err(ListOpsError::Token { token: token.chars().take(40).collect() }),
            },
        };
        let tokens: Vec<u8> = text.split_whitespace().map(token).collect::<Result<_, _>>()?;
        evaluate(&tokens).map_err(|at| ListOpsError::Form { at })?;
        Ok(Self(tokens))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, &token) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            match token {
                0..=9 => write!(out, "{space}{token}")?,
                END => write!(out, "{space}]")?,
                operator => write!(out, "{space}{}", OPERATORS[usize::from(operator - 10)])?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<u8, ListOpsError> {
        text.parse().map(|expression: Expression| expression.value())
    }

    #[test]
    fn expressions_have_the_values_of_their_definition() {
        assert_eq!(value("[MAX 2 9 [MIN 4 7 ] 0 ]"), Ok(9));
        assert_eq!(value("[MED 1 9 4 ]"), Ok(4));
        assert_eq!(value("[MED 1 9 4 7 ]"), Ok(5)); // 5.5, rounded down
        assert_eq!(value("[SM 7 8 [MED 9 9 ] ]"), Ok(4));
        assert_eq!(value("3"), Ok(3));
        let text = "[SM 7 8 [MED 9 9 ] ]";
        assert_eq!(text.parse::<Expression>().unwrap().to_string(), text);
    }

    #[test]
    fn what_is_no_expression_is_refused_where_it_goes_wrong() {
        for (text, at) in [("", 0), ("1 2", 1), ("[MIN 1 2", 3), ("[MIN ]", 1), ("]", 0), ("[MIN 1 ] ]", 3)] {
            assert_eq!(value(text), Err(ListOpsError::Form { at }), "{text}");
        }
        assert_eq!(value("[MIN 1 x ]"), Err(ListOpsError::Token { token: "x".into() }));
    }

    #[test]
    fn trees_have_the_published_shape() {
        let mut generator = ChaCha12Rng::seed_from_u64(1);
        let draws: Vec<_> = (0..4000).map(|_| Expression::draw(2000, &mut generator)).collect();
        let digits = draws.iter().flatten().filter(|expression| expression.0.len() == 1).count();
        assert!((2880..=3120).contains(&digits), "{digits} of 4000 are a digit: 3000 +- 4 standard deviations");
        assert!(draws.iter().flatten().all(|expression| evaluate(&expression.0).is_ok()));
    }

    #[test]
    fn lengths_that_no_expression_has_end() {
        // An operator, two arguments and a bracket are the shortest tree that is no digit.
        let task = ListOps { shortest: 2, longest: 3, train: 1, validation: 0, test: 0, seed: 1 };
        assert_eq!(
            task.generate().unwrap_err().to_string(),
            "only 0 of 1 different expressions of 2 to 3 tokens were found: widen the lengths"
        );
        let task = ListOps { shortest: 2, longest: u32::MAX, ..task };
        assert_eq!(task.generate().unwrap_err(), ListOpsError::TooLarge { tokens: 1 << 32 });
    }
}
