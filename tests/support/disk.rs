//! Disks that are small or fail, where the system lets a test make them; where it does not, the test says so and is
//! skipped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::wait;

/// A small file system in memory, mounted on a directory of its own; unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many MiB; none, with the reason printed, when this process may not mount.
    pub fn mount(directory: PathBuf, mib: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(&directory).unwrap();
        let disk = SmallDisk { directory };
        if disk.run_mount(&format!("size={mib}m")) {
            return Some(disk);
        }
        eprintln!("skipped: this process may not mount a tmpfs (root can)");
        None
    }

    fn run_mount(&self, options: &str) -> bool {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.directory).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    }

    /// Makes it another size, with what is on it.
    pub fn resize(&self, mib: u64) {
        assert!(self.run_mount(&format!("remount,size={mib}m")), "a mounted tmpfs can be resized");
    }

    /// Makes it read-only.
    pub fn make_read_only(&self) {
        assert!(self.run_mount("remount,ro"), "a mounted tmpfs can be made read-only");
    }

    /// A file on it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Bytes that can still be written.
    pub fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.directory).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Fills it up to so many free bytes, with a file that [`SmallDisk::unload`] removes.
    pub fn load(&self, leave: u64) {
        let ballast = self.free().saturating_sub(leave);
        std::fs::write(self.file("ballast"), vec![0x55; usize::try_from(ballast).unwrap()]).unwrap();
    }

    /// Frees what [`SmallDisk::load`] took.
    pub fn unload(&self) {
        std::fs::remove_file(self.file("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node that is being killed may still have a file open.
        drop(Command::new("umount").arg("-l").arg(&self.directory).status());
    }
}

/// strace at work on a process whose calls it lets fail; detached when it is dropped.
#[derive(Debug)]
pub struct Failing {
    strace: Child,
}

impl Failing {
    /// From now on each `fdatasync` of the process fails with EIO; none, with the reason printed, without strace or the
    /// permission to trace.
    pub fn fdatasync(pid: u32, log: &Path) -> Option<Failing> {
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO", "-p", &pid.to_string()])
            .arg("-o")
            .arg(log)
            .stderr(Stdio::null())
            .spawn();
        let Ok(strace) = strace else {
            eprintln!("skipped: there is no strace here");
            return None;
        };
        let mut failing = Failing { strace };
        let attached = wait::until("strace is attached or gives up", || {
            if failing.strace.try_wait().unwrap().is_some() {
                return Ok(false);
            }
            if all_threads_are_traced(pid) { Ok(true) } else { Err("not yet") }
        });
        if !attached {
            eprintln!("skipped: strace may not trace here");
        }
        attached.then_some(failing)
    }
}

fn all_threads_are_traced(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut statuses = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
    statuses.all(|status| status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0")))
}

impl Drop for Failing {
    fn drop(&mut self) {
        // strace detaches on SIGTERM; on SIGKILL the system does it for it.
        drop(self.strace.kill());
        drop(self.strace.wait());
    }
}
