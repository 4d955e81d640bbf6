//! Ctrl-C and SIGTERM: the first ends the run and prints what there is, the second ends the process at once.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

/// Exit code after Ctrl-C, as shells have it: 128 and the signal's number.
const EXIT_INT: u8 = 130;
/// Exit code after SIGTERM.
const EXIT_TERM: u8 = 143;

/// What has been asked for by a signal.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    interrupt: CancellationToken,
    code: Arc<AtomicU8>,
}

impl Signals {
    /// Listens from now on.
    pub(crate) fn listen() -> Signals {
        let signals = Signals { interrupt: CancellationToken::new(), code: Arc::new(AtomicU8::new(EXIT_INT)) };
        let heard = signals.clone();
        tokio::spawn(async move {
            let code = next().await;
            heard.code.store(code, Ordering::Relaxed);
            heard.interrupt.cancel();
            std::process::exit(i32::from(next().await));
        });
        signals
    }

    /// Cancelled by the first signal.
    pub(crate) fn interrupt(&self) -> CancellationToken {
        self.interrupt.clone()
    }

    /// The exit code that tells which signal it was.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code.load(Ordering::Relaxed))
    }
}

/// Waits for a signal to end, and gives its exit code.
#[cfg(unix)]
async fn next() -> u8 {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else { return interrupted().await };
    tokio::select! {
        code = interrupted() => code,
        _ = term.recv() => EXIT_TERM,
    }
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
async fn next() -> u8 {
    interrupted().await
}

async fn interrupted() -> u8 {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the system ends the process by itself.
        std::future::pending::<()>().await;
    }
    EXIT_INT
}
