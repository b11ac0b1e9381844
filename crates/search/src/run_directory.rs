use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use maskwright_blueprint::{Digest, PART, read_ron, read_whole, to_ron, write_whole};
use maskwright_transformer::Backend;
use serde::{Deserialize, Serialize};

use crate::{EpisodeRecord, SearchConfig, SearchError, StopReason, trial::BATCH};

/// Larger files of a run are refused unread: a million evaluations of each of five searchers take some 2 GB.
pub const MOST_RUN_FILE_BYTES: u64 = 4 << 30;

/// One run's folder, held by one process at a time.
///
/// `episodes.jsonl` is the checkpoint: a search is a function of its configuration and of what it was told, so telling it
/// the recorded evaluations again brings it back to where it was. `checkpoint/head.ron` says how much of the file is
/// whole and what it belongs to.
pub(crate) struct RunDirectory {
    path: PathBuf,
    /// Held open: the lock lasts as long as the process.
    _lock: File,
    config: Digest,
    /// Lines that were there when the run was opened, not yet followed.
    recorded: std::vec::IntoIter<EpisodeRecord>,
    /// Digests of dense model, examples and device profile.
    origin: Option<(Digest, Digest, Digest)>,
    written: Written,
    started: Instant,
}

/// How much of `episodes.jsonl` is whole: its bytes, and a digest that each line is chained onto, so that a new line
/// costs the same however long the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    bytes: u64,
    digest: Digest,
}

impl Written {
    fn nothing() -> Self {
        Self { bytes: 0, digest: Digest::of::<&[u8]>([]) }
    }

    /// With one more line, its line feed included.
    fn with(self, line: &[u8]) -> Self {
        Self { bytes: self.bytes + line.len() as u64, digest: Digest::of([self.digest.to_string().as_bytes(), line]) }
    }
}

/// Rises when the same masks come to have other scores, if only in their last bits (`docs/decisions/514`).
const HEAD_VERSION: u32 = 2;

/// What of a run is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u32,
    /// Of what the lines follow from: configuration, dense model, all examples, device profile.
    config: Digest,
    model: Digest,
    data: Digest,
    device: Digest,
    episodes: Written,
}

/// Enough to repeat a run, and when it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub tool: String,
    pub config_name: String,
    pub config: Digest,
    /// What computed the models.
    #[serde(default)]
    pub backend: Backend,
    pub seed: u64,
    pub model: Option<Digest>,
    pub data: Option<Digest>,
    pub device: Option<Digest>,
    pub started: String,
    pub stopped: Option<String>,
    pub stop_reason: Option<StopReason>,
}

impl RunDirectory {
    /// A new folder `<time>_<config>_<hash4>` below `runs`.
    pub(crate) fn create(runs: &Path, name: &str, config: &SearchConfig) -> Result<Self, SearchError> {
        let stem = Path::new(name).file_stem().map_or("search".into(), |stem| stem.to_string_lossy().into_owned());
        let stem = stem.split('.').next().unwrap_or("search").to_owned();
        let unwritable = |source| SearchError::Runs { path: runs.into(), source };
        fs::create_dir_all(runs).map_err(unwritable)?;
        let digest = config_digest(config);
        let base = format!("{}_{stem}_{}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"), &digest.short()[..4]);
        let mut number = 1;
        let path = loop {
            let path = runs.join(if number == 1 { base.clone() } else { format!("{base}-{number}") });
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
                Err(source) => return Err(unwritable(source)),
            }
        };
        let run = Self::locked(path, digest)?;
        for folder in ["checkpoint", "best", "rows"] {
            fs::create_dir(run.path.join(folder)).map_err(io_error(&run.path))?;
        }
        run.write("episodes.jsonl", b"")?;
        run.write("config.ron", to_ron(config).as_bytes())?;
        run.write_manifest(&Manifest {
            tool: tool(),
            config_name: name.into(),
            config: digest,
            backend: config.backend,
            seed: config.seed,
            model: None,
            data: None,
            device: None,
            started: now(),
            stopped: None,
            stop_reason: None,
        })?;
        Ok(run)
    }

    /// An earlier run's folder, cut back to what its checkpoint says is whole.
    pub(crate) fn open(path: &Path, config: &SearchConfig) -> Result<Self, SearchError> {
        let not_a_run = |missing| SearchError::NotARun { run: path.into(), missing };
        for missing in ["config.ron", "manifest.ron", "episodes.jsonl"] {
            if !path.join(missing).is_file() {
                return Err(not_a_run(missing));
            }
        }
        let was: SearchConfig = read_ron(&path.join("config.ron"))?;
        let (was, now) = (config_digest(&was), config_digest(config));
        if was != now {
            return Err(SearchError::ChangedConfig { run: path.into(), was: was.short(), now: now.short() });
        }
        let mut run = Self::locked(path.into(), now)?;
        run.remove_parts()?;
        let refuse = |why: String| SearchError::Checkpoint { run: path.into(), why };
        let file = path.join("episodes.jsonl");
        let mut lines = read_whole(&file, MOST_RUN_FILE_BYTES).map_err(io_error(&file))?;
        let head_path = path.join("checkpoint/head.ron");
        if !head_path.exists() {
            // A line is written before the head that counts it; more than the first batch without a head is no such case.
            if lines.iter().filter(|byte| **byte == b'\n').count() > BATCH {
                return Err(refuse("checkpoint/head.ron is missing".into()));
            }
            run.write("episodes.jsonl", b"")?;
            return Ok(run);
        }
        let head: Head = read_ron(&head_path).map_err(|error| refuse(error.to_string()))?;
        if head.version != HEAD_VERSION {
            let version = head.version;
            return Err(refuse(format!(
                "another version of maskwright began it ({version}, this one is {HEAD_VERSION})"
            )));
        }
        if head.config != now {
            return Err(refuse("it belongs to another configuration".into()));
        }
        let whole = head.episodes;
        if (lines.len() as u64) < whole.bytes {
            return Err(refuse(format!("episodes.jsonl has {} bytes, it should have {}", lines.len(), whole.bytes)));
        }
        lines.truncate(whole.bytes as usize);
        if lines.split_inclusive(|byte| *byte == b'\n').fold(Written::nothing(), Written::with) != whole {
            return Err(refuse("episodes.jsonl is not the file that it was made with".into()));
        }
        let records: Result<Vec<EpisodeRecord>, _> =
            lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice).collect();
        run.recorded = records.map_err(|error| refuse(format!("episodes.jsonl: {error}")))?.into_iter();
        run.write("episodes.jsonl", &lines)?;
        run.written = whole;
        Ok(run)
    }

    fn locked(path: PathBuf, config: Digest) -> Result<Self, SearchError> {
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(io_error(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SearchError::Locked { run: path }),
            Err(TryLockError::Error(source)) => return Err(SearchError::Io { path: lock_path, source }),
        }
        Ok(Self {
            path,
            _lock: lock,
            config,
            recorded: Vec::new().into_iter(),
            origin: None,
            written: Written::nothing(),
            started: Instant::now(),
        })
    }

    /// Removes what a killed process left half written.
    fn remove_parts(&self) -> Result<(), SearchError> {
        for folder in [self.path.clone(), self.path.join("checkpoint"), self.path.join("best"), self.path.join("rows")]
        {
            for entry in fs::read_dir(&folder).map_err(io_error(&folder))? {
                let path = entry.map_err(io_error(&folder))?.path();
                if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PART)) {
                    fs::remove_file(&path).map_err(io_error(&path))?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next line that an earlier process recorded, if this one still follows it.
    pub(crate) fn next_recorded(&mut self) -> Option<EpisodeRecord> {
        self.recorded.next()
    }

    /// How many recorded lines are still to be followed.
    pub(crate) fn left_to_follow(&self) -> usize {
        self.recorded.len()
    }

    /// Adds lines and makes them the checkpoint.
    ///
    /// # Panics
    /// Before [`RunDirectory::follows`].
    pub(crate) fn record(&mut self, records: &[EpisodeRecord]) -> Result<(), SearchError> {
        let (model, data, device) = self.origin.expect("a run says what it follows from before it records");
        let mut lines = Vec::new();
        let mut written = self.written;
        for record in records {
            let begin = lines.len();
            serde_json::to_writer(&mut lines, record).expect("a record is plain data");
            lines.push(b'\n');
            written = written.with(&lines[begin..]);
        }
        let path = self.path.join("episodes.jsonl");
        let append = |path: &Path, bytes: &[u8]| -> io::Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(bytes)?;
            file.sync_data()
        };
        append(&path, &lines).map_err(io_error(&path))?;
        self.written = written;
        let seconds = self.started.elapsed().as_secs_f64();
        let times: String = records
            .iter()
            .map(|r| {
                format!("{{\"searcher\":\"{}\",\"episode\":{},\"seconds\":{seconds:.3}}}\n", r.searcher, r.episode)
            })
            .collect();
        let times_path = self.path.join("times.jsonl");
        append(&times_path, times.as_bytes()).map_err(io_error(&times_path))?;
        let head = Head { version: HEAD_VERSION, config: self.config, model, data, device, episodes: written };
        self.write("checkpoint/head.ron", to_ron(&head).as_bytes())
    }

    /// Says what the lines follow from, and refuses a checkpoint that follows from something else.
    pub(crate) fn follows(&mut self, model: Digest, data: Digest, device: Digest) -> Result<(), SearchError> {
        self.origin = Some((model, data, device));
        let path = self.path.join("checkpoint/head.ron");
        if !path.exists() {
            return Ok(());
        }
        let refuse = |why: String| SearchError::Checkpoint { run: self.path.clone(), why };
        let head: Head = read_ron(&path).map_err(|error| refuse(error.to_string()))?;
        let pairs = [("dense model", head.model, model), ("data", head.data, data), ("device", head.device, device)];
        match pairs.into_iter().find(|(_, was, now)| was != now) {
            None => Ok(()),
            Some((what, was, now)) => {
                Err(refuse(format!("it was made with {what} {}, this one is {}", was.short(), now.short())))
            }
        }
    }

    /// Writes a file of the run whole.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SearchError> {
        let path = self.path.join(name);
        write_whole(&path, bytes).map_err(io_error(&path))
    }

    pub(crate) fn manifest(&self) -> Result<Manifest, SearchError> {
        Ok(read_ron(&self.path.join("manifest.ron"))?)
    }

    pub(crate) fn write_manifest(&self, manifest: &Manifest) -> Result<(), SearchError> {
        self.write("manifest.ron", to_ron(manifest).as_bytes())
    }
}

/// Program and version, as blueprints and manifests name it.
pub(crate) fn tool() -> String {
    format!("maskwright {}", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) fn config_digest(config: &SearchConfig) -> Digest {
    Digest::of([to_ron(config)])
}

pub(crate) fn io_error(path: &Path) -> impl Fn(io::Error) -> SearchError + use<> {
    let path = path.to_path_buf();
    move |source| SearchError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_record_of_more_than_4_gib_is_refused_unread() {
        let folder = tempfile::tempdir().unwrap();
        let config = SearchConfig::default();
        let run = RunDirectory::create(folder.path(), "x.ron", &config).unwrap();
        let path = run.path().to_path_buf();
        drop(run);
        assert!(RunDirectory::open(&path, &config).is_ok());
        let episodes = OpenOptions::new().write(true).open(path.join("episodes.jsonl")).unwrap();
        episodes.set_len(MOST_RUN_FILE_BYTES + 1).unwrap(); // sparse: takes no room
        let Err(error) = RunDirectory::open(&path, &config) else { panic!("it was read") };
        let cause = error.source().unwrap().to_string();
        assert_eq!(cause, "it holds more than 4294967296 bytes, too much for such a file");
    }
}
