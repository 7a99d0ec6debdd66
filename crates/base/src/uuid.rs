//! Kafka's 128-bit ids (`org.apache.kafka.common.Uuid`): topic, directory, cluster and incarnation ids. Text form is
//! unpadded base64url, 22 characters.

use std::fmt;
use std::str::FromStr;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid([u8; 16]);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not an id of 22 base64url characters")]
pub struct ParseUuidError(String);

impl Uuid {
    /// "No id" on the wire.
    pub const ZERO: Uuid = Uuid([0; 16]);
    /// The metadata topic's id (`Uuid.METADATA_TOPIC_ID`, also `ONE_UUID`).
    pub const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);
    /// Directory ids with a meaning of their own (KIP-858, `DirectoryId`).
    pub const DIRECTORY_UNASSIGNED: Uuid = Uuid::from_u128(0);
    pub const DIRECTORY_LOST: Uuid = Uuid::from_u128(1);
    pub const DIRECTORY_MIGRATING: Uuid = Uuid::from_u128(2);

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn from_u128(value: u128) -> Self {
        Self(value.to_be_bytes())
    }

    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Makes a version 4 id out of 16 random bytes. Ids below 100 are reserved, and Kafka avoids a leading dash, which
    /// tools would take for an option: `None` asks the caller for other bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Option<Self> {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let id = Self(bytes);
        (!id.to_string().starts_with('-')).then_some(id)
    }

    /// A new random id from the operating system's generator.
    pub fn random() -> Self {
        loop {
            let mut bytes = [0; 16];
            if getrandom::fill(&mut bytes).is_err() {
                crate::invariant::broken("getrandom", file!(), line!(), "the operating system gives no random bytes");
            }
            if let Some(id) = Self::from_random(bytes) {
                return id;
            }
        }
    }

    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = u128::from_be_bytes(self.0);
        // 22 digits of six bits hold 132 bits: the value stands left-aligned, four zero bits behind it.
        for digit in 0..22 {
            let index = if digit < 21 { (value >> (122 - 6 * digit)) & 63 } else { (value << 4) & 63 };
            let c = ALPHABET.get(index as usize).copied().unwrap_or(b'A');
            write!(f, "{}", c as char)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseUuidError(text.chars().take(64).collect());
        let unpadded = text.strip_suffix("==").unwrap_or(text);
        if unpadded.len() != 22 {
            return Err(bad());
        }
        let mut value: u128 = 0;
        for (digit, c) in unpadded.bytes().enumerate() {
            let index = ALPHABET.iter().position(|a| *a == c).ok_or_else(bad)? as u128;
            value |= if digit < 21 { index << (122 - 6 * digit) } else { index >> 4 };
        }
        Ok(Self::from_u128(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_kafkas() {
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid::METADATA_TOPIC_ID.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        for _ in 0..200 {
            let id = Uuid::random();
            assert_eq!(id.to_string().parse::<Uuid>(), Ok(id));
            assert_eq!(id.as_bytes()[6] >> 4, 4);
        }
        assert!("short".parse::<Uuid>().is_err());
        assert!("AAAAAAAAAAAAAAAAAAAAA!".parse::<Uuid>().is_err());
    }
}
