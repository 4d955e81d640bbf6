//! One `kv serve` process, and the watchdog that ends it when the tests end without ending it.
//!
//! Drop kills a node, but a static is never dropped, and a test process that is killed drops nothing. So every cluster
//! has a watchdog: a shell that reads which processes were started and which were reaped, and kills what is left when its
//! standard input closes, which the system does for a dead process too. Only processes that a cluster started, by pid.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longest wait for a node that was asked to stop.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// Reads `+ PID` and `- PID` lines, and `!` when all is done; when its input ends without that, it kills what is left and
/// removes the directory `$1`, if given.
const WATCHDOG: &str = r#"
alive=
while read -r sign pid; do
    case $sign in
    +) alive="$alive $pid" ;;
    !) exit ;;
    -) rest=; for p in $alive; do [ "$p" = "$pid" ] || rest="$rest $p"; done; alive=$rest ;;
    esac
done
for p in $alive; do kill -9 "$p" 2>/dev/null; done
[ -z "$1" ] || { sleep 0.2; rm -rf -- "$1"; }
"#;

/// Kills the processes it was told of once this process is gone.
#[derive(Debug)]
pub struct Watchdog {
    child: Child,
    lines: Mutex<Option<ChildStdin>>,
}

impl Watchdog {
    /// Starts one; it also removes `directory` at its end.
    pub fn start(directory: &Path) -> Arc<Watchdog> {
        let mut child = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(directory)
            .stdin(Stdio::piped())
            .process_group(0) // Ctrl-C ends the tests; it must outlive them
            .spawn()
            .expect("sh starts");
        let lines = Mutex::new(child.stdin.take());
        Arc::new(Watchdog { child, lines })
    }

    fn tell(&self, line: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(lines) = lines.as_mut() {
            // A watchdog that somebody killed is no reason to fail a test.
            drop(writeln!(lines, "{line}"));
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.tell("!"); // every node was reaped before: they share this watchdog
        *self.lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        drop(self.child.wait());
    }
}

/// The command line of one node, and its process when it runs.
#[derive(Debug)]
pub struct Node {
    /// A program and its arguments that starts `kv`, as `prlimit` does; empty: nothing does.
    under: Vec<String>,
    args: Vec<String>,
    log: PathBuf,
    /// `KV_LOG`; none: what the environment of the tests has.
    log_filter: Option<&'static str>,
    watchdog: Arc<Watchdog>,
    child: Option<Child>,
}

impl Node {
    /// A node that does not run yet; `args` come after `kv`.
    pub fn new(args: Vec<String>, log: PathBuf, watchdog: Arc<Watchdog>) -> Node {
        Node { under: Vec::new(), args, log, log_filter: None, watchdog, child: None }
    }

    /// From the next start on, this program starts it, by exec, so that the process is its own.
    pub fn set_under(&mut self, under: &[&str]) {
        self.under = under.iter().map(|part| (*part).to_owned()).collect();
    }

    /// From the next start on, these arguments.
    pub fn set_args(&mut self, args: Vec<String>) {
        self.args = args;
    }

    /// The id of the running process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node was started").id()
    }

    /// The same with this `KV_LOG`.
    pub fn log_filter(mut self, filter: Option<&'static str>) -> Node {
        self.log_filter = filter;
        self
    }

    /// Starts the process; its output is added to the log.
    pub fn start(&mut self) {
        assert!(!self.is_running(), "the node runs already: kv {}", self.args.join(" "));
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log).expect("the log opens");
        writeln!(log, "---- kv {}", self.args.join(" ")).expect("the log takes a line");
        let mut command = command(&self.under, &self.args, log);
        let child = command.envs(self.log_filter.map(|filter| ("KV_LOG", filter))).spawn().expect("kv starts");
        self.watchdog.tell(&format!("+ {}", child.id()));
        self.child = Some(child);
    }

    /// Whether the process runs (a stopped one does too).
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none() && self.child.is_some()
    }

    /// How the process ended, if it did.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        child.try_wait().expect("a child can be waited for")
    }

    /// Sends a signal to the running process.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.is_running(), "the node does not run: kv {}", self.args.join(" "));
        if let Some(child) = &self.child {
            // Not reaped yet, so the pid is still this child's.
            kill_process(Pid::from_child(child), signal).expect("a child takes signals");
        }
    }

    /// `kill -9`, and waits until it is gone. Does nothing when it does not run.
    pub fn kill9(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        drop(child.kill());
        drop(child.wait());
        self.watchdog.tell(&format!("- {}", child.id()));
    }

    /// SIGTERM, and waits until it is gone; kills and panics when it is not after [`STOP_WAIT`].
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit(STOP_WAIT)
    }

    /// Waits until the process has ended by itself; kills and panics when it has not.
    pub fn wait_exit(&mut self, bound: Duration) -> ExitStatus {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(status) = self.exit_status() {
                self.kill9();
                return status;
            }
            if Instant::now() >= deadline {
                self.kill9();
                panic!("still running after {bound:?}: kv {}", self.args.join(" "));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All that the node has printed, over all its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// `kv` with these arguments; no settings from the environment reach it.
pub fn command(under: &[String], args: &[String], log: File) -> Command {
    let kv = env!("CARGO_BIN_EXE_kv").to_owned();
    let mut words = under.iter().chain([&kv]).chain(args);
    let mut command = Command::new(words.next().expect("there is kv at least"));
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be shared"))
        .stderr(log)
        .env_remove("KV_URL")
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .process_group(0);
    command
}

/// How a command of `kv` ended, and what it said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a command of `kv` to its end, with this to read.
pub fn kv(args: &[&str], input: &str) -> Said {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kv"))
        .args(args)
        .env_remove("KV_URL")
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kv starts");
    if let Some(mut stdin) = child.stdin.take() {
        drop(stdin.write_all(input.as_bytes())); // a command that reads nothing closes it
    }
    let output = child.wait_with_output().expect("kv ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}
