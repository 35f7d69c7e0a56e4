//! Whether a header block has a coding that can be read (RFC 7541), without decoding it.
//!
//! hyper ends a connection with the same code for a block that cannot be decompressed and for one with an
//! impossible name or value in it; RFC 9113 does not. This is asked only when hyper has already refused a
//! block, to call it by its right name: representations, integers, lengths and references are followed,
//! and names and values are looked at as far as they are spelled out.

/// Entries of the static table.
const STATIC: usize = 61;

/// Entries that fit into a dynamic table of 4 KiB, at the 32 bytes that each counts beside its content.
const DYNAMIC: usize = 128;

/// Whether the block itself is broken, and not what it says. `first`: nothing came before it on the
/// connection, so its table holds only what it adds itself. `table_max`: the largest table allowed.
pub(super) fn is_broken(block: &[u8], first: bool, table_max: usize) -> bool {
    let mut reader = Reader {
        block,
        entries: if first { 0 } else { DYNAMIC },
        table_max,
        coded: false,
        odd: false,
    };
    // What is spelled out and impossible is the fault; failing that, a Huffman code is.
    match reader.read() {
        None => true,
        Some(()) => reader.coded && !reader.odd,
    }
}

struct Reader<'a> {
    block: &'a [u8],
    entries: usize,
    table_max: usize,
    /// Whether anything was Huffman-coded.
    coded: bool,
    /// Whether a name or value that is spelled out is impossible.
    odd: bool,
}

impl Reader<'_> {
    fn read(&mut self) -> Option<()> {
        let mut fields = 0;
        while let Some(first) = self.block.first().copied() {
            match first {
                0x80.. => {
                    let index = self.integer(7)?;
                    self.check_index(index)?;
                }
                0x20..0x40 => {
                    let size = self.integer(5)?;
                    if fields > 0 || size > self.table_max {
                        return None;
                    }
                    continue;
                }
                _ => {
                    let adds = first >= 0x40;
                    let name = self.integer(if adds { 6 } else { 4 })?;
                    if name > 0 {
                        self.check_index(name)?;
                    } else {
                        self.string(is_name)?;
                    }
                    self.string(is_value)?;
                    self.entries += usize::from(adds);
                }
            }
            fields += 1;
        }
        Some(())
    }

    fn check_index(&self, index: usize) -> Option<()> {
        (1..=STATIC + self.entries).contains(&index).then_some(())
    }

    fn string(&mut self, is_possible: fn(&[u8]) -> bool) -> Option<()> {
        let coded = self.block.first()? & 0x80 != 0;
        let length = self.integer(7)?;
        let text = self.block.get(..length)?;
        self.block = &self.block[length..];
        self.coded |= coded;
        self.odd |= !coded && !is_possible(text);
        Some(())
    }

    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let full = (1_usize << prefix) - 1;
        let (first, mut rest) = self.block.split_first()?;
        let mut value = usize::from(*first) & full;
        if value == full {
            for shift in [0, 7, 14, 21, 28] {
                let (byte, after) = rest.split_first()?;
                rest = after;
                value += usize::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    self.block = rest;
                    return Some(value);
                }
            }
            return None;
        }
        self.block = rest;
        Some(value)
    }
}

/// Whether this can be a name over HTTP/2, of a field or of a pseudo-header field that there is.
fn is_name(text: &[u8]) -> bool {
    let token =
        |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(b);
    match text.strip_prefix(b":") {
        Some(pseudo) => matches!(
            pseudo,
            b"method" | b"scheme" | b"path" | b"authority" | b"protocol" | b"status"
        ),
        None => !text.is_empty() && text.iter().all(token),
    }
}

fn is_value(text: &[u8]) -> bool {
    text.iter()
        .all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_codings_are_told_from_impossible_fields() {
        for (block, broken) in [
            (&b"\x82\x86\x84"[..], false),
            (b"\x80", true),
            (b"\xbe", true),
            (b"\x40\x01x\x01y\xbe", false),
            (b"\x00\x01X\x01y", false),
            (b"\x00\x05:test\x01y", false),
            (b"\x00\x01x\x03a\rb", false),
            (b"\x00\x01X\x82\xff\xff", false),
            (b"\x00\x01x\x82\xff\xff", true),
            (b"\x82\x21", true),
            (b"\x3f\xe1\x1f\x82", false),
            (b"\x3f\xe2\x1f\x82", true),
            (b"\x00\x7f\xff\x01x", true),
            (b"\xff\xff\xff\xff\xff\xff\xff\x7f", true),
            (b"\x00\x05x", true),
            (b"\x0f", true),
        ] {
            assert_eq!(is_broken(block, true, 4096), broken, "{block:x?}");
        }
        assert!(
            !is_broken(b"\xbe", false, 4096),
            "an earlier block may have added it"
        );
        assert!(is_broken(b"\xff\x80\x01", false, 4096));
    }
}
