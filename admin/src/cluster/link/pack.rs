//! Values in etcd: JSON, made smaller where it is long. etcd takes no more than 1.5 MiB in one request, and JSON
//! of a thousand services repeats itself; what is short stays as it is, for whoever looks with `etcdctl`.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

/// What is longer is made smaller.
const LONG: usize = 16 << 10;

/// More is not read: whoever may write to etcd must not use up the memory of every instance.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// First byte of what was made smaller (RFC 1950: deflate, window of 32 KiB). JSON begins with another one.
const PACKED: u8 = 0x78;

/// As it is written.
pub(super) fn pack(text: Vec<u8>) -> Vec<u8> {
    if text.len() <= LONG {
        return text;
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    match encoder.write_all(&text).and_then(|()| encoder.finish()) {
        Ok(packed) => packed,
        // Memory takes everything.
        Err(_) => text,
    }
}

/// What was written.
///
/// # Errors
/// When it is broken or longer than any state, in words.
pub(super) fn unpack(value: &[u8]) -> Result<Vec<u8>, String> {
    unpack_within(value, TEXT_BYTES_MAX)
}

fn unpack_within(value: &[u8], most: u64) -> Result<Vec<u8>, String> {
    if value.first() != Some(&PACKED) {
        return Ok(value.to_vec());
    }
    let mut text = Vec::new();
    let mut decoder = ZlibDecoder::new(value).take(most + 1);
    decoder
        .read_to_end(&mut text)
        .map_err(|error| format!("a value in etcd is broken: {error}"))?;
    match text.len() as u64 > most {
        true => Err(format!("a value in etcd is longer than {most} bytes")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_values_stay_readable_and_long_ones_come_back_as_they_were() {
        let short = br#"{"revision":7}"#.to_vec();
        assert_eq!(pack(short.clone()), short);
        assert_eq!(unpack(&short), Ok(short));
        let services =
            (0..2_000).map(|number| format!(r#""service-{number}":{{"stable":"blue"}}"#));
        let long = format!("{{{}}}", services.collect::<Vec<_>>().join(",")).into_bytes();
        let packed = pack(long.clone());
        assert!(
            packed.len() < long.len() / 4,
            "{} of {}",
            packed.len(),
            long.len()
        );
        assert_eq!(unpack(&packed), Ok(long));
    }

    #[test]
    fn value_that_is_broken_or_endless_is_refused() {
        let endless = pack(vec![b' '; 1 << 20]);
        assert!(unpack_within(&endless, 1 << 20).is_ok());
        let reason = unpack_within(&endless, (1 << 20) - 1).expect_err("too long");
        assert!(reason.contains("longer than"), "{reason}");
        let cut = &pack(vec![b' '; 1 << 20])[..100];
        let reason = unpack(cut).expect_err("cut off");
        assert!(reason.contains("broken"), "{reason}");
    }
}
