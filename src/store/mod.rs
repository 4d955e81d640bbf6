//! The one door: what a node can be asked, by clients and by peers, and what it answers.

pub mod call;
pub mod error;
pub mod view;

pub use call::{Acks, Answer, Call, Consistency, Location, Operation, Outcome, Reach, Served};
pub use error::{Applied, Code, Error};
