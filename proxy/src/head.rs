//! Heads of messages: the request line or status and the header fields, the same for every protocol.
//!
//! A head keeps its fields as lines in one reused byte buffer and remembers where names and values
//! lie. Nothing is turned into maps and strings: what policy does not touch is copied on in whole
//! runs of lines. HTTP/1 heads are parsed into this shape ([`crate::h1::request_head`]); HTTP/2 heads are
//! written into it ([`crate::h2::convert`]), so that routing, policy and the log know one kind.
//!
//! Invariant: names and values were validated by whoever filled the head: names are tokens, values
//! contain no CR, LF or NUL. Every line that is marked `canonical` reads `name: value\r\n`.

use std::ops::Range;
use std::time::Duration;

use smallvec::SmallVec;

use crate::grpc;

/// Names that policy has something to say about. Everything else is [`Name::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Other,
    Authorization,
    Connection,
    ContentLength,
    ContentType,
    Cookie,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    ProxyConnection,
    Referer,
    Te,
    Traceparent,
    TransferEncoding,
    XSwitchbackMirrored,
    /// Contains an underscore, which some servers read as a hyphen.
    Underscore,
    Upgrade,
    UserAgent,
    XForwardedFor,
    XForwardedHost,
    XForwardedProto,
    XRequestId,
}

impl Name {
    /// Recognises a name in any case. Costs one comparison for most names.
    pub(crate) fn of(name: &[u8]) -> Self {
        let (candidate, text): (Self, &[u8]) = match name.len() {
            2 => (Self::Te, b"te"),
            4 => (Self::Host, b"host"),
            6 if matches!(name[0], b'c' | b'C') => (Self::Cookie, b"cookie"),
            6 => (Self::Expect, b"expect"),
            7 if matches!(name[0], b'u' | b'U') => (Self::Upgrade, b"upgrade"),
            7 => (Self::Referer, b"referer"),
            9 => (Self::Forwarded, b"forwarded"),
            10 => match name[0] | 0x20 {
                b'c' => (Self::Connection, b"connection"),
                b'k' => (Self::KeepAlive, b"keep-alive"),
                _ => (Self::UserAgent, b"user-agent"),
            },
            11 => (Self::Traceparent, b"traceparent"),
            12 if matches!(name[0], b'c' | b'C') => (Self::ContentType, b"content-type"),
            12 => (Self::XRequestId, b"x-request-id"),
            13 => (Self::Authorization, b"authorization"),
            14 => (Self::ContentLength, b"content-length"),
            15 => (Self::XForwardedFor, b"x-forwarded-for"),
            16 if matches!(name[0], b'x' | b'X') => (Self::XForwardedHost, b"x-forwarded-host"),
            16 => (Self::ProxyConnection, b"proxy-connection"),
            21 => (Self::XSwitchbackMirrored, b"x-switchback-mirrored"),
            17 if matches!(name[0], b'x' | b'X') => (Self::XForwardedProto, b"x-forwarded-proto"),
            17 => (Self::TransferEncoding, b"transfer-encoding"),
            _ => (Self::Other, b""),
        };
        if candidate != Self::Other && name.eq_ignore_ascii_case(text) {
            return candidate;
        }
        // Names are short: what is fast for long ones would only have to get ready.
        if name.contains(&b'_') {
            Self::Underscore
        } else {
            Self::Other
        }
    }
}

/// One header field: where its parts lie in [`Fields::bytes`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) known: Name,
    /// Whether the line reads exactly `name: value\r\n` and may be copied as it is.
    canonical: bool,
    name: (u32, u32),
    value: (u32, u32),
}

/// The header fields of one message, in order.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    list: Vec<Field>,
}

fn span((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

fn offset(position: usize) -> u32 {
    u32::try_from(position).expect("heads are limited to far less than 4 GiB")
}

impl Fields {
    /// Forgets everything but keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    /// Takes over a copy of raw header bytes; [`Fields::push_span`] then says where fields lie.
    pub(crate) fn set_bytes(&mut self, bytes: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes that spans refer to.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a field that lies in the bytes already.
    pub(crate) fn push_span(&mut self, name: Range<usize>, value: Range<usize>) -> Name {
        let known = Name::of(&self.bytes[name.clone()]);
        let canonical = self.bytes[name.end..].starts_with(b": ")
            && value.start == name.end + 2
            && self.bytes[value.end..].starts_with(b"\r\n");
        self.list.push(Field {
            known,
            canonical,
            name: (offset(name.start), offset(name.end)),
            value: (offset(value.start), offset(value.end)),
        });
        known
    }

    /// Appends a line and its field. The caller vouches for name and value.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) -> Name {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
        let value_start = start + name.len() + 2;
        self.push_span(
            start..start + name.len(),
            value_start..value_start + value.len(),
        )
    }

    /// Appends bytes that are no field, such as a method, and tells where they lie.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    pub(crate) fn list(&self) -> &[Field] {
        &self.list
    }

    pub(crate) fn name(&self, field: &Field) -> &[u8] {
        &self.bytes[span(field.name)]
    }

    pub(crate) fn value(&self, field: &Field) -> &[u8] {
        &self.bytes[span(field.value)]
    }

    /// Where a value lies, to be kept beside the head.
    pub(crate) fn value_span(field: &Field) -> Range<usize> {
        span(field.value)
    }

    /// The first value of a known name.
    pub(crate) fn first(&self, known: Name) -> Option<&[u8]> {
        self.list
            .iter()
            .find(|f| f.known == known)
            .map(|f| self.value(f))
    }

    /// The values of any name, compared without case.
    pub(crate) fn values<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.list
            .iter()
            .filter(|f| self.name(f).eq_ignore_ascii_case(name))
            .map(|f| self.value(f))
    }

    /// A copy without the fields of a name, compared without case.
    pub(crate) fn without(&self, refused: &[u8]) -> Self {
        let mut rest = Self::default();
        for field in &self.list {
            let name = self.name(field);
            if !name.eq_ignore_ascii_case(refused) {
                rest.push(name, self.value(field));
            }
        }
        rest
    }

    /// Calls `sink` with the fields that `keep` accepts, whole runs of neighbouring lines at once.
    pub(crate) fn copy_runs<S: FieldSink>(
        &self,
        sink: &mut S,
        mut keep: impl FnMut(&Field) -> bool,
    ) {
        let mut first = 0;
        while first < self.list.len() {
            if !keep(&self.list[first]) {
                first += 1;
                continue;
            }
            let mut last = first;
            let mut rejected = false;
            while let Some(next) = self.list.get(last + 1) {
                if !self.follows(last) {
                    break;
                }
                if !keep(next) {
                    rejected = true;
                    break;
                }
                last += 1;
            }
            sink.run(self, first..last + 1);
            first = last + 1 + usize::from(rejected);
        }
    }

    /// Whether the line after `index` begins right where the line at `index` ends.
    fn follows(&self, index: usize) -> bool {
        let (here, next) = (&self.list[index], &self.list[index + 1]);
        here.canonical && next.canonical && next.name.0 == here.value.1 + 2
    }

    /// The raw lines of neighbouring fields, if they may be copied as they are.
    pub(crate) fn lines(&self, range: Range<usize>) -> Option<&[u8]> {
        let fields = &self.list[range];
        let (first, last) = (fields.first()?, fields.last()?);
        (first.canonical && last.canonical)
            .then(|| &self.bytes[first.name.0 as usize..last.value.1 as usize + 2])
    }
}

/// Where outgoing header fields go: bytes for HTTP/1, a map for HTTP/2.
pub(crate) trait FieldSink {
    /// Takes neighbouring fields of a received head.
    fn run(&mut self, fields: &Fields, range: Range<usize>);
    /// Takes one field. Names are in lower case.
    fn field(&mut self, name: &'static str, value: &[u8]);
    /// Takes one field whose name comes from the configuration, in lower case.
    fn configured(&mut self, name: &str, value: &[u8]);
}

/// The HTTP version a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    H10,
    H11,
    H2,
}

impl Version {
    /// As access logs write it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::H10 => "HTTP/1.0",
            Self::H11 => "HTTP/1.1",
            Self::H2 => "HTTP/2.0",
        }
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body, and no word about one.
    #[default]
    Empty,
    /// Exactly so many bytes, possibly none.
    Length(u64),
    /// Until the protocol says so: chunks in HTTP/1, END_STREAM in HTTP/2.
    Streamed,
    /// Until the connection closes (responses of HTTP/1 only).
    UntilClose,
}

impl Framing {
    /// Whether a body follows.
    pub(crate) const fn has_body(self) -> bool {
        !matches!(self, Self::Empty | Self::Length(0))
    }
}

/// Names listed in `Connection`, as spans of the head's bytes.
pub(crate) type Listed = SmallVec<[(u32, u32); 4]>;

/// The head of a request.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) fields: Fields,
    pub(crate) version: Version,
    pub(crate) framing: Framing,
    /// The client asked for this connection to end after the response.
    pub(crate) close: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    /// A valid WebSocket handshake.
    pub(crate) websocket: bool,
    /// `te: trailers` was there: the client understands trailers.
    pub(crate) te_trailers: bool,
    pub(crate) listed: Listed,
    method: Range<usize>,
    target: Range<usize>,
    authority: Option<Range<usize>>,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            fields: Fields::default(),
            version: Version::H11,
            framing: Framing::Empty,
            close: false,
            expects_continue: false,
            websocket: false,
            te_trailers: false,
            listed: Listed::new(),
            method: 0..0,
            target: 0..0,
            authority: None,
        }
    }
}

impl RequestHead {
    /// Makes it as new but keeps the memory.
    pub(crate) fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    /// Makes it the same as another one, using its own memory.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.bytes.clone_from(&other.fields.bytes);
        fields.list.clone_from(&other.fields.list);
        *self = Self {
            fields,
            listed: other.listed.clone(),
            method: other.method.clone(),
            target: other.target.clone(),
            authority: other.authority.clone(),
            ..*other
        };
    }

    /// Sets the request line from spans of the fields' bytes.
    pub(crate) fn set_line(
        &mut self,
        method: Range<usize>,
        target: Range<usize>,
        authority: Option<Range<usize>>,
    ) {
        self.method = method;
        self.target = target;
        self.authority = authority;
    }

    /// Sets or replaces the authority.
    pub(crate) fn set_authority(&mut self, authority: Range<usize>) {
        self.authority = Some(authority);
    }

    pub(crate) fn method_span(&self) -> Range<usize> {
        self.method.clone()
    }

    pub(crate) fn target_span(&self) -> Range<usize> {
        self.target.clone()
    }

    pub(crate) fn method(&self) -> &[u8] {
        &self.fields.bytes[self.method.clone()]
    }

    /// Path and query as received, or `*`.
    pub(crate) fn target(&self) -> &[u8] {
        &self.fields.bytes[self.target.clone()]
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &[u8] {
        let target = self.target();
        &target[..memchr::memchr(b'?', target).unwrap_or(target.len())]
    }

    /// `host[:port]` as the client named it; none only in HTTP/1.0.
    pub(crate) fn authority(&self) -> Option<&[u8]> {
        self.authority.clone().map(|span| &self.fields.bytes[span])
    }

    /// GET, HEAD and OPTIONS promise to change nothing and may be repeated.
    pub(crate) fn is_safe(&self) -> bool {
        matches!(self.method(), b"GET" | b"HEAD" | b"OPTIONS")
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// How long a gRPC caller waits.
    pub(crate) fn grpc_timeout(&self) -> Option<Duration> {
        if !self.is_grpc() {
            return None;
        }
        self.fields
            .values(b"grpc-timeout")
            .next()
            .and_then(grpc::timeout)
    }

    /// Whether the client speaks gRPC and expects errors in trailers.
    pub(crate) fn is_grpc(&self) -> bool {
        self.version == Version::H2 && is_grpc(self.fields.first(Name::ContentType))
    }
}

/// Whether a content type is one of gRPC's.
pub(crate) fn is_grpc(content_type: Option<&[u8]>) -> bool {
    content_type.is_some_and(|t| t.starts_with(b"application/grpc"))
}

/// The head of a final response.
#[derive(Debug, Default)]
pub(crate) struct ResponseHead {
    pub(crate) fields: Fields,
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// `Content-Length` as announced, also where there is no body (HEAD, 304).
    pub(crate) announced_bytes: Option<u64>,
    /// The endpoint closes the connection after this response.
    pub(crate) close: bool,
    pub(crate) listed: Listed,
}

impl ResponseHead {
    /// Makes it as new but keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.fields.clear();
        self.status = 0;
        self.framing = Framing::Empty;
        self.announced_bytes = None;
        self.close = false;
        self.listed.clear();
    }
}

/// Splits a comma-separated field value into its trimmed, non-empty elements.
pub(crate) fn list_elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether `name` is one of those listed in `Connection`.
pub(crate) fn is_listed(listed: &Listed, fields: &Fields, name: &[u8]) -> bool {
    listed
        .iter()
        .any(|at| fields.bytes[span(*at)].eq_ignore_ascii_case(name))
}

/// Remembers an element of a `Connection` value; `value` is where the whole value lies.
pub(crate) fn listed_span(fields: &Fields, element: &[u8]) -> (u32, u32) {
    let base = fields.bytes.as_ptr() as usize;
    let start = element.as_ptr() as usize - base;
    (offset(start), offset(start + element.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Vec<String>);

    impl FieldSink for Lines {
        fn run(&mut self, fields: &Fields, range: Range<usize>) {
            let text = match fields.lines(range.clone()) {
                Some(lines) => String::from_utf8_lossy(lines).into_owned(),
                None => format!("({range:?})"),
            };
            self.0.push(text);
        }
        fn field(&mut self, name: &'static str, value: &[u8]) {
            self.configured(name, value);
        }
        fn configured(&mut self, name: &str, value: &[u8]) {
            self.0
                .push(format!("{name}={}", String::from_utf8_lossy(value)));
        }
    }

    #[test]
    fn known_names_are_recognised_in_any_case() {
        for (text, name) in [
            ("Host", Name::Host),
            ("TE", Name::Te),
            ("COOKIE", Name::Cookie),
            ("expect", Name::Expect),
            ("Keep-Alive", Name::KeepAlive),
            ("user-agent", Name::UserAgent),
            ("X-Forwarded-For", Name::XForwardedFor),
            ("x-forwarded-host", Name::XForwardedHost),
            ("Proxy-Connection", Name::ProxyConnection),
            ("Transfer-Encoding", Name::TransferEncoding),
            ("x_y", Name::Underscore),
            ("accept", Name::Other),
            ("content_length", Name::Underscore),
            ("X-Switchback-Mirrored", Name::XSwitchbackMirrored),
            ("hosts", Name::Other),
            ("", Name::Other),
        ] {
            assert_eq!(Name::of(text.as_bytes()), name, "{text}");
        }
    }

    #[test]
    fn kept_lines_are_copied_in_runs() {
        let mut fields = Fields::default();
        for (name, value) in [("a", "1"), ("b", "2"), ("te", "x"), ("c", ""), ("d", "4")] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let mut lines = Lines::default();
        fields.copy_runs(&mut lines, |f| f.known != Name::Te);
        assert_eq!(lines.0, ["a: 1\r\nb: 2\r\n", "c: \r\nd: 4\r\n"]);
    }

    #[test]
    fn lines_with_odd_spacing_are_not_copied_raw() {
        let mut fields = Fields::default();
        let raw = b"a:1\r\nb: 2\r\nc:  3\nd: 4\r\n";
        fields.set_bytes(raw);
        for (name, value) in [
            (0..1, 2..3),
            (5..6, 8..9),
            (11..12, 15..16),
            (17..18, 20..21),
        ] {
            fields.push_span(name, value);
        }
        let mut lines = Lines::default();
        fields.copy_runs(&mut lines, |_| true);
        assert_eq!(lines.0, ["(0..1)", "b: 2\r\n", "(2..3)", "d: 4\r\n"]);
    }

    #[test]
    fn list_elements_are_trimmed() {
        let elements: Vec<_> = list_elements(b" close ,, Upgrade,\tx ").collect();
        assert_eq!(elements, [&b"close"[..], b"Upgrade", b"x"]);
    }
}
