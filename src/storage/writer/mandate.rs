//! Leave to take writes in one epoch. Whoever learns that another leads, or promises that another may, ends it at that
//! moment; the writer looks at it when it gives seq, and again before it answers (rule 17).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Leave to take writes in one epoch; clones are the same leave.
#[derive(Debug, Clone, Default)]
pub struct Mandate {
    has_ended: Arc<AtomicBool>,
}

impl Mandate {
    /// Ends it, for good.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
    }

    /// Whether it holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.has_ended.load(Ordering::SeqCst)
    }
}

impl PartialEq for Mandate {
    /// Whether it is the same leave.
    fn eq(&self, other: &Mandate) -> bool {
        Arc::ptr_eq(&self.has_ended, &other.has_ended)
    }
}

impl Eq for Mandate {}
