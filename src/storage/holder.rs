//! Who holds a database file that is refused as in use. The lock itself does not say; Linux lists the locks of all
//! processes in `/proc/locks`, by inode. Elsewhere nobody knows, and nothing is guessed.

use std::path::Path;

/// The id of the process that has the file locked, when it can be known.
#[cfg(target_os = "linux")]
pub(super) fn of(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let device = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let is_open_in = |pid: u32| {
        // Some file systems number their locks by another device than their files: then the process's files decide.
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut metadata = files.filter_map(|entry| std::fs::metadata(entry.path()).ok());
        metadata.any(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
    };
    let mut holders = locks.lines().filter_map(parse).filter(|lock| lock.inode == file.ino());
    holders.find(|lock| lock.device == device || is_open_in(lock.pid)).map(|lock| lock.pid)
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
pub(super) fn of(_path: &Path) -> Option<u32> {
    None
}

/// A lock on a whole file, as `/proc/locks` lists it.
#[cfg(target_os = "linux")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lock {
    pid: u32,
    /// Major and minor number.
    device: (u32, u32),
    inode: u64,
}

/// Reads `3: FLOCK  ADVISORY  WRITE 5773 fe:00:10494032 0 EOF`. None for those that wait (`->`), for other kinds of locks
/// and for those without a process (`-1`, or `0` outside of this container).
#[cfg(target_os = "linux")]
fn parse(line: &str) -> Option<Lock> {
    let mut words = line.split_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let pid = words.nth(2)?.parse().ok().filter(|pid| *pid != 0)?;
    let mut place = words.next()?.split(':');
    let mut number = || u32::from_str_radix(place.next()?, 16).ok();
    let device = (number()?, number()?);
    Some(Lock { pid, device, inode: place.next()?.parse().ok()? })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn holder_of_a_locked_file_is_this_process_and_of_a_free_one_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(of(&path), None);
        file.lock().unwrap();
        assert_eq!(of(&path), Some(std::process::id()));
        assert_eq!(of(&directory.path().join("other")), None);
    }

    #[test]
    fn lines_of_other_locks_and_of_waiters_name_nobody() {
        let line = "3: FLOCK  ADVISORY  WRITE 5773 fe:0a:10494032 0 EOF";
        assert_eq!(parse(line), Some(Lock { pid: 5773, device: (0xfe, 0x0a), inode: 10_494_032 }));
        for line in [
            "1: OFDLCK ADVISORY  WRITE -1 fe:00:10494032 0 4611686018427387999",
            "3: -> FLOCK  ADVISORY  WRITE 5774 fe:00:10494032 0 EOF",
            "3: FLOCK  ADVISORY  WRITE -1 fe:00:10494032 0 EOF",
            "3: FLOCK  ADVISORY  WRITE 0 fe:00:10494032 0 EOF",
            "3: FLOCK  ADVISORY",
            "",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
