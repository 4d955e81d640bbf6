//! The command line: one file per command. `kv serve` runs a node; the others speak HTTP to one, as any client does, and
//! know nothing of the server's insides but the shapes of its JSON.
//!
//! A command returns what it has to show or why it failed, and touches neither standard output nor the exit code: [`main`]
//! does, once.

mod ack;
mod check;
mod compact;
mod compare;
mod completion;
mod delete;
mod diagnosis;
mod exit;
mod explain;
#[cfg(test)]
mod fixture;
mod get;
mod http;
mod keys;
mod log;
mod lost_writes;
mod replica;
mod report;
mod serve;
mod set;
mod shard;
mod status;
#[cfg(test)]
mod stub;
mod switchover;
mod table;
mod takeover;
mod target;
#[cfg(test)]
mod tests;
mod watch;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::{Done, Exit, Failure};

/// A curl-simple sharded key-value store: server and command line.
#[derive(Debug, Parser)]
#[command(
    name = "kv",
    version,
    propagate_version = true,
    after_help = "\
Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 5 unavailable (nothing was changed), 7 outcome unknown."
)]
struct Kv {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Check(check::Check),
    Get(get::Get),
    Set(set::Set),
    Delete(delete::Delete),
    Status(status::Status),
    Explain(explain::Explain),
    Shard(shard::Shard),
    Replica(replica::Replica),
    Compact(compact::Compact),
    Completion(completion::Completion),
}

/// Parses the command line, runs it, prints, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let kv = Kv::parse(); // ends the process itself for --help, and with 2 for a line that makes no sense
    let exit = match run(&kv.command, Path::new(".")) {
        Ok(done) => show(&done).unwrap_or_else(|failure| complain(&failure)),
        Err(failure) => complain(&failure),
    };
    ExitCode::from(exit.code())
}

fn run(command: &Command, directory: &Path) -> Result<Done, Failure> {
    match command {
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Get(get) => get.run(directory),
        Command::Set(set) => set.run(directory),
        Command::Delete(delete) => delete.run(directory),
        Command::Status(status) => status.run(directory),
        Command::Explain(explain) => explain.run(directory),
        Command::Shard(shard) => shard.run(directory),
        Command::Replica(replica) => replica.run(directory),
        Command::Compact(compact) => compact.run(),
        Command::Completion(completion) => Ok(completion.run()),
    }
}

/// Writes the result. A reader that has seen enough (`kv status | head`) is no error.
fn show(done: &Done) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(&done.stdout).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let hint = "check where the output goes";
            return Err(Failure::new(Exit::Error, "the result cannot be written", error.to_string(), hint));
        }
        _ => {}
    }
    if io::stdout().is_terminal() && !matches!(done.stdout.last(), None | Some(b'\n')) {
        eprintln!(); // keeps the prompt off a value's last line; a pipe gets the value's bytes and nothing else
    }
    if let Some(note) = &done.note {
        eprintln!("{}", exit::printable(note));
    }
    Ok(done.exit)
}

fn complain(failure: &Failure) -> Exit {
    eprint!("{failure}");
    failure.exit
}
