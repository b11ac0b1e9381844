//! A value as RON writes it, as JSON: `Write(start: Cold)` as `{"Write": {"start": "Cold"}}`, which is how serde names variants.
//! `ron::Value` forgets their names.

use std::path::Path;

use maskwright_blueprint::parse_ron;
use serde_json::Value;

/// Of values within values.
const DEEPEST: usize = 32;

/// None where the text is no RON, or is more than one value.
pub(crate) fn ron_as_json(text: &str) -> Option<Value> {
    let mut rest = Rest(text);
    let value = rest.value(DEEPEST)?;
    rest.skip_blanks();
    rest.0.is_empty().then_some(value)
}

/// What of the text is still to be read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn takes(&mut self, symbol: char) -> bool {
        self.skip_blanks();
        let rest = self.0.strip_prefix(symbol);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn word(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        self.skip_blanks();
        let (word, rest) = self.0.split_at(self.0.find(|c| !is_part(c)).unwrap_or(self.0.len()));
        self.0 = rest;
        word
    }

    fn name(&mut self) -> &'a str {
        self.word(|c| c.is_alphanumeric() || c == '_')
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        self.skip_blanks();
        match self.0.chars().next()? {
            '"' => self.string(),
            '(' => self.parts(depth),
            '[' => {
                self.takes('[');
                self.values(']', depth).map(Value::Array)
            }
            c if c.is_ascii_digit() || "+-.".contains(c) => {
                let number = self.word(|c| c.is_ascii_alphanumeric() || "+-._".contains(c)).replace('_', "");
                let exact = serde_json::from_str(&number).ok().filter(Value::is_number);
                exact.or_else(|| serde_json::Number::from_f64(number.parse().ok()?).map(Value::Number)) // `.5`
            }
            _ => self.named(depth),
        }
    }

    fn string(&mut self) -> Option<Value> {
        let mut escaped = false;
        let ends = |(_, c): &(usize, char)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        };
        let (end, _) = self.0.char_indices().skip(1).find(ends)?;
        let (quoted, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        parse_ron(quoted, Path::new("")).ok().map(Value::String)
    }

    /// `true`, `None`, `Some(3)`, a unit variant, or a variant with what it holds.
    fn named(&mut self, depth: usize) -> Option<Value> {
        let name = self.name();
        self.skip_blanks();
        match (name, self.0.starts_with('(')) {
            ("", _) => None,
            ("true" | "false", false) => Some(Value::Bool(name == "true")),
            ("None", false) => Some(Value::Null),
            ("Some", true) => self.parts(depth),
            (_, true) => Some(Value::Object([(name.to_owned(), self.parts(depth)?)].into_iter().collect())),
            (_, false) => Some(Value::String(name.to_owned())),
        }
    }

    /// In parentheses: fields with names, or one value, or several.
    fn parts(&mut self, depth: usize) -> Option<Value> {
        self.takes('(');
        let before = self.0;
        let has_names = !self.name().is_empty() && self.takes(':');
        self.0 = before;
        if !has_names {
            let mut values = self.values(')', depth)?;
            return Some(if values.len() == 1 { values.remove(0) } else { Value::Array(values) });
        }
        let mut fields = serde_json::Map::new();
        while !self.takes(')') {
            let name = self.name().to_owned();
            let value = if self.takes(':') { self.value(depth)? } else { return None };
            if fields.insert(name, value).is_some() || !self.ends_part(')') {
                return None;
            }
        }
        Some(Value::Object(fields))
    }

    fn values(&mut self, end: char, depth: usize) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        while !self.takes(end) {
            values.push(self.value(depth)?);
            if !self.ends_part(end) {
                return None;
            }
        }
        Some(values)
    }

    /// Whether a comma comes next, or the end, which is left.
    fn ends_part(&mut self, end: char) -> bool {
        self.takes(',') || self.0.starts_with(end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_what_serde_would_write_as_json() {
        for (ron, value) in [
            ("7", json!(7)),
            ("-.5", json!(-0.5)),
            ("1_000", json!(1000)),
            ("5e-5", json!(5e-5)),
            (r#""a \"b\", (c)""#, json!("a \"b\", (c)")),
            (r#""Bob\'s \\ \u{301}""#, json!("Bob's \\ \u{301}")),
            ("true", json!(true)),
            ("None", json!(null)),
            ("Some(3)", json!(3)),
            ("Random", json!("Random")),
            ("[Random, Fixed,]", json!(["Random", "Fixed"])),
            ("[]", json!([])),
            ("Density( 0.25 )", json!({"Density": 0.25})),
            ("(epochs: 1, clip: 2.0,)", json!({"epochs": 1, "clip": 2.0})),
            ("(1, 2)", json!([1, 2])),
            (
                r#"Table(path: "t.tsv", label: Names(["a", "b"]))"#,
                json!({"Table": {"path": "t.tsv", "label": {"Names": ["a", "b"]}}}),
            ),
        ] {
            assert_eq!(ron_as_json(ron), Some(value), "{ron}");
        }
    }

    #[test]
    fn other_texts_are_no_values() {
        let deep = "(".repeat(100_000);
        for text in ["", "a/b", "7B", "(a: 1", "[1 2]", "(a: 1, a: 2)", "A(x: )", "\"open", "1 2", "NaN(", &deep] {
            assert_eq!(ron_as_json(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "(\\PC|[A-Za-z0-9_.,:()\\[\\]\"\\\\+ -]){0,40}") {
            ron_as_json(&text);
        }
    }
}
