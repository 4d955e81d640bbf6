//! Reads the file. The only part of the configuration that touches the disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::fault::{Fault, Faults};
use super::{Config, parse};

/// Largest file that is read, in bytes: some ten thousand shards. Beyond it the file is refused, not cut.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads and checks the file at `path`; all that is wrong with it at once.
pub fn load(path: &Path) -> Result<Config, Faults> {
    let name = path.display().to_string();
    let refuse = |fault| Faults::new(name.clone(), vec![fault]);
    let bytes = read(path).map_err(|error| refuse(unreadable(path, &error)))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let what = format!("the file has more than {FILE_BYTES_MAX} bytes");
        return Err(refuse(Fault::general(what, "check that this is the right file")));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, &name),
        Err(error) => Err(refuse(not_utf8(&bytes, error.valid_up_to()))),
    }
}

/// At most one byte more than a file may have, also of what never ends, such as a device.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Fault::general("there is no such file", "check the path; a relative one begins at the working directory")
        }
        io::ErrorKind::IsADirectory => {
            let inside = path.join("sharding.toml");
            Fault::general("this is a directory, not a file", format!("name the file, such as {}", inside.display()))
        }
        io::ErrorKind::PermissionDenied => {
            Fault::general("this user may not read the file", "change its owner or mode, such as chmod a+r")
        }
        _ => Fault::general(format!("the file cannot be read: {error}"), "check the path and the disk"),
    }
}

fn not_utf8(bytes: &[u8], valid_up_to: usize) -> Fault {
    let line = 1 + bytes.iter().take(valid_up_to).filter(|byte| **byte == b'\n').count();
    Fault::at(line, "the file is not UTF-8 text", "save it as UTF-8, and check that this is the right file")
}
