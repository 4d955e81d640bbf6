//! A key: 1 to 1,024 bytes (the bound is a setting), never assumed to be UTF-8.

use std::fmt;

use bytes::Bytes;

/// What a setting may raise the longest key to; keys are copied into trees and messages.
pub const KEY_BYTES_CEILING: usize = 16 * 1024;

/// A key, never empty. The same bytes are the same key, whatever encoding a request wrote them in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// Why some bytes are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// A key has at least one byte.
    #[error("the key is empty")]
    Empty,
    /// Longer than the setting `limits.key_bytes_max`.
    #[error("the key has {len} bytes; the limit is {max}")]
    TooLong {
        /// Bytes that it has.
        len: usize,
        /// Bytes that it may have.
        max: usize,
    },
}

impl Key {
    /// Checks `bytes` against the limits: not empty, at most `bytes_max` long.
    pub fn new(bytes: impl Into<Bytes>, bytes_max: usize) -> Result<Key, KeyFault> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyFault::Empty),
            len if len > bytes_max => Err(KeyFault::TooLong { len, max: bytes_max }),
            _ => Ok(Key(bytes)),
        }
    }

    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key's bytes, shared.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}
