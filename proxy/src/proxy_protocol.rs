//! The PROXY protocol header (versions 1 and 2) that a load balancer puts in front of a connection.
//!
//! Exactly the header is read from the socket: what follows belongs to TLS or HTTP. A header of
//! version 1 has no length, so it is read byte by byte, as its specification suggests; this happens
//! once for each connection of a long-lived load balancer.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The start of a header of version 2, which no other protocol begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header of version 1, its line end included.
const V1_BYTES_MAX: usize = 107;

/// Longest header of version 2 that is accepted: addresses and some type-length-values.
const V2_BYTES_MAX: usize = 16 + 1024;

/// Reads the header; tells the client it names. `None`: the balancer speaks for itself.
///
/// # Errors
/// When the connection does not begin with a valid header.
///
/// # Cancel safety
/// Dropping it leaves the connection in the middle of the header: close it.
pub(crate) async fn read(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    socket.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(16, 0);
        socket.read_exact(&mut header[12..]).await?;
        let length = 16 + usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > V2_BYTES_MAX {
            return Err(invalid());
        }
        header.resize(length, 0);
        socket.read_exact(&mut header[16..]).await?;
    } else {
        while !header.ends_with(b"\r\n") {
            if header.len() == V1_BYTES_MAX || !header.starts_with(b"PROXY ") {
                return Err(invalid());
            }
            header.push(socket.read_u8().await?);
        }
    }
    let (parsed, length) =
        ProxyHeader::parse(&header, ParseConfig::default()).map_err(|_| invalid())?;
    if length != header.len() {
        return Err(invalid());
    }
    Ok(parsed.proxied_address().map(|address| address.source))
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a PROXY protocol header")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<(Option<String>, usize), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("runtime");
        let mut input = bytes;
        let parsed = runtime
            .block_on(read(&mut input))
            .map_err(|e| e.to_string())?;
        Ok((parsed.map(|address| address.to_string()), input.len()))
    }

    #[test]
    fn both_versions_name_the_client_and_leave_the_rest() {
        let v1 = b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\nGET /";
        assert_eq!(parse(v1), Ok((Some("1.2.3.4:1111".into()), 5)));
        assert_eq!(parse(b"PROXY UNKNOWN\r\nG"), Ok((None, 1)));
        let mut v2 = SIGNATURE.to_vec();
        v2.extend([0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0x04, 0x57, 0, 80]);
        v2.extend(b"xy");
        assert_eq!(parse(&v2), Ok((Some("1.2.3.4:1111".into()), 2)));
        let mut local = SIGNATURE.to_vec();
        local.extend([0x20, 0, 0, 0]);
        assert_eq!(parse(&local), Ok((None, 0)));
    }

    #[test]
    fn anything_else_is_refused() {
        let mut huge = SIGNATURE.to_vec();
        huge.extend([0x21, 0x11, 0xff, 0xff]);
        let mut long = b"PROXY TCP4 ".to_vec();
        long.extend([b'1'; 120]);
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 x y 1 2\r\n",
            b"PROXY",
            &huge,
            &long,
            b"",
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
