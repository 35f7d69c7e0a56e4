//! The heads that are read and written.

/// What a simple client sends.
pub(crate) const FEW: &[u8] =
    b"GET /items/17?page=2 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: probe/1\r\nAccept: */*\r\n\r\n";

/// What a browser sends to a target, with a field of its own.
macro_rules! browser {
    ($target:literal, $field:literal) => {
        concat!(
            "GET ",
            $target,
            " HTTP/1.1\r\n\
            Host: shop.example\r\n\
            Connection: keep-alive\r\n\
            sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
            sec-ch-ua-mobile: ?0\r\n\
            sec-ch-ua-platform: \"Linux\"\r\n\
            User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
            Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
            Sec-Fetch-Site: same-origin\r\n\
            Sec-Fetch-Mode: navigate\r\n\
            Sec-Fetch-Dest: document\r\n",
            $field,
            "\r\n\
            Accept-Encoding: gzip, deflate, br, zstd\r\n\
            Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\r\n"
        )
        .as_bytes()
    };
}

/// What a browser sends: thirteen fields.
pub(crate) const BROWSER: &[u8] =
    browser!("/items/17?page=2", "Referer: https://shop.example/items");

/// The same of a client whose cookie keeps it on its backend.
pub(crate) const KEYED: &[u8] = browser!(
    "/keyed/17?page=2",
    "Cookie: theme=dark; sb_user=4f1e6c0b9a7d4c3e8b2a5d6f7c8e9a0b"
);

/// For the route that sets and removes fields on the way there and back.
pub(crate) const CHANGED: &[u8] =
    b"GET /changed/17 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: probe/1\r\nAccept: */*\r\nX-Debug: 1\r\n\r\n";

/// What the origin answers to everything: nine fields and a little body.
pub(crate) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: origin\r\n\
    Date: Tue, 24 Nov 2026 08:33:07 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 24\r\n\
    Last-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\n\
    ETag: \"5f2a-18c9b1d4\"\r\n\
    Cache-Control: max-age=60\r\n\
    Vary: Accept-Encoding\r\n\
    X-Frame-Options: DENY\r\n\r\n\
    <p>twenty-four bytes</p>";
