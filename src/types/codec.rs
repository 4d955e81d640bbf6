//! The byte codec of the disk formats and of the peer protocol.
//!
//! Numbers are LEB128 varints unless a fixed width is asked for, byte strings carry a varint length. Decoding never
//! copies a byte string: it hands out slices of the [`Bytes`] it reads from. Every decoder returns [`Malformed`], with
//! what was expected, instead of panicking: what is read may come from a torn file or from a stranger.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes that are not what the format says. Carries what was expected where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes: {0}")]
pub struct Malformed(pub &'static str);

/// Longest varint: ten groups of seven bits hold 64.
const VARINT_BYTES_MAX: u32 = 10;

/// Appends `value` as a LEB128 varint.
pub fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.put_u8(low_byte(value));
}

/// The lowest eight bits of `value`.
fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

/// Appends a varint length and the bytes.
pub fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Appends a byte that says whether a value follows, and the value.
pub fn put_option<T>(out: &mut BytesMut, value: Option<&T>, put: impl FnOnce(&mut BytesMut, &T)) {
    match value {
        None => out.put_u8(0),
        Some(value) => {
            out.put_u8(1);
            put(out, value);
        }
    }
}

/// Reads values from the front of some bytes.
#[derive(Debug, Clone)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Starts at the first byte of `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Reader {
        Reader { rest: bytes }
    }

    /// Takes `n` bytes, without copying them.
    pub fn take(&mut self, n: usize) -> Result<Bytes, Malformed> {
        if self.rest.len() < n {
            return Err(Malformed("cut short"));
        }
        Ok(self.rest.split_to(n))
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.rest.try_get_u8().map_err(|_| Malformed("cut short"))
    }

    /// Takes a byte that must be 0 or 1.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag other than 0 and 1")),
        }
    }

    /// Takes eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.rest.try_get_u64().map_err(|_| Malformed("cut short"))
    }

    /// Takes four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.rest.try_get_u32().map_err(|_| Malformed("cut short"))
    }

    /// Takes a LEB128 varint.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for group in 0..VARINT_BYTES_MAX {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if group == VARINT_BYTES_MAX - 1 && bits > 1 {
                return Err(Malformed("a varint above 64 bits"));
            }
            value |= bits << (7 * group);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a varint without end"))
    }

    /// Takes a varint that must fit 32 bits.
    pub fn varint_u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("a number above 32 bits"))
    }

    /// Takes a byte string with its varint length, without copying it.
    pub fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let n = usize::try_from(self.varint()?).map_err(|_| Malformed("cut short"))?;
        self.take(n)
    }

    /// Takes a byte string that must be UTF-8.
    pub fn string(&mut self) -> Result<String, Malformed> {
        let n = usize::try_from(self.varint()?).map_err(|_| Malformed("cut short"))?;
        let bytes = self.rest.get(..n).ok_or(Malformed("cut short"))?;
        let text = str::from_utf8(bytes).map_err(|_| Malformed("text that is not UTF-8"))?.to_owned();
        self.rest.advance(n);
        Ok(text)
    }

    /// Takes a byte that says whether a value follows, and the value.
    pub fn option<T>(
        &mut self,
        take: impl FnOnce(&mut Reader) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        Ok(if self.bool()? { Some(take(self)?) } else { None })
    }

    /// Takes a varint count and that many values. `count_max` bounds what a stranger can make us allocate.
    pub fn list<T>(
        &mut self,
        count_max: usize,
        mut take: impl FnMut(&mut Reader) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::try_from(self.varint()?).map_err(|_| Malformed("cut short"))?;
        if count > count_max || count > self.rest.len() {
            return Err(Malformed("a list longer than its bytes or its bound"));
        }
        (0..count).map(|_| take(self)).collect()
    }

    /// All that is left.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.rest
    }

    /// Takes exactly these bytes if they come next; says whether they did.
    pub fn skip(&mut self, expected: &[u8]) -> bool {
        let comes = self.rest.starts_with(expected);
        if comes {
            self.rest.advance(expected.len());
        }
        comes
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends the reading: what is left must be nothing.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes after the end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varint_any_number_comes_back(value: u64) {
            let mut out = BytesMut::new();
            put_varint(&mut out, value);
            let mut reader = Reader::new(out.freeze());
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn reader_any_rubbish_never_panics(bytes: Vec<u8>) {
            let mut reader = Reader::new(bytes.into());
            while reader.remaining() > 0 {
                if reader.bytes().is_err() { break }
            }
        }
    }

    #[test]
    fn varint_overlong_is_refused() {
        let mut reader = Reader::new(Bytes::from_static(&[0xff; 11]));
        assert!(reader.varint().is_err());
    }
}
