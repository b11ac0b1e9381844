mod known_sets;

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{answer::Answer, arguments::DataCommand, error::CliError, table::text_table};

use known_sets::{KNOWN_SETS, KnownFile, KnownSet};

pub(crate) fn run(command: &DataCommand) -> Result<Answer, CliError> {
    match command {
        DataCommand::List { json } => Ok(list(*json)),
        DataCommand::Check { names, folder, json } => check(names, folder.as_deref(), *json),
    }
}

/// Of every set that can be named.
pub(crate) fn known_set_names() -> impl Iterator<Item = &'static str> {
    KNOWN_SETS.iter().map(|set| set.name)
}

fn list(json: bool) -> Answer {
    if json {
        return Answer::json("data list", &KNOWN_SETS);
    }
    let rows = KNOWN_SETS.iter().map(|set| {
        let size = format!("{:.1} MB", set.bytes() as f64 / 1e6);
        let size = if set.files.is_empty() { "-".into() } else { size };
        [set.name.into(), size, set.what.into(), set.folder.unwrap_or("-").into()]
    });
    let mut text = text_table(["set", "size", "what it holds", "folder"], rows) + "\n";
    for set in KNOWN_SETS {
        let licence = set.licence.map(|licence| format!("; licence: {licence}")).unwrap_or_default();
        text += &format!("\n{}: {}{licence}\n", set.name, set.package);
        text += &indented(set.command);
    }
    Answer::text(text + "\n`maskwright data check` says which of them have arrived\n")
}

/// How a set stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Every file is there with the bytes that it should have.
    Whole,
    /// Made when it is needed.
    Generated,
    /// A file is not there, and none is wrong.
    Missing,
    /// A file has other bytes.
    Wrong,
}

#[derive(Serialize)]
struct Checked {
    name: &'static str,
    folder: Option<PathBuf>,
    state: State,
    /// What is wrong, for each file that is not as it should be.
    faults: Vec<String>,
    #[serde(skip)]
    set: &'static KnownSet,
}

fn check(names: &[String], folder: Option<&Path>, json: bool) -> Result<Answer, CliError> {
    if folder.is_some() && names.len() > 1 {
        return Err(CliError::DataFolder { found: names.len() });
    }
    let wanted = |set: &&KnownSet| names.is_empty() || names.iter().any(|name| name == set.name);
    let checked: Vec<_> = KNOWN_SETS
        .iter()
        .filter(wanted)
        .map(|set| check_set(set, folder.or(set.folder.map(Path::new))))
        .collect::<Result<_, _>>()?;
    // Nobody has to have all sets; what is named is meant to be there.
    let fails = |of: &Checked| of.state == State::Wrong || of.state == State::Missing && !names.is_empty();
    let code = if checked.iter().any(fails) { 2 } else { 0 };
    let answer = match json {
        true => Answer::json("data check", &checked),
        false => Answer::text(checked.iter().map(told).collect::<String>()),
    };
    Ok(answer.with_code(code))
}

fn check_set(set: &'static KnownSet, folder: Option<&Path>) -> Result<Checked, CliError> {
    let (mut state, mut faults) = (State::Whole, Vec::new());
    if set.files.is_empty() {
        state = State::Generated;
    }
    for file in set.files {
        let path = folder.unwrap_or(Path::new("")).join(file.name);
        match fault(file, &path).map_err(|source| CliError::Read { path: path.clone(), source })? {
            None => continue,
            Some(Fault::Absent) => {
                state = if state == State::Wrong { state } else { State::Missing };
                faults.push(format!("no {}", path.display()));
            }
            Some(Fault::Other(text)) => {
                state = State::Wrong;
                faults.push(format!("{} {text}", path.display()));
            }
        }
    }
    let folder = folder.filter(|_| !set.files.is_empty()).map(Path::to_owned);
    Ok(Checked { name: set.name, folder, state, faults, set })
}

/// What is wrong with a file.
enum Fault {
    Absent,
    Other(String),
}

fn fault(known: &KnownFile, path: &Path) -> io::Result<Option<Fault>> {
    let mut file = match File::open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Some(Fault::Absent));
        }
        file => file?,
    };
    // A length is quicker than a digest, and says more.
    let found = file.metadata()?.len();
    if found != known.bytes {
        return Ok(Some(Fault::Other(format!("has {found} bytes, not {}", known.bytes))));
    }
    Ok(match sha256(&mut file)? {
        digest if digest == known.sha256 => None,
        digest => Some(Fault::Other(format!("has the SHA-256 {digest}, not {}", known.sha256))),
    })
}

fn sha256(file: &mut File) -> io::Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// How a set stands, for a person.
fn told(of: &Checked) -> String {
    let folder = of.folder.as_deref().unwrap_or(Path::new("")).display();
    let state = match of.state {
        State::Whole => return format!("ok       {}: {} files in {folder}\n", of.name, of.set.files.len()),
        State::Generated => return format!("ok       {}: generated, nothing to get\n", of.name),
        State::Missing => "missing",
        State::Wrong => "wrong  ",
    };
    let mut text: String = of.faults.iter().map(|fault| format!("{state}  {}: {fault}\n", of.name)).collect();
    text += match of.set.command {
        Some(_) => "         to get it:\n",
        None => "         it ships with the program: get the repository's folder again, or run in the repository\n",
    };
    text + &indented(of.set.command)
}

fn indented(command: Option<&str>) -> String {
    command.into_iter().flat_map(str::lines).map(|line| format!("    {line}\n")).collect()
}
