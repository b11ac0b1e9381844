//! Running the program in a folder of its own.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// A blueprint over 20 tokens: two heads in one module, blocks of 16 and of 8 tokens. One computes 336 of 400 scores, the
/// other 176.
pub(crate) const BLUEPRINT: &str = r#"(
  version: 1,
  model: (
    name: "tiny",
    digest: "sha256:00000000000000000000000000000000000000000000000000000000000000aa",
    modules: [
      (name: "block.0.attention", shape: (kind: SelfAttention, heads: 2, queries: 20, keys: 20, head_dim: 8)),
    ],
    linears: [(rows: 20, inputs: 16, outputs: 16, count: 4)],
    elementwise: 640,
  ),
  masks: [
    [
      (block_size: 16, blocks: ["1.", "41"]),
      (block_size: 8, blocks: ["2..", ".2.", "4.1"]),
    ],
  ],
  provenance: (origin: "hand"),
)
"#;

/// What is said of a dense model that does not do better than the commonest answer.
pub(crate) const NO_BETTER: &str = "no mask can cost it much, and drops will say little";

/// An empty folder to run the program in.
pub(crate) struct Folder(TempDir);

/// What the program left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with [`BLUEPRINT`] in it as `tiny.ron`.
    pub(crate) fn with_blueprint() -> Self {
        Self::new().with("tiny.ron", BLUEPRINT)
    }

    /// The same folder with one more file.
    pub(crate) fn with(self, name: &str, content: &str) -> Self {
        fs::write(self.path(name), content).unwrap();
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn run<const N: usize>(&self, arguments: [impl AsRef<OsStr>; N]) -> Finished {
        self.run_below("", arguments)
    }

    /// From a folder below this one.
    pub(crate) fn run_below<const N: usize>(&self, below: &str, arguments: [impl AsRef<OsStr>; N]) -> Finished {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maskwright"));
        let output: Output = command.args(arguments).current_dir(self.path(below)).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Names of the files and folders in it.
    pub(crate) fn entries(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Finished {
    /// Stdout of a command that did what it was asked to, without a word on stderr; but models that are not trained at all,
    /// with which tests are quick, may be called no better than guessing.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        let stderr: Vec<&str> = self.stderr.lines().filter(|line| !line.contains(NO_BETTER)).collect();
        assert_eq!((self.code, &stderr[..]), (Some(0), &[][..]), "{}", self.stdout);
        self.stdout
    }

    /// Stderr of a command that was refused, with nothing on stdout.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{}", self.stderr);
        self.stderr
    }

    /// The result in a JSON document, whose frame is checked.
    #[track_caller]
    pub(crate) fn result(self, command: &str) -> Value {
        let mut document: Value = serde_json::from_str(&self.good()).unwrap();
        assert_eq!(document["schema_version"], 1);
        assert_eq!(document["command"], command);
        document["result"].take()
    }
}

/// A file that lies beside these tests.
pub(crate) fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name)
}
