//! Sleeping for less than a millisecond without spinning. The runtime's own timers have a grain of a millisecond, which
//! would add half of one to every latency of an open loop; Linux' timerfd has none that matters.

use std::time::Duration;

use crate::clock::Nanos;

/// A timer of one task.
#[derive(Debug)]
pub(crate) struct Timer {
    #[cfg(target_os = "linux")]
    fine: Option<fine::Fine>,
}

impl Timer {
    /// As fine as this system has it; within a runtime.
    pub(crate) fn new() -> Timer {
        Timer {
            #[cfg(target_os = "linux")]
            fine: fine::Fine::new().ok(),
        }
    }

    /// Waits so long.
    pub(crate) async fn sleep(&mut self, time: Nanos) {
        let time = Duration::from_nanos(time.max(1));
        #[cfg(target_os = "linux")]
        if let Some(fine) = &mut self.fine
            && fine.sleep(time).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(time).await;
    }
}

#[cfg(target_os = "linux")]
mod fine {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    #[derive(Debug)]
    pub(super) struct Fine(AsyncFd<OwnedFd>);

    impl Fine {
        pub(super) fn new() -> io::Result<Fine> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(deprecated, reason = "for types that may lend out a descriptor and close it; an OwnedFd cannot")]
            let registered = AsyncFd::new(timer)?;
            Ok(Fine(registered))
        }

        pub(super) async fn sleep(&mut self, time: Duration) -> io::Result<()> {
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            let value = Timespec::try_from(time).map_err(|_| io::ErrorKind::InvalidInput)?;
            timerfd_settime(
                self.0.get_ref(),
                TimerfdTimerFlags::empty(),
                &Itimerspec { it_interval: none, it_value: value },
            )?;
            loop {
                let mut ready = self.0.readable().await?;
                let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut [0_u8; 8])?));
                if let Ok(read) = read {
                    // It goes off once: another read would only be told so.
                    ready.clear_ready();
                    return read.map(drop);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Timer;
    use crate::clock::Clock;

    #[tokio::test]
    async fn timer_sleeps_no_shorter_than_asked_and_can_be_used_again() {
        let (mut timer, clock) = (Timer::new(), Clock::start());
        for time in [200_000, 1, 3_000_000] {
            let before = clock.now();
            timer.sleep(time).await;
            assert!(clock.now() - before >= time, "{time} ns");
        }
    }
}
