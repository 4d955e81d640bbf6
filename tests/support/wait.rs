//! Waiting for something to become true, with a bound, and a message when it does not.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Longest wait for anything that should happen soon. Generous: the machine may be busy, and a test that passes does not
/// wait for it.
pub const SOON: Duration = Duration::from_secs(60);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` gives `Ok`, at most [`SOON`]; then panics with what it gave last.
pub fn until<T, E: Debug>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    until_within(SOON, what, look)
}

/// The same, with another bound.
pub fn until_within<T, E: Debug>(bound: Duration, what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if Instant::now() >= deadline => panic!("not within {bound:?}: {what}; last seen: {last:#?}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// How many rounds the loops of the long stories make: `OSTRACA_TEST_ROUNDS`, or `usual`.
pub fn rounds(usual: usize) -> usize {
    let Ok(text) = std::env::var("OSTRACA_TEST_ROUNDS") else { return usual };
    text.parse().unwrap_or_else(|_| panic!("OSTRACA_TEST_ROUNDS={text:?} is not a number"))
}
