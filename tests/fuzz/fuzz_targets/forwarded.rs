//! Who the client is: only those whose word is believed can say it for somebody else, and only for what
//! lies before them.
//!
//! The first byte chooses the peer, the rest are lines of `X-Forwarded-For`.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use switchback_fuzz::shown;
use switchback_fuzz::strict;
use switchback_proxy::fuzz::{Peer, client_address, forward};

const PEERS: [&str; 6] = ["192.0.2.1", "10.0.0.1", "::ffff:10.0.0.1", "::1", "2001:db8::1", "::ffff:192.0.2.1"];

fn address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    ip.ok().or_else(|| bare?.parse().ok())
}

fuzz_target!(|input: &[u8]| {
    let Some((chosen, rest)) = input.split_first() else { return };
    let name = PEERS[usize::from(*chosen) % PEERS.len()];
    let peer: IpAddr = name.parse().expect("an address");
    let trusted: [IpNet; 2] = ["10.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")];
    let believed = |address: IpAddr| trusted.iter().any(|network| network.contains(&address.to_canonical()));
    let mut head = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
    for line in rest.split(|byte| *byte == b'\n') {
        head.extend_from_slice(b"X-Forwarded-For: ");
        head.extend_from_slice(line);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let Some(client) = client_address(&head, peer, &trusted) else { return };
    let Ok(request) = strict::request(&head) else { return };
    let said: Vec<&[u8]> = request.values("x-forwarded-for").collect();
    let peer_said = Peer { address: name, is_trusted: believed(peer), mirrored: false };
    let sent = forward(&head, peer_said).expect("accepted");
    let sent = strict::request(&sent).unwrap_or_else(|fault| panic!("{fault:?}: {}", shown(&sent)));
    let chains: Vec<&[u8]> = sent.values("x-forwarded-for").collect();
    assert_eq!(chains.len(), 1, "{}", shown(&head));
    if !believed(peer) {
        assert_eq!(client, peer, "a stranger was believed: {}", shown(&head));
        assert_eq!(chains[0], name.as_bytes(), "{}", shown(&head));
        return;
    }
    let mut chain = said.join(&b", "[..]);
    chain.extend_from_slice(b", ");
    chain.extend_from_slice(name.as_bytes());
    assert_eq!(chains[0], chain, "{}", shown(&head));
    // From the right: believed addresses, then the client.
    let elements = said.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    let addresses: Vec<IpAddr> = elements.map_while(address).collect();
    let expected = addresses.iter().find(|address| !believed(**address)).or(addresses.last());
    assert_eq!(client, *expected.unwrap_or(&peer), "{}", shown(&head));
});
