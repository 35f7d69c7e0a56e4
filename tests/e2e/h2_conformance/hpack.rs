//! Header compression: every representation, and what cannot be decompressed (RFC 7541; h2spec generic 5
//! and hpack; RFC 9113, 4.3/1).

use super::{Case, case, play};
use crate::support::frames::{COMPRESSION_ERROR, END_HEADERS, END_STREAM, Expect, HEADERS, frame};

const COMPRESSION: Expect = Expect::Connection(&[COMPRESSION_ERROR]);

/// `:method: GET`, `:scheme: http`, `:path: /` by index, `:authority: a` as a literal.
const USUAL: &[u8] = b"\x82\x86\x84\x01\x01a";

/// `user-agent` is number 58; `x-test` and `ok` are spelled out, or Huffman-coded.
const PLAIN_NAME: &[u8] = b"\x06x-test";
const PLAIN_VALUE: &[u8] = b"\x02ok";
const HUFFMAN_NAME: &[u8] = b"\x85\xf2\xb2\x4a\x84\xff";
const HUFFMAN_VALUE: &[u8] = b"\x82\x3d\x7f";

fn with(more: &[&[u8]]) -> Vec<u8> {
    let block = [USUAL, &more.concat()].concat();
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)
}

fn representations() -> Vec<Case> {
    let mut cases = vec![
        case(
            "generic/5/1 indexed",
            &[with(&[b"\x90"])],
            Expect::Status(200),
        ),
        case(
            "generic/5/14 dynamic table size update",
            &[frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                1,
                &[b"\x20", USUAL].concat(),
            )],
            Expect::Status(200),
        ),
        case(
            "generic/5/15 two dynamic table size updates",
            &[frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                1,
                &[b"\x20\x3f\xe1\x1f", USUAL].concat(),
            )],
            Expect::Status(200),
        ),
    ];
    // Incremental indexing, without indexing, never indexed; each with a name by index or new.
    for (by_index, new, name) in [
        (&b"\x7a"[..], &b"\x40"[..], "incremental indexing"),
        (b"\x0f\x2b", b"\x00", "without indexing"),
        (b"\x1f\x2b", b"\x10", "never indexed"),
    ] {
        for value in [PLAIN_VALUE, HUFFMAN_VALUE] {
            cases.push(case(name, &[with(&[by_index, value])], Expect::Status(200)));
            for spelled in [PLAIN_NAME, HUFFMAN_NAME] {
                cases.push(case(
                    name,
                    &[with(&[new, spelled, value])],
                    Expect::Status(200),
                ));
            }
        }
    }
    cases
}

fn errors() -> Vec<Case> {
    vec![
        case(
            "4.3/1 invalid header block",
            &[frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                1,
                b"\x82\x86\x84\x41\x8a\x08\x9d\x5c\x0b\x81\x70\xdc\x78\x0f\x03\xff\x40\x85",
            )],
            COMPRESSION,
        ),
        case(
            "hpack/2.3.3/1 indexed field with an invalid index",
            &[with(&[b"\xc6"])],
            COMPRESSION,
        ),
        case(
            "hpack/2.3.3/2 literal field with an invalid index",
            &[with(&[b"\x0f\x37", PLAIN_VALUE])],
            COMPRESSION,
        ),
        case(
            "hpack/4.2/1 dynamic table size update at the end of a block",
            &[with(&[b"\x21"])],
            COMPRESSION,
        ),
        case(
            "hpack/5.2/1 Huffman padding of more than seven bits",
            &[with(&[b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"])],
            COMPRESSION,
        ),
        case(
            "hpack/5.2/2 Huffman padding of zeros",
            &[with(&[b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"])],
            COMPRESSION,
        ),
        case(
            "hpack/5.2/3 Huffman string with EOS",
            &[with(&[
                b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\xff\xff\xff\xff\xff\xff\xff",
            ])],
            COMPRESSION,
        ),
        case("hpack/6.1/1 index 0", &[with(&[b"\x80"])], COMPRESSION),
        case(
            "hpack/6.3/1 dynamic table size update above the setting",
            &[frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                1,
                &[b"\x3f\xe2\x1f", USUAL].concat(),
            )],
            COMPRESSION,
        ),
        case(
            "an integer that overflows",
            &[with(&[b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"])],
            COMPRESSION,
        ),
        case(
            "a string longer than its block",
            &[with(&[b"\x00\x7f\xff\x01x"])],
            COMPRESSION,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_blocks_are_decompressed_or_end_the_connection() {
    let mut cases = representations();
    cases.extend(errors());
    play(cases).await;
}
