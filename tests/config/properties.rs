//! What must hold for any input at all: no panic, no fault outside of the text, and no silence.
//!
//! Inputs are arbitrary bytes, and good files of the corpus with a few pieces cut out, doubled,
//! swapped or overwritten: those get far enough to reach every check.

use std::fmt::Write;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use proptest::sample::Index;
use switchback_config::diagnostic::{Severity, Span, render_all};
use switchback_config::{Parsed, parse};

use super::good_cases;

/// One change to a text, at a place that is chosen by an index.
#[derive(Clone, Debug)]
enum Change {
    Cut(Index, usize),
    Double(Index, usize),
    Insert(Index, String),
    SwapLines(Index, Index),
}

/// Pieces that mean something to YAML or to the file format.
const PIECES: [&str; 24] = [
    "*a",
    "&a ",
    "<<: ",
    "- ",
    ": ",
    "\t",
    "---\n",
    "!!x ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "#",
    "|\n",
    "off",
    "auto",
    "-1",
    "99999999999",
    "~",
    "ä",
    "\u{feff}",
    "\r\n",
];

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Change::Cut(at, length)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Change::Double(at, length)),
        (any::<Index>(), 0..PIECES.len())
            .prop_map(|(at, piece)| Change::Insert(at, PIECES[piece].into())),
        (any::<Index>(), "\\PC{0,8}").prop_map(|(at, text)| Change::Insert(at, text)),
        (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Change::SwapLines(one, other)),
    ]
}

fn apply(text: &mut String, change: &Change) {
    let piece = |text: &str, at: &Index, length: usize| {
        let start = text.floor_char_boundary(at.index(text.len() + 1));
        start..text.floor_char_boundary(start + length)
    };
    match change {
        Change::Cut(at, length) => {
            let range = piece(text, at, *length);
            text.replace_range(range, "");
        }
        Change::Double(at, length) => {
            let range = piece(text, at, *length);
            let copy = text[range.clone()].to_owned();
            text.insert_str(range.end, &copy);
        }
        Change::Insert(at, inserted) => {
            let start = piece(text, at, 0).start;
            text.insert_str(start, inserted);
        }
        Change::SwapLines(one, other) => {
            let mut lines: Vec<&str> = text.split('\n').collect();
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            lines.swap(one, other);
            *text = lines.join("\n");
        }
    }
}

/// Reads a text and checks what must hold of any answer.
fn check(text: &str) -> Parsed {
    let parsed = parse(text);
    let inside = |span: Span| text.get(span.range()).is_some();
    let mut has_errors = false;
    for fault in &parsed.diagnostics {
        has_errors |= fault.severity == Severity::Error;
        assert!(inside(fault.span), "{fault:?} in {text:?}");
        let lines = text[..fault.span.start].matches('\n').count() + 1;
        assert_eq!(fault.line, lines, "{fault:?} in {text:?}");
        assert!(fault.column >= 1, "{fault:?} in {text:?}");
    }
    assert_eq!(parsed.config.is_none(), has_errors, "silent about {text:?}");
    // Rendering walks over the text again, by rules of its own.
    let rendered = render_all(&parsed.diagnostics, text, "file.yaml", true);
    assert!(rendered.ends_with('\n') || rendered.is_empty());
    parsed
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..400)) {
        check(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_pieces_of_yaml_are_answered(pieces in vec(0..PIECES.len(), 0..60)) {
        let text: String = pieces.iter().map(|piece| PIECES[*piece]).collect();
        check(&text);
    }

    #[test]
    fn any_change_to_a_good_file_is_answered(
        file in any::<Index>(),
        changes in vec(change(), 1..6),
    ) {
        let cases = good_cases();
        let mut text = cases[file.index(cases.len())].text.clone();
        for change in &changes {
            apply(&mut text, change);
        }
        check(&text);
    }
}

#[test]
fn alias_inside_its_own_anchor_is_refused() {
    check("version: 1\nservices: &a {site: *a}\n");
    check("&a [*a]\n");
}

#[test]
fn aliases_do_not_hide_depth() {
    // Each line nests the one before it 30 levels deeper: as deep as the bound on values allows.
    let (open, close) = ("[".repeat(30), "]".repeat(30));
    let mut text = String::from("version: 1\nx0: &x0 1\n");
    for level in 1..360 {
        let before = level - 1;
        writeln!(text, "x{level}: &x{level} {open}*x{before}{close}").unwrap();
    }
    check(&text);
}
