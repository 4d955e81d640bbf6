//! One timer for all waits of a connection, one after the other. It is set when the first of them has to wait, and put off
//! when it rings before its time; the requests between, which are many and mostly quick, leave it as it is.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is set at most once for many waits.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether `due` has come. If not, the task is woken when it has, or before.
    pub(super) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn alarm_rings_when_each_wait_is_due_be_it_later_or_sooner_than_the_one_before() {
        let start = sleep(Duration::ZERO).deadline();
        let mut alarm = Alarm::default();
        let late = start + Duration::from_secs(30);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(late, cx))).await.is_pending());
        for secs in [1, 50, 50, 20, 51] {
            let due = start + Duration::from_secs(secs);
            poll_fn(|cx| alarm.poll(due, cx)).await;
            let now = sleep(Duration::ZERO).deadline();
            assert!(now >= due, "it rang {:?} too early", due - now);
            assert!(now <= start + Duration::from_secs(secs.max(50)) + Duration::from_secs(1), "it rang too late");
        }
    }
}
