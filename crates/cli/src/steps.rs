use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows equal steps of one job on stderr while it runs, and nothing where stderr is no terminal.
pub(crate) struct Steps(ProgressBar);

impl Steps {
    pub(crate) fn new(title: &str, total: u64) -> Self {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_prefix(title.to_owned());
        Self(bar.with_style(style()))
    }

    /// One step more is done; `note` says what is next.
    pub(crate) fn advance(&self, note: &str) {
        self.0.set_message(note.to_owned());
        self.0.inc(1);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar with its title, its count and its time.
pub(crate) fn style() -> ProgressStyle {
    let style =
        ProgressStyle::with_template("{prefix:<24} {bar:28.cyan/dim} {pos:>6}/{len:<6} {elapsed:>4}  {wide_msg}");
    style.expect("the template is well formed").progress_chars("━━─")
}
