//! `kv status --watch`: the same again and again, until Ctrl-C, or until nobody reads it any more. On a terminal each
//! frame is drawn over the one before; in a pipe frames follow one another.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::sleep;

use super::exit::{Done, Exit, Failure};
use super::table;
use crate::clock::{Clock, millis};

/// One look: its text, and how the command would end after it.
pub(crate) type Frame = (String, Exit);

/// Shows what `look` gives, every so often. A look that fails is a frame too: the cluster may come back.
pub(crate) async fn watch<F, Fut>(every: Duration, look: F) -> Result<Done, Failure>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Frame, Failure>>,
{
    let mut out = io::stdout();
    let screen = Screen { redraws: out.is_terminal(), every };
    tokio::select! {
        exit = draw(&screen, &mut out, look) => Ok(Done { exit, stdout: Vec::new(), note: None }),
        _ = tokio::signal::ctrl_c() => Ok(Done::ok("")),
    }
}

/// Where frames are drawn.
struct Screen {
    /// Over one another, as a terminal can.
    redraws: bool,
    every: Duration,
}

/// Draws frames until they cannot be written any more.
async fn draw<F, Fut>(screen: &Screen, out: &mut impl Write, look: F) -> Exit
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Frame, Failure>>,
{
    let clock = Clock::real();
    let began = clock.now();
    loop {
        let (text, exit) = look().await.unwrap_or_else(|failure| (failure.to_string(), failure.exit));
        let after = millis(clock.now().saturating_duration_since(began));
        let drawn = out.write_all(screen.frame(&text, after).as_bytes()).and_then(|()| out.flush());
        if drawn.is_err() {
            return exit;
        }
        sleep(screen.every).await;
    }
}

impl Screen {
    fn frame(&self, text: &str, after_ms: u64) -> String {
        let (every, after) = (table::duration(millis(self.every)), table::duration(after_ms));
        if !self.redraws {
            return format!("---- after {after}\n{text}\n");
        }
        let lines = text.lines().map(|line| format!("{line}\x1b[K\n")); // to the end of the line: nothing is left of the last frame
        format!("\x1b[H{}\x1b[Kevery {every}, for {after}; Ctrl-C ends\x1b[K\n\x1b[J", lines.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A pipe whose reader leaves after so many frames.
    struct Pipe {
        frames: Vec<String>,
        wanted: usize,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.frames.len() == self.wanted {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.frames.push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn watch_frames_follow_one_another_until_the_reader_leaves_and_failures_are_frames() {
        let (looks, mut pipe) = (AtomicU32::new(0), Pipe { frames: Vec::new(), wanted: 3 });
        let look = || async {
            match looks.fetch_add(1, Ordering::SeqCst) {
                1 => Err(Failure::new(Exit::Unavailable, "nobody answers", "", "")),
                look => Ok((format!("look {look}\n"), Exit::Error)),
            }
        };
        let screen = Screen { redraws: false, every: Duration::from_millis(1) };
        let exit = draw(&screen, &mut pipe, look).await;
        assert_eq!(exit, Exit::Error);
        assert_eq!(pipe.frames.len(), 3);
        assert_eq!(pipe.frames[0], "---- after 0 s\nlook 0\n\n");
        assert!(pipe.frames[1].contains("nobody answers"));
    }

    #[test]
    fn watch_frame_of_a_terminal_leaves_nothing_of_the_one_before() {
        let screen = Screen { redraws: true, every: Duration::from_secs(2) };
        let frame = screen.frame("one\ntwo\n", 5000);
        assert_eq!(frame, "\x1b[Hone\x1b[K\ntwo\x1b[K\n\x1b[Kevery 2 s, for 5 s; Ctrl-C ends\x1b[K\n\x1b[J");
    }
}
