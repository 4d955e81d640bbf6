//! What a replica holds gives way to what its leader holds: a whole file, or the end of the log.

use std::sync::Arc;

use super::{Mode, Refusal, Writer};
use crate::storage::{Batch, Engine, Rewind};

impl Writer {
    /// Takes back the end of the log. The end that is shown goes back, too: whoever waits for one that is not there any more
    /// goes on waiting.
    pub(super) fn rewind(&mut self, rewind: Rewind) -> Result<(), Refusal> {
        if self.mode != Mode::Following {
            return Err(Refusal::Closed("only a replica takes back what it holds".into()));
        }
        self.history = self.history.cut(rewind.to);
        // Before what it names goes: who looks at the history and reads then never takes what is left for more than it is.
        *self.published.history.lock() = self.history.clone();
        let batch = Batch { rewind: Some(rewind), ..Batch::default() };
        self.measured_commit(&batch).inspect_err(|failure| self.fail(failure)).map_err(Refusal::Unknown)?;
        self.published.end.send_replace(self.history.end());
        Ok(())
    }

    pub(super) fn swap(&mut self, engine: Arc<dyn Engine>) -> Result<(), Refusal> {
        let state = engine.state().map_err(Refusal::Failed)?;
        self.history = state.history;
        self.engine = Arc::clone(&engine);
        let before = {
            // Both at once: who looks at the history and takes the engine beside it gets two that belong together.
            let mut history = self.published.history.lock();
            *history = self.history.clone();
            self.published.engine.swap(Arc::new(engine))
        };
        drop(before); // which may close a file, and takes its time
        self.published.end.send_replace(self.history.end());
        Ok(())
    }
}
