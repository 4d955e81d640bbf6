//! The process as the system sees it, under the names that Prometheus' own clients use, so that everybody's dashboards
//! know them. Read from `/proc`; where there is none, the metrics are left out.

use std::fs;

/// What the system says of this process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Process {
    /// Bytes of memory that are resident.
    pub resident_bytes: Option<u64>,
    /// Descriptors that are open.
    pub open_fds: Option<u64>,
    /// Descriptors that may be open.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Seconds of processor time, of all threads, in the program and in the system.
    pub cpu_seconds: Option<f64>,
}

impl Process {
    /// As of now. Blocks for as long as reading a few files of `/proc` takes.
    #[must_use]
    pub fn read() -> Process {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let open_fds = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as u64);
        Process {
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib << 10),
            threads: field(&status, "Threads:"),
            open_fds, // without the one that the counting takes
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            cpu_seconds: cpu_seconds(),
        }
    }
}

/// The number after a name in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    ticks(&stat).map(|ticks| ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The 14th and 15th field of `/proc/self/stat`; the second is the program's name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_fields_are_found_by_their_name() {
        let status = "Name:\tkv\nVmRSS:\t   37032 kB\nThreads:\t9\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "Threads:")), (Some(37032), Some(9)));
        assert_eq!(field(status, "VmHWM:"), None);
    }

    #[test]
    fn process_ticks_are_found_behind_a_name_with_spaces_and_brackets() {
        let stat = "7 (a ) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(ticks(stat), Some(200));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn process_reads_itself() {
        let Process { resident_bytes, open_fds, threads, cpu_seconds, .. } = Process::read();
        assert!(resident_bytes > Some(1 << 20) && open_fds > Some(2) && threads > Some(0) && cpu_seconds.is_some());
    }
}
