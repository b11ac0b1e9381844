use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;

/// How a gzip file starts.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A file, unpacked when its first bytes say that it is gzipped; its name does not count.
pub(crate) fn open_unpacked(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let mut file = BufReader::new(File::open(path)?);
    Ok(match file.fill_buf()?.starts_with(&MAGIC) {
        true => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        false => Box::new(file),
    })
}
