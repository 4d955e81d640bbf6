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
        let history = self.history.cut(rewind.to);
        let batch = Batch { rewind: Some(rewind), ..Batch::default() };
        self.measured_commit(&batch).inspect_err(|failure| self.fail(failure)).map_err(Refusal::Unknown)?;
        self.history = history;
        *self.published.history.lock() = self.history.clone();
        self.published.end.send_replace(self.history.end());
        Ok(())
    }

    pub(super) fn swap(&mut self, engine: Arc<dyn Engine>) -> Result<(), Refusal> {
        let state = engine.state().map_err(Refusal::Failed)?;
        self.history = state.history;
        self.engine = Arc::clone(&engine);
        *self.published.history.lock() = self.history.clone();
        self.published.engine.store(Arc::new(engine));
        self.published.end.send_replace(self.history.end());
        Ok(())
    }
}
