//! What to type next: this program, called as it was, and words that survive the shell.

use crate::arguments::Overrides;

/// How this program was called, for commands to type next.
pub(super) fn program() -> String {
    let called = std::env::args().next().filter(|called| !called.is_empty());
    quoted(&called.unwrap_or_else(|| "maskwright".into()))
}

/// What was put into a configuration, as arguments that put it there again, each with a space before.
pub(super) fn sets(overrides: &Overrides) -> String {
    let set = |(path, value): (String, String)| format!(" --set {}", quoted(&format!("{path}={value}")));
    overrides.pairs().into_iter().map(set).collect()
}

/// As a POSIX shell reads it back.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=@,:+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_the_shell() {
        assert_eq!(quoted("runs/a-1"), "runs/a-1");
        assert_eq!(quoted("tolerance=Absolute(0.01)"), "'tolerance=Absolute(0.01)'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
