use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// How the temporary names of files that are not whole yet begin.
pub const PART: &str = ".part-";

/// Writes a file whole or not at all: temporary name in the same folder, fsync, rename.
///
/// A reader sees the old bytes or the new ones, never half of them, also when the process is killed. Links are followed; what
/// is no file, as `/dev/null` or a pipe, is written into and stays what it is.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = &followed(path);
    if is_stream(path) {
        return OpenOptions::new().write(true).open(path)?.write_all(bytes);
    }
    let mut file = part_beside(path)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private; results are not.
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Why [`write_whole`] would fail at once, for whoever has long to work before: nothing is left behind.
pub fn check_writable(path: &Path) -> io::Result<()> {
    let path = &followed(path);
    match path.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false if is_stream(path) => Ok(()),
        false => part_beside(path).map(drop),
    }
}

/// Where a link points to, also if nothing is there yet.
fn followed(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| match fs::read_link(path) {
        Ok(target) => path.parent().unwrap_or(Path::new("")).join(target),
        Err(_) => path.into(),
    })
}

fn is_stream(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|of| !of.is_file() && !of.is_dir())
}

fn part_beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or(".".into(), PathBuf::from);
    if !folder.try_exists()? {
        let told = format!("there is no folder {}", folder.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, told)); // and not the temporary name that nobody gave
    }
    tempfile::Builder::new().prefix(PART).tempfile_in(folder)
}

/// A file's bytes, at most `limit` of them: a longer one is [`io::ErrorKind::FileTooLarge`] and does not fill the memory.
pub fn read_whole(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let told = format!("it holds more than {limit} bytes, too much for such a file");
        io::Error::new(io::ErrorKind::FileTooLarge, told)
    };
    let file = File::open(path)?;
    // Refused unread; but pipes and devices say no length, and a file may grow meanwhile.
    let length = file.metadata()?.len();
    if length > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length as usize)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
}

/// [`read_whole`] of UTF-8; other bytes are [`io::ErrorKind::InvalidData`].
pub fn read_whole_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read_whole(path, limit)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_wins_and_no_part_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        write_whole(&target, b"one").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_whole(&link, b"two").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"two");
        fs::remove_file(&target).unwrap();
        write_whole(&link, b"three").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&target).unwrap(), b"three");
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_writable(&folder.path().join("x")).is_ok());
        assert_eq!(check_writable(folder.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let error = check_writable(&folder.path().join("no/x")).unwrap_err();
        let told = format!("there is no folder {}", folder.path().join("no").display());
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::NotFound, told));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_read_up_to_the_limit_and_refused_beyond_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_whole(&path, b"four").unwrap();
        assert_eq!(read_whole(&path, 4).unwrap(), b"four");
        assert_eq!(read_whole_text(&path, u64::MAX).unwrap(), "four");
        let error = read_whole(&path, 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "it holds more than 3 bytes, too much for such a file");
        write_whole(&path, &[0xff]).unwrap();
        assert_eq!(read_whole_text(&path, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[cfg(unix)]
    #[test]
    fn what_says_no_length_is_not_read_without_end() {
        let error = read_whole(Path::new("/dev/zero"), 1000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
