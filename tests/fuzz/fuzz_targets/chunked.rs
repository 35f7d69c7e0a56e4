//! A chunked body is the same in any pieces, and ends where a reader that takes RFC 9112 by the letter
//! ends it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchback_fuzz::strict::{self, Fault};
use switchback_fuzz::{pieces, shown};
use switchback_proxy::fuzz::{Reading, chunked};

/// Names that decide where a message ends, whom it is for or who sends it.
const MUST_NOT_COME_LATE: [&[u8]; 6] =
    [b"content-length", b"transfer-encoding", b"host", b"connection", b"authorization", b"x-forwarded-for"];

fuzz_target!(|input: &[u8]| {
    let whole = chunked(input, &[]);
    for pieces in [&pieces(input)[..], &[1]] {
        assert_eq!(whole, chunked(input, pieces), "{pieces:?}: {}", shown(input));
    }
    match (whole, strict::chunked(input)) {
        (Reading::Message(ours), Ok(theirs)) => {
            assert_eq!((ours.content, ours.length), (theirs.content, theirs.length), "{}", shown(input));
            let mut late = theirs.trailers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
            for (name, value) in &ours.trailers {
                assert!(!MUST_NOT_COME_LATE.contains(&&name[..]), "{}", shown(input));
                assert!(late.any(|(given, text)| given == *name && text == value), "{}", shown(input));
            }
        }
        (Reading::Message(_), Err(fault)) => panic!("accepted by us, by the letter {fault:?}: {}", shown(input)),
        // We have bounds that the letter does not know.
        (Reading::Refused, _) => {}
        (Reading::Incomplete, Err(Fault::Incomplete)) => {}
        // The letter sees a fault in trailers as soon as their line is there, we when all are.
        (Reading::Incomplete, Err(Fault::FieldName | Fault::FieldValue | Fault::BareBreak)) => {}
        (Reading::Incomplete, theirs) => panic!("we wait, by the letter {theirs:?}: {}", shown(input)),
    }
});
