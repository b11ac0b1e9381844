//! Errors as people see them: what is wrong, the place in the file, the way out. All on stderr.

use std::{
    env,
    error::Error,
    fmt,
    io::{self, IsTerminal},
    ops::Range,
};

use maskwright_blueprint::RonError;
use maskwright_cost_model::CostError;
use maskwright_search::{ConfigError, SearchError};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use tracing_subscriber::{EnvFilter, fmt::time::uptime};

use crate::error::CliError;

/// Widest line of an error.
const WIDTH: usize = 100;

/// Where configurations that ship look for sets and weights that do not.
const DOWNLOADS: &str = "downloads/";

/// Where Debian's packages put sets.
const DEBIAN: &str = "/usr/share/datasets/";

const WAY_TO_SETS: &str =
    "`maskwright data list` says how to get what belongs there, `maskwright data check` whether it arrived whole";

/// Sends the libraries' narration to stderr: nothing, `-v` what happens, `-vv` every detail.
pub(crate) fn narrate(verbose: u8) {
    let filter = match verbose {
        0 => "warn",
        1 => "warn,maskwright=info,maskwright_search=info,maskwright_evaluator=info",
        _ => "info,maskwright=debug,maskwright_search=debug,maskwright_evaluator=debug",
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_timer(uptime())
        .init();
}

/// Prints an error to stderr.
#[expect(clippy::print_stderr, reason = "errors go to stderr, and this is the one place that puts them there")]
pub(crate) fn print(error: &CliError) {
    match error {
        CliError::Interrupted { .. } => eprintln!("{error}"),
        _ => eprint!("{}", drawn(error, io::stderr().is_terminal())),
    }
}

/// The error with its causes; where one of them has a place in a file, that place.
fn drawn(error: &(dyn Error + 'static), terminal: bool) -> String {
    let theme = match terminal {
        true => GraphicalTheme::default(),
        false => GraphicalTheme::unicode_nocolor(),
    };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(WIDTH).with_links(false);
    let mut text = String::new();
    let diagnosis = Diagnosis::of(error);
    match handler.render_report(&mut text, &diagnosis) {
        Ok(()) => text,
        Err(fmt::Error) => format!("error: {}\n", diagnosis.message),
    }
}

/// An error in the form that miette draws.
#[derive(Debug)]
struct Diagnosis {
    message: String,
    cause: Option<Box<Diagnosis>>,
    help: Option<String>,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    source: NamedSource<String>,
    label: LabeledSpan,
}

impl Diagnosis {
    fn of(error: &(dyn Error + 'static)) -> Self {
        match syntax_error(error) {
            Some(syntax) => syntax,
            None => Self {
                message: error.to_string(),
                cause: error.source().map(|cause| Box::new(Self::of(cause))),
                help: help(error),
                place: None,
            },
        }
    }
}

/// The way out of errors that do not say it themselves.
fn help(error: &(dyn Error + 'static)) -> Option<String> {
    if [DOWNLOADS, DEBIAN].iter().any(|place| error.to_string().contains(place)) {
        return Some(WAY_TO_SETS.into());
    }
    // Said once, of the error that names the file.
    let cause = error.source()?.downcast_ref::<io::Error>()?;
    let relative = !error.to_string().starts_with('/');
    let folder = env::current_dir().ok().filter(|_| relative && cause.kind() == io::ErrorKind::NotFound)?;
    Some(format!("paths begin at the folder that the command runs in, {}", folder.display()))
}

/// The way out where a profile that another version calibrated is not understood.
fn calibrate_anew(text: &str) -> Option<String> {
    let calibrated = text.lines().any(|line| line.starts_with("  calibrated: Some("));
    calibrated.then(|| {
        "a calibrated profile is read by the version that wrote it: `maskwright device calibrate` writes one anew"
            .into()
    })
}

/// The syntax error that this error is or only wraps.
fn syntax_error(error: &(dyn Error + 'static)) -> Option<Diagnosis> {
    let mut at = Some(error);
    while let Some(cause) = at {
        if let Some(RonError::Syntax { path, text: source_text, at, column, message, help, .. }) = ron_error(cause) {
            let (here, text, at) = match excerpt(source_text, at.clone()) {
                Some((text, at)) => (format!("here, at column {column}"), text, at),
                None => ("here".into(), source_text.to_string(), at.clone()),
            };
            let label = LabeledSpan::new(Some(here), at.start, at.len());
            let source = NamedSource::new(path.display().to_string(), text);
            let place = Some(Place { source, label });
            let help: Vec<String> = help.iter().cloned().chain(calibrate_anew(source_text)).collect();
            let help = (!help.is_empty()).then(|| help.join("\n"));
            return Some(Diagnosis { message: message.to_string(), cause: None, help, place });
        }
        at = cause.source();
    }
    None
}

/// Of a text with a line that no terminal shows: what stands around the place, on its line's number, between ellipses.
fn excerpt(text: &str, at: Range<usize>) -> Option<(String, Range<usize>)> {
    const LONGEST: usize = 4 * WIDTH;
    const AROUND: usize = WIDTH / 4;
    if text.lines().all(|line| line.len() <= LONGEST) {
        return None;
    }
    let start = at.start.min(text.len());
    let line = text[..start].rfind('\n').map_or(0, |end| end + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |end| start + end);
    let begin = text.ceil_char_boundary(start.saturating_sub(AROUND).max(line));
    let end = text.floor_char_boundary((at.end.min(start + AROUND) + AROUND).min(line_end)).max(start);
    let ellipsis = |is_cut: bool| if is_cut { "…" } else { "" };
    let before = "\n".repeat(text[..line].matches('\n').count()) + ellipsis(begin > line);
    let label = before.len() + start - begin;
    let label = label..label + at.len().min(end - start);
    Some((before + &text[begin..end] + ellipsis(end < line_end), label))
}

/// A transparent variant stands for the error in it, which is then missing in the chain of sources.
fn ron_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a RonError> {
    match error.downcast_ref::<CliError>() {
        Some(
            CliError::Ron(ron) | CliError::Config(ConfigError::Ron(ron)) | CliError::Cost(CostError::Profile(ron)),
        ) => Some(ron),
        Some(CliError::Search(search)) => match search {
            SearchError::Ron(ron)
            | SearchError::Config(ConfigError::Ron(ron))
            | SearchError::Cost(CostError::Profile(ron)) => Some(ron),
            _ => None,
        },
        _ => error.downcast_ref(),
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Diagnosis {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl Diagnostic for Diagnosis {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_ref().map(|place| &place.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.place.as_ref().map(|place| Box::new(std::iter::once(place.label.clone())) as Box<_>)
    }
}
