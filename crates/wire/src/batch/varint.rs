//! Zigzag variable-length integers of records (Protocol Buffers' encoding; Kafka: `ByteUtils.readVarint/readVarlong`).
//! A 32-bit value takes at most 5 bytes, a 64-bit value at most 10; longer ones are refused.

use super::BatchError;

/// A cursor over the bytes of one record.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

const SHORT: BatchError = BatchError::InvalidRecord("record ends inside a field");
const LONG: BatchError = BatchError::InvalidRecord("variable-length integer is too long");

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn u8(&mut self) -> Result<u8, BatchError> {
        let (first, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], BatchError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn varint(&mut self) -> Result<i32, BatchError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(zigzag32(value));
            }
        }
        Err(LONG)
    }

    pub(crate) fn varlong(&mut self) -> Result<i64, BatchError> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28, 35, 42, 49, 56, 63] {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(LONG)
    }

    /// A field with its length before it; a negative length is null.
    pub(crate) fn nullable(&mut self) -> Result<Option<&'a [u8]>, BatchError> {
        match usize::try_from(self.varint()?) {
            Ok(n) => self.take(n).map(Some),
            Err(_) => Ok(None),
        }
    }
}

fn zigzag32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

/// The varint at the front of `bytes` and its length; `None` when more bytes are needed.
pub(crate) fn peek_varint(bytes: &[u8]) -> Result<Option<(i32, usize)>, BatchError> {
    let mut value = 0u32;
    for (i, byte) in bytes.iter().take(5).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((zigzag32(value), i + 1)));
        }
    }
    if bytes.len() >= 5 { Err(LONG) } else { Ok(None) }
}

pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(crate) fn put_varint(out: &mut Vec<u8>, value: i32) {
    // Zigzag of a sign-extended 32-bit value gives the same bytes.
    put_varlong(out, i64::from(value));
}

/// Bytes that [`put_varlong`] writes for `value`.
pub(crate) fn varlong_len(value: i64) -> usize {
    let bits = 64 - (((value << 1) ^ (value >> 63)) as u64).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_length() {
        for v in [0, 1, -1, 63, 64, -64, -65, 8191, 8192, i64::from(i32::MAX), i64::from(i32::MIN), i64::MAX, i64::MIN]
        {
            let mut out = Vec::new();
            put_varlong(&mut out, v);
            assert_eq!(out.len(), varlong_len(v), "{v}");
            assert_eq!(Cursor::new(&out).varlong().unwrap(), v);
            if let Ok(v32) = i32::try_from(v) {
                assert_eq!(Cursor::new(&out).varint().unwrap(), v32);
                assert_eq!(peek_varint(&out).unwrap(), Some((v32, out.len())));
            }
        }
    }

    #[test]
    fn refuses_overlong_and_short() {
        assert!(Cursor::new(&[0xff; 5]).varint().is_err());
        assert!(Cursor::new(&[0xff; 10]).varlong().is_err());
        assert!(Cursor::new(&[0x80]).varint().is_err());
        assert!(peek_varint(&[0x80; 5]).is_err());
        assert_eq!(peek_varint(&[0x80; 4]).unwrap(), None);
    }
}
