//! A strict origin: reads HTTP/1.1 requests to the letter of RFC 9112 and knows no leniency.
//!
//! It shares no code with the proxy. What the proxy sends must be read here as exactly one request;
//! what the proxy accepts may differ from this only in the ways that [`Fault`] names.

/// Names and values, in order, as sent.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// The bytes it takes.
    pub length: usize,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { method, target, .. } = self;
        write!(f, "{} {}", method.escape_ascii(), target.escape_ascii())?;
        for (name, value) in self.fields.iter().chain(&self.trailers) {
            write!(f, " {}: {}", name.escape_ascii(), value.escape_ascii())?;
        }
        write!(f, " [{}]", self.body.escape_ascii())
    }
}

/// A chunked body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    pub content: Vec<u8>,
    pub trailers: Fields,
    pub length: usize,
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The end is missing.
    Incomplete,
    /// A line ends in LF alone, or CR stands alone.
    BareBreak,
    /// Empty lines before the request line.
    EmptyLine,
    RequestLine,
    Version,
    /// Neither a path nor `*` for OPTIONS.
    TargetForm,
    FieldName,
    FieldValue,
    Host,
    Length,
    /// `Content-Length` is there twice.
    LengthTwice,
    Coding,
    Chunk,
}

impl Request {
    /// The values of a name.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(|(given, _)| given.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| &value[..])
    }

    /// The one `Host`.
    pub fn host(&self) -> &[u8] {
        self.values("host").next().unwrap_or_default()
    }
}

/// Reads the request at the start of `input`.
pub fn request(input: &[u8]) -> Result<Request, Fault> {
    if input.starts_with(b"\r") || input.starts_with(b"\n") {
        return Err(Fault::EmptyLine);
    }
    let (line, mut at) = line(input, 0)?;
    let (method, target) = request_line(line)?;
    let fields = fields(input, &mut at)?;
    let mut request = Request {
        method: method.to_vec(),
        target: target.to_vec(),
        fields,
        body: Vec::new(),
        trailers: Fields::new(),
        length: at,
    };
    let mut hosts = request.values("host");
    if hosts.next().is_none_or(<[u8]>::is_empty) || hosts.next().is_some() {
        return Err(Fault::Host);
    }
    drop(hosts);
    read_body(&mut request, &input[at..])?;
    Ok(request)
}

fn read_body(request: &mut Request, rest: &[u8]) -> Result<(), Fault> {
    let lengths: Vec<Vec<u8>> = request
        .values("content-length")
        .map(<[u8]>::to_vec)
        .collect();
    let codings: Vec<Vec<u8>> = request
        .values("transfer-encoding")
        .map(<[u8]>::to_vec)
        .collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(()),
        ([length], []) => {
            let bytes = digits(length)?;
            request.body = rest.get(..bytes).ok_or(Fault::Incomplete)?.to_vec();
            request.length += bytes;
            Ok(())
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => {
            let chunks = chunked(rest)?;
            request.body = chunks.content;
            request.trailers = chunks.trailers;
            request.length += chunks.length;
            Ok(())
        }
        ([_, _, ..], []) => Err(Fault::LengthTwice),
        _ => Err(Fault::Coding),
    }
}

/// Reads the chunked body at the start of `input`.
pub fn chunked(input: &[u8]) -> Result<Chunks, Fault> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let (size_line, after) = line(input, at)?;
        let digits = size_line
            .iter()
            .position(|byte| *byte == b';')
            .unwrap_or(size_line.len());
        let (size, extension) = size_line.split_at(digits);
        if size.is_empty()
            || size.len() > 16
            || !size.iter().all(u8::is_ascii_hexdigit)
            || extension.contains(&0)
        {
            return Err(Fault::Chunk);
        }
        let size = std::str::from_utf8(size)
            .ok()
            .and_then(|size| u64::from_str_radix(size, 16).ok());
        let size = usize::try_from(size.ok_or(Fault::Chunk)?).map_err(|_| Fault::Incomplete)?;
        at = after;
        if size == 0 {
            let trailers = fields(input, &mut at)?;
            return Ok(Chunks {
                content,
                trailers,
                length: at,
            });
        }
        let end = at.checked_add(size).ok_or(Fault::Incomplete)?;
        content.extend_from_slice(input.get(at..end).ok_or(Fault::Incomplete)?);
        let close = input.get(end..end + 2).ok_or(Fault::Incomplete)?;
        if close != b"\r\n" {
            return Err(Fault::Chunk);
        }
        at = end + 2;
    }
}

/// Reads field lines up to the empty line.
fn fields(input: &[u8], at: &mut usize) -> Result<Fields, Fault> {
    let mut fields = Fields::new();
    loop {
        let (text, after) = line(input, *at)?;
        *at = after;
        if text.is_empty() {
            return Ok(fields);
        }
        let colon = text
            .iter()
            .position(|byte| *byte == b':')
            .ok_or(Fault::FieldName)?;
        let (name, value) = (&text[..colon], trim(&text[colon + 1..]));
        if name.is_empty() || !name.iter().all(is_token) {
            return Err(Fault::FieldName);
        }
        if !value
            .iter()
            .all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
        {
            return Err(Fault::FieldValue);
        }
        fields.push((name.to_vec(), value.to_vec()));
    }
}

fn request_line(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(Fault::RequestLine);
    };
    if method.is_empty() || !method.iter().all(is_token) || target.is_empty() {
        return Err(Fault::RequestLine);
    }
    if !target.iter().all(u8::is_ascii_graphic) {
        return Err(Fault::RequestLine);
    }
    if version != b"HTTP/1.1" {
        return Err(Fault::Version);
    }
    if !target.starts_with(b"/") && (target, method) != (b"*", b"OPTIONS") {
        return Err(Fault::TargetForm);
    }
    Ok((method, target))
}

/// The line that begins at `at`, and where the next one begins.
fn line(input: &[u8], at: usize) -> Result<(&[u8], usize), Fault> {
    let rest = &input[at..];
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'\r' | b'\n'))
        .ok_or(Fault::Incomplete)?;
    match rest[end..] {
        [b'\r', b'\n', ..] => Ok((&rest[..end], at + end + 2)),
        [b'\r'] => Err(Fault::Incomplete),
        _ => Err(Fault::BareBreak),
    }
}

fn digits(text: &[u8]) -> Result<usize, Fault> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Length);
    }
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    usize::try_from(number.ok_or(Fault::Length)?).map_err(|_| Fault::Length)
}

fn trim(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(start, |last| last + 1);
    &value[start..end]
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}
