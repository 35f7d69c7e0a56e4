//! The two things that are looked at inside of frames: the values of settings, and whether trailers begin
//! with a pseudo-header field.

use h2::Reason;

use super::{Head, PADDED, Verdict, WITH_PRIORITY};

/// `SETTINGS_INITIAL_WINDOW_SIZE`, and the largest it may be (RFC 9113, 6.5.2).
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
const WINDOW_MAX: u32 = u32::MAX >> 1;

/// A frame that is being looked at, byte by byte.
#[derive(Debug)]
pub(super) enum Inside {
    /// The entry being read, and how much of it there is.
    Settings([u8; 6], usize),
    /// Bytes before the block, and its first bytes.
    Trailers(usize, [u8; 3], usize),
}

impl Inside {
    pub(super) const fn settings() -> Self {
        Self::Settings([0; 6], 0)
    }

    pub(super) const fn trailers(head: Head) -> Self {
        let padding = if head.flags & PADDED == 0 { 0 } else { 1 };
        let priority = if head.flags & WITH_PRIORITY == 0 {
            0
        } else {
            5
        };
        Self::Trailers(padding + priority, [0; 3], 0)
    }

    /// Takes the next byte of the payload; whether there is more to look at.
    pub(super) fn take(&mut self, byte: u8) -> Result<bool, Verdict> {
        match self {
            Self::Settings(entry, length) => {
                entry[*length] = byte;
                *length = (*length + 1) % entry.len();
                let [a, b, value @ ..] = *entry;
                let is_window = *length == 0 && [a, b] == INITIAL_WINDOW_SIZE;
                if is_window && u32::from_be_bytes(value) > WINDOW_MAX {
                    return Err(Verdict::Violation(Reason::FLOW_CONTROL_ERROR));
                }
                Ok(true)
            }
            Self::Trailers(before, ..) if *before > 0 => {
                *before -= 1;
                Ok(true)
            }
            Self::Trailers(_, block, length) => {
                block[*length] = byte;
                *length += 1;
                match begins_with_pseudo(&block[..*length]) {
                    Some(true) => Err(Verdict::Violation(Reason::PROTOCOL_ERROR)),
                    Some(false) => Ok(false),
                    None => Ok(true),
                }
            }
        }
    }
}

/// Whether a header block begins with a pseudo-header field, as far as the static table and the name itself
/// tell (RFC 7541, section 6). `None`: more bytes are needed; three always suffice. A name by reference to
/// the dynamic table is not followed: hyper drops such a field.
fn begins_with_pseudo(block: &[u8]) -> Option<bool> {
    let first = *block.first()?;
    let index = match first {
        0x80.. => first & 0x7f,
        0x40..0x80 => first & 0x3f,
        // A change of the table's size comes before any field.
        0x20..0x40 => return Some(false),
        _ => first & 0x0f,
    };
    if index > 0 || first >= 0x80 {
        return Some((1..=14).contains(&index));
    }
    let length = *block.get(1)?;
    if length & 0x7f == 0 {
        return Some(false);
    }
    let character = *block.get(2)?;
    // A colon as it is, or its Huffman code of seven bits.
    Some(if length & 0x80 == 0 {
        character == b':'
    } else {
        character >> 1 == 0x5c
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudo_fields_are_seen_in_every_representation() {
        for (block, expected) in [
            (&[0x82][..], Some(true)),
            (&[0x8e], Some(true)),
            (&[0x8f], Some(false)),
            (&[0x80], Some(false)),
            (&[0xbe], Some(false)),
            (&[0x44], Some(true)),
            (&[0x04], Some(true)),
            (&[0x14], Some(true)),
            (&[0x0f], Some(false)),
            (&[0x7a], Some(false)),
            (&[0x3f], Some(false)),
            (&[0x00], None),
            (&[0x40, 5], None),
            (&[0x00, 0], Some(false)),
            (&[0x00, 5, b':'], Some(true)),
            (&[0x10, 5, b'x'], Some(false)),
            (&[0x40, 0x84, 0xb8], Some(true)),
            (&[0x40, 0x84, 0xb9], Some(true)),
            (&[0x40, 0x84, 0xf2], Some(false)),
            (&[], None),
        ] {
            assert_eq!(begins_with_pseudo(block), expected, "{block:x?}");
        }
    }
}
