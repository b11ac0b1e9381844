use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Blueprint, write_whole};

/// A folder of blueprints: `<model>/<task>/<device>/<density>-<hash8>.ron`.
pub struct MaskLibrary {
    root: PathBuf,
}

impl MaskLibrary {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where `blueprint` belongs; the names come from its model and provenance.
    pub fn place(&self, blueprint: &Blueprint) -> PathBuf {
        let provenance = &blueprint.provenance;
        let task = provenance.task.as_deref().unwrap_or("any-task");
        let device = provenance.predicted.as_ref().map_or("any-device", |predicted| &predicted.device);
        let name = format!("{:.3}-{}.ron", blueprint.density(), blueprint.digest().short());
        self.root.join(file_name(&blueprint.model().name)).join(file_name(task)).join(file_name(device)).join(name)
    }

    /// Stores a blueprint whole and says where.
    pub fn store(&self, blueprint: &Blueprint) -> io::Result<PathBuf> {
        let path = self.place(blueprint);
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        write_whole(&path, blueprint.to_ron().as_bytes())?;
        Ok(path)
    }

    /// Every blueprint file, in order of its path.
    pub fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        collect(&self.root, &mut files)?;
        files.sort();
        Ok(files)
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // Links to folders are not followed: they may lead back.
        if entry.file_type()?.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "ron") {
            files.push(path);
        }
    }
    Ok(())
}

/// Letters, digits, `-`, `_` and `.` stay; everything else becomes `-`, so that a name never leaves its folder.
fn file_name(name: &str) -> String {
    let kept: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
    if kept.chars().all(|c| c == '.') { "unnamed".into() } else { kept }
}
