//! How a command ends: its exit code for scripts, and for people what happened and what to do next.
//!
//! ```text
//! error: the shard's leader cannot be reached
//!   127.0.0.3:8080 (Bangalore) refused the connection
//!   next: kv status
//! ```

use std::fmt;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It is done.
    Ok,
    /// It failed, or `kv status` found something wrong, or `kv check` a fault.
    Error,
    /// The command line makes no sense. clap ends with the same code.
    Usage,
    /// There is no such key.
    NotFound,
    /// Nobody could serve it, and nothing was changed: trying again is safe.
    Unavailable,
    /// A write may have taken effect, or may yet.
    Unknown,
}

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Error => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Unavailable => 5,
            Exit::Unknown => 7,
        }
    }
}

/// What a command has to show when it did its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// For most commands [`Exit::Ok`]; `kv status` of a sick cluster is done too, and ends with [`Exit::Error`].
    pub(crate) exit: Exit,
    /// What goes to standard output, byte for byte.
    pub(crate) stdout: Vec<u8>,
    /// A line for standard error, where scripts do not trip over it.
    pub(crate) note: Option<String>,
}

impl Done {
    /// Done well, with this to show.
    pub(crate) fn ok(stdout: impl Into<Vec<u8>>) -> Done {
        Done { exit: Exit::Ok, stdout: stdout.into(), note: None }
    }

    /// Adds a line for standard error.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Done {
        self.note = Some(note.into());
        self
    }
}

/// Why a command did not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened, in a few words.
    pub(crate) title: String,
    /// What happened, with names and numbers; may have several lines.
    pub(crate) detail: String,
    /// What to type next.
    pub(crate) hint: String,
}

impl Failure {
    /// A failure of which only the parts differ.
    pub(crate) fn new(
        exit: Exit,
        title: impl Into<String>,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Failure {
        Failure { exit, title: title.into(), detail: detail.into(), hint: hint.into() }
    }

    /// A command line that makes no sense.
    pub(crate) fn usage(detail: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, "the command line makes no sense", detail, hint)
    }
}

impl fmt::Display for Failure {
    /// Ends in a newline. What came over the network is shown without its control characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", printable(&self.title))?;
        for line in self.detail.lines() {
            writeln!(f, "  {}", printable(line))?;
        }
        for (i, line) in self.hint.lines().enumerate() {
            writeln!(f, "  {}{}", if i == 0 { "next: " } else { "      " }, printable(line))?;
        }
        Ok(())
    }
}

/// Keeps a server's words from steering the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_display_says_what_happened_and_what_to_do() {
        let failure = Failure::new(Exit::Error, "no\u{1b}[2J", "one\ntwo", "kv status");
        assert_eq!(failure.to_string(), "error: no\u{fffd}[2J\n  one\n  two\n  next: kv status\n");
    }

    #[test]
    fn exit_codes_are_those_that_scripts_rely_on() {
        let all = [Exit::Ok, Exit::Error, Exit::Usage, Exit::NotFound, Exit::Unavailable, Exit::Unknown];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 5, 7]);
    }
}
